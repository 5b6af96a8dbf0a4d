"""The dashboard is one that Grafana takes, and its queries are ones that Prometheus takes."""

import importlib
import subprocess
from pathlib import Path

import yaml
from prometheus_client import REGISTRY

from shared.routes import SERVICES
from tests.support.prometheus import DASHBOARD, dashboard_queries, grouped_by, needs_prometheus, rules, selectors

FROM_PROMETHEUS = {"job", "instance"}
PANELS = DASHBOARD["panels"]


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
