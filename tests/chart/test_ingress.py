"""The rendered Ingress and HTTPRoute send every path where the route table sends it."""

from typing import Any

import pytest

from shared.routes import ROUTES, service_of
from tests.support.chart import Object, objects, of_kind
from tests.support.route_table import DOCUMENTED

GATEWAY = {"name": "public", "namespace": "gateways"}
PATHS = sorted(
    {
        *(path for _, path in DOCUMENTED),
        *(f"{route.path.rstrip('/')}{end}" for route in ROUTES for end in ("", "/", "/x", "x", "/x/y")),
        "/nothing",
        "/v1",
        "/v1/",
        "/v2/jobs",
        "/healthz",
        "/health/other",
    }
    - {""}
)


def winner(rows: list[tuple[str, str, str]], path: str) -> str:
    """As Ingress and Gateway API say it: an exact path wins, then the longest prefix, by whole segments."""
    exact = [service for kind, row, service in rows if kind == "Exact" and row == path]
    if exact:
        return exact[0]
    prefixes = [
        (len(row), service)
        for kind, row, service in rows
        if kind != "Exact" and (row == "/" or f"{path.rstrip('/')}/".startswith(f"{row.rstrip('/')}/"))
    ]
    return max(prefixes)[1]


def ingress_rows(made: list[Object]) -> list[tuple[str, str, str]]:
    (rule,) = of_kind("Ingress", made)["gpudev"]["spec"]["rules"]
    return [
        (row["pathType"], row["path"], row["backend"]["service"]["name"].removeprefix("gpudev-"))
        for row in rule["http"]["paths"]
    ]


def route_rows(made: list[Object]) -> list[tuple[str, str, str]]:
    rules = of_kind("HTTPRoute", made)["gpudev"]["spec"]["rules"]
    return [
        (match["path"]["type"], match["path"]["value"], rule["backendRefs"][0]["name"].removeprefix("gpudev-"))
        for rule in rules
        for match in rule["matches"]
    ]


def http_route(**values: Any) -> list[Object]:
    return objects(ingress={"kind": "HTTPRoute", "gateways": [GATEWAY], **values})


@pytest.mark.parametrize("path", PATHS)
def test_every_path_goes_to_its_service(path: str) -> None:
    # with a slash at its end a path is the same path
    wanted = service_of(path if path == "/" else path.rstrip("/"))
    assert winner(ingress_rows(objects()), path) == wanted
    assert winner(route_rows(http_route()), path) == wanted


def test_a_row_leads_to_a_service_that_is_there() -> None:
    services = of_kind("Service")
    for _, _, name in ingress_rows(objects()):
        assert {port["name"]: port["port"] for port in services[f"gpudev-{name}"]["spec"]["ports"]}["http"] == 8000


def test_tls_by_a_secret_that_cert_manager_fills() -> None:
    tls = {"secret": "gpudev-tls", "clusterIssuer": "letsencrypt"}
    made = of_kind("Ingress", objects(ingress={"host": "gpudev.example.org", "tls": tls}))["gpudev"]
    assert made["spec"]["tls"] == [{"secretName": "gpudev-tls", "hosts": ["gpudev.example.org"]}]
    assert made["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}
    assert made["spec"]["rules"][0]["host"] == "gpudev.example.org"


def test_routes_of_a_gateway_have_no_time_limit_and_fit_its_limits() -> None:
    made = http_route(host="gpudev.example.org", redirectGateways=[{**GATEWAY, "sectionName": "http"}])
    routes = of_kind("HTTPRoute", made)
    assert not of_kind("Ingress", made)
    rules = routes["gpudev"]["spec"]["rules"]
    assert routes["gpudev"]["spec"]["parentRefs"] == [GATEWAY]
    assert len(rules) <= 16
    for rule in rules:
        assert len(rule["matches"]) <= 8
        assert rule["timeouts"] == {"request": "0s"}
    (redirect,) = routes["gpudev-redirect"]["spec"]["rules"]
    assert redirect["filters"][0]["requestRedirect"]["scheme"] == "https"


def test_an_ingress_of_ones_own_is_possible() -> None:
    made = objects(ingress={"enabled": False})
    assert not of_kind("Ingress", made)
    assert not of_kind("HTTPRoute", made)
