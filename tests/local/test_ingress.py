import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local.ingress import Ingress, dynamic_configuration, priority, rule, static_configuration
from shared.routes import FRONT_DOOR, ROUTES, SERVICES, Route

GOLDEN = Path(__file__).with_name("traefik_dynamic.json")
BACKENDS: dict[str, list[int]] = {
    name: [15_000 + 10 * number, 15_001 + 10 * number] for number, name in enumerate(SERVICES)
}
INGRESS = Ingress(directory=Path("/state"), port=8000, backends=BACKENDS, error_port=14_999, read_seconds=20)


def routers() -> dict[str, Any]:
    found: dict[str, Any] = dynamic_configuration(ROUTES, INGRESS)["http"]["routers"]
    return found


def test_the_configuration_is_the_one_that_was_reviewed() -> None:
    assert dynamic_configuration(ROUTES, INGRESS) == json.loads(GOLDEN.read_text())


def test_every_row_of_the_route_table_has_its_router() -> None:
    rendered = {(router["rule"], router["service"].removesuffix("-health")) for router in routers().values()}

    assert rendered == {(rule(route), route.service) for route in ROUTES} | {("PathPrefix(`/`)", FRONT_DOOR)}
    assert len(routers()) == len(ROUTES) + 1


def test_a_path_without_a_row_reaches_no_page_of_the_front_door() -> None:
    middlewares = dynamic_configuration(ROUTES, INGRESS)["http"]["middlewares"]

    assert routers()["everything-else"]["middlewares"] == ["errors", "nowhere", "retry"]
    assert middlewares["nowhere"] == {"replacePath": {"path": "/nowhere"}}


@pytest.mark.parametrize(("cores", "threads"), [(None, "1"), (1, "1"), (2, "1"), (4, "2")])
def test_half_of_the_cores_are_left_to_the_services(
    cores: int | None, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)

    assert replace(INGRESS, directory=tmp_path).part(tmp_path / "log").env == {"GOMAXPROCS": threads}


def test_health_is_answered_within_two_seconds_for_a_service_that_hangs() -> None:
    http = dynamic_configuration(ROUTES, INGRESS)["http"]
    health = {name: router for name, router in http["routers"].items() if name.startswith("health")}

    assert len(health) == 1 + len(SERVICES)
    for router in health.values():
        transport = http["services"][f"{router['service']}-replicas"]["loadBalancer"]["serversTransport"]
        seconds = float(http["serversTransports"][transport]["forwardingTimeouts"]["responseHeaderTimeout"].rstrip("s"))
        assert 1.5 < seconds < 2
        assert router["middlewares"] == ["errors"], "another try would take as long again"


def test_a_prefix_ends_at_a_segment_boundary() -> None:
    assert rule(Route("/v1/jobs", "jobs")) == "Path(`/v1/jobs`) || PathPrefix(`/v1/jobs/`)"
    assert rule(Route("/health", "auth", exact=True)) == "Path(`/health`) || Path(`/health/`)"


def test_a_longer_path_is_tried_before_a_shorter_one() -> None:
    exact, prefix, short = Route("/a/b", "auth", exact=True), Route("/a/b", "auth"), Route("/a", "auth")

    assert priority(exact) > priority(prefix) > priority(short) > routers()["everything-else"]["priority"]


def test_requests_are_spread_over_live_replicas() -> None:
    balancer = dynamic_configuration(ROUTES, INGRESS)["http"]["services"]["jobs-replicas"]["loadBalancer"]

    assert [server["url"] for server in balancer["servers"]] == ["http://127.0.0.1:15010", "http://127.0.0.1:15011"]
    assert balancer["healthCheck"]["path"] == "/readyz/shutdown"


def test_a_lone_replica_is_always_tried() -> None:
    lone = dynamic_configuration(ROUTES, replace(INGRESS, backends={name: [15_000] for name in SERVICES}))

    balancer = lone["http"]["services"]["jobs"]["loadBalancer"]
    assert balancer["servers"] == [{"url": "http://127.0.0.1:15000"}]
    assert "healthCheck" not in balancer


def test_writes_are_never_sent_twice() -> None:
    retry = dynamic_configuration(ROUTES, INGRESS)["http"]["middlewares"]["retry"]["retry"]

    assert "retryNonIdempotentMethod" not in retry
    assert retry["status"] == ["502"]


def test_reads_that_may_be_sent_twice_take_no_room_for_a_body() -> None:
    retry = dynamic_configuration(ROUTES, INGRESS)["http"]["middlewares"]["retry"]["retry"]

    assert retry["maxRequestBodyBytes"] == 0, "unless told, Traefik makes 2 MB ready for each"


def test_traefik_tells_nobody_that_it_runs_and_has_one_door() -> None:
    static = static_configuration(INGRESS, Path("/state/dynamic.yml"))

    assert static["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}
    assert static["api"] == {"dashboard": False, "insecure": False}
    assert [entry["address"] for entry in static["entryPoints"].values()] == ["127.0.0.1:8000"]
