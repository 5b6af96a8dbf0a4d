"""A real Prometheus beside the local stack, and what its rules and the dashboard ask for."""

import json
import os
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.part import Part
from deploy.local.ports import HOST, free_ports
from tests.support.servers import ServerProcess
from tests.support.stack import SERVICES, LocalStack

FILES = Path(__file__).parents[2] / "deploy/chart/gpudev/files"
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ, reason="Prometheus is not installed"
)
"""On a machine without Debian's packages it is left out; CI has them, and must not."""
_VARIABLES = {"$job": ".+", "$__rate_interval": "1m"}


def rules() -> dict[str, dict[str, Any]]:
    """The alert rules by their name."""
    return {rule["alert"]: rule for rule in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"][0]["rules"]}


def dashboard_queries() -> dict[str, str]:
    """The dashboard's queries as Grafana asks them, by panel and letter."""
    queries = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }
    return {name: _filled(query) for name, query in queries.items()}


def _filled(query: str) -> str:
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    return query


def selectors(query: str) -> dict[str, set[str]]:
    """The metrics of a query, each with the labels that it is chosen by."""
    found: dict[str, set[str]] = {}
    for name, matchers in re.findall(r"\b((?:gpudev|process)_\w+)(?:\{([^}]*)\})?", query):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]~?", matchers))
    return found


def grouped_by(query: str) -> set[str]:
    """The labels that a query sums over, or takes the highest of."""
    return {label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")}


class Prometheus(ServerProcess):
    """Scrapes each replica of a stack every second, and evaluates rules as often.

    Args:
        folder: Where it keeps everything.
        stack: A running one.
        groups: Rules, as in a file of Prometheus.
    """

    def __init__(self, folder: Path, stack: LocalStack, groups: list[dict[str, Any]]) -> None:
        (port,) = free_ports(1)
        self.url = f"http://{HOST}:{port}"
        rule_file, config = folder / "rules.yaml", folder / "prometheus.yaml"
        rule_file.write_text(yaml.safe_dump({"groups": groups}))
        config.write_text(yaml.safe_dump(_config(stack, rule_file)))
        super().__init__(
            Part(
                name="prometheus",
                argv=(
                    shutil.which("prometheus") or "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={HOST}:{port}",
                    "--log.level=warn",
                ),
                log=folder / "prometheus.log",
                ready=self._is_ready,
                port=port,
            )
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query. Blocks for a moment."""
        return list(self._ask("query", {"query": expression})["result"])

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """The alerts that fire now, by name, each with `labels` and `annotations`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self._ask("alerts", {})["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def _ask(self, what: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return dict(json.load(answer)["data"])

    def _is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
        return False


@contextmanager
def scraping(stack: LocalStack, groups: list[dict[str, Any]]) -> Iterator[Prometheus]:
    """Prometheus for the length of a block; its folder goes with it."""
    with tempfile.TemporaryDirectory(prefix="gpudev-prometheus-") as folder:
        server = Prometheus(Path(folder), stack, groups)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _config(stack: LocalStack, rule_file: Path) -> dict[str, Any]:
    parts = stack.parts().values()
    targets = {
        service: [f"{HOST}:{part.metrics_port}" for part in parts if part.name.startswith(f"{service}-")]
        for service in SERVICES
    }
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rule_file)],
        "scrape_configs": [
            {"job_name": f"gpudev-{service}", "static_configs": [{"targets": addresses}]}
            for service, addresses in targets.items()
        ],
    }
