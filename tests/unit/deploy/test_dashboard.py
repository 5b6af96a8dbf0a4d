"""The dashboard is one that Grafana takes, and its queries are ones that Prometheus takes."""

import copy
import importlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import REGISTRY

from shared.routes import SERVICES
from tests.support.prometheus import DASHBOARD, dashboard_queries, grouped_by, needs_prometheus, rules, selectors

FROM_PROMETHEUS = {"job", "instance"}
PANELS = DASHBOARD["panels"]


def test_grafana_reads_all_of_it_and_each_value_is_of_its_kind() -> None:
    """By Grafana's own classes, which are made of its schema and pass over what they do not know."""
    register_default_plugins()
    read = Dashboard.from_json(copy.deepcopy(DASHBOARD))
    assert list(lost(DASHBOARD, json.loads(JSONEncoder(sort_keys=True).encode(read)))) == OF_PROMETHEUS
    assert list(of_another_kind(read)) == []


OF_PROMETHEUS = [".annotations.list[0].titleFormat", ".annotations.list[0].step"]
"""Of annotations the schema has what all datasources have; these are Prometheus's own."""


def lost(ours: Any, read: Any, at: str = "") -> Iterator[str]:
    """What of ours Grafana has passed over, or takes for something else."""
    if isinstance(ours, dict) and isinstance(read, dict):
        for name, value in ours.items():
            yield from lost(value, read.get(name), f"{at}.{name}")
    elif isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        for place, pair in enumerate(zip(ours, read, strict=True)):
            yield from lost(*pair, at=f"{at}[{place}]")
    elif ours != read:
        yield at


def of_another_kind(read: Any, at: str = "") -> Iterator[str]:
    """Values that are not what the schema says: another type, or a word that Grafana does not know."""
    if isinstance(read, list):
        for place, one in enumerate(read):
            yield from of_another_kind(one, f"{at}[{place}]")
    elif hasattr(read, "to_json"):
        for name, wanted in get_type_hints(type(read)).items():
            value = getattr(read, name)
            yield from of_another_kind(value, f"{at}.{name}")
            try:
                msgspec.convert(value, wanted)
            except msgspec.ValidationError as error:
                yield f"{at}.{name}: {error}"
            except TypeError:  # one of several classes of Grafana's, whose values were looked at above
                continue


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells


def test_every_panel_asks_the_datasource_that_is_chosen() -> None:
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "job"}
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["targets"], panel["title"]


@needs_prometheus
def test_every_query_can_be_read(tmp_path: Path) -> None:
    queries = dashboard_queries()
    assert len(queries) > 30
    assert not [name for name, query in queries.items() if "$" in query], "a variable that the dashboard has not"
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries.values())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def test_every_metric_of_alerts_and_dashboard_is_made_with_the_labels_that_are_asked_for() -> None:
    made = made_labels()
    asked = {name: rule["expr"] for name, rule in rules().items()} | dashboard_queries()
    assert selectors(asked["GpudevSlow"]) == {"gpudev_http_request_seconds_bucket": {"route"}}
    assert grouped_by(asked["GpudevSlow"]) == {"job", "route", "le"}
    for name, query in asked.items():
        chosen = selectors(query)
        for metric, labels in chosen.items():
            assert labels <= made[metric] | FROM_PROMETHEUS, (name, metric)
        if chosen:
            every = set[str]().union(*(made[metric] for metric in chosen))
            assert grouped_by(query) <= every | FROM_PROMETHEUS, name


def made_labels() -> dict[str, set[str]]:
    """Every metric that the services make, with its labels."""
    for service in SERVICES:
        importlib.import_module(f"services.{service}.app")
    return {
        name: {*getattr(collector, "_labelnames", ()), *({"le"} if name.endswith("_bucket") else ())}
        for collector, names in REGISTRY._collector_to_names.items()
        for name in names
    }
