"""Hosts of the jobs' own at the local ingress, as an ingress controller makes them of the cluster's Ingresses.

Traefik's own provider wants more of a cluster than the simulator has. So it asks this page every second, which says in
Traefik's words what the Ingresses say.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from deploy.local.ports import HOST
from deploy.local.simulator_api import Object, SimulatorApi

log = structlog.get_logger(__name__)

DOMAIN = "localhost"
"""Names below it are this machine to every browser (RFC 6761 section 6.3)."""
POLL_SECONDS = 1
_PRIORITY = 1_000_000
"""Before every path of the API."""
_HEAD_BYTES = 64 << 10
_SECONDS = 5.0


async def serve_job_hosts(port: int, kubeconfig: Path) -> asyncio.Server:
    """Answer every request with the configuration of the moment. Close the server to end it."""
    api = SimulatorApi(kubeconfig)

    def read() -> Object:
        ingresses = api.items("/apis/networking.k8s.io/v1/ingresses")
        return configuration(ingresses, api.items("/api/v1/services")) if ingresses else {}

    return await asyncio.start_server(lambda *streams: _serve(read, *streams), HOST, port, limit=_HEAD_BYTES)


def configuration(ingresses: Iterable[Object], services: Iterable[Object]) -> Object:
    """Routers and services of Traefik for Ingresses whose backends have node ports."""
    ports = {
        (service["metadata"]["namespace"], service["metadata"]["name"], port.get("name")): port.get("nodePort")
        for service in services
        for port in service["spec"].get("ports", ())
    }
    routers, balancers = {}, {}
    for ingress in ingresses:
        name = ingress["metadata"]["name"]
        for rule in ingress["spec"]["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]
            port = ports.get((ingress["metadata"]["namespace"], backend["name"], backend["port"]["name"]))
            if port is None:
                continue
            routers[name] = {"rule": f"Host(`{rule['host']}`)", "priority": _PRIORITY, "service": name}
            balancers[name] = {"loadBalancer": {"servers": [{"url": f"http://{HOST}:{port}"}]}}
    return {"http": {"routers": routers, "services": balancers}} if routers else {}


async def _serve(read: Callable[[], Object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(2 * _SECONDS):
            await reader.readuntil(b"\r\n\r\n")
            body = json.dumps(await asyncio.to_thread(read)).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
    except Exception as error:  # noqa: BLE001 - Traefik keeps what it had, and asks again
        log.info("job_hosts_not_read", error=type(error).__name__)
    finally:
        writer.close()
