"""Two replicas of a service on the cores that one has: what the second adds, and what it costs.

They listen on one port, where the kernel gives each new connection to one of them, as it does to the workers of a
server that has several; or they stand behind the ingress, the stack's own replica and another.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.local import part as parts
from deploy.local.part import Part
from deploy.local.ports import free_ports
from tests.bench.subjects import Subject, ingress
from tests.support.stack import ROOT

_LISTENS = "0A"
"""State of a socket, as the kernel calls it."""


@contextmanager
def two_replicas(ours: Subject, service: str, way: str) -> Iterator[Subject]:
    """Two replicas of `service` on the tables of `ours`, for one way to them."""
    with ExitStack() as running:
        port = free_ports(1)[0]
        if way == "direct":
            pids = [running.enter_context(_replica(ours, service, port, number)) for number in (8, 9)]
            yield replace(ours, name="two", direct={**ours.direct, service: port}, processes=(*ours.processes, *pids))
            return
        pid = running.enter_context(_replica(ours, service, port, 9))
        backends = {name: [own] for name, own in ours.direct.items()}
        front = running.enter_context(ingress(ours.stack, {**backends, service: [ours.direct[service], port]}))
        yield replace(ours, name="two", ingress=front.port, processes=(*ours.processes, pid, front.pid))


@contextmanager
def _replica(ours: Subject, service: str, port: int, number: int) -> Iterator[int]:
    """One more, with the settings of the first; its pid."""
    metrics_port = free_ports(1)[0]
    own = {"HTTP_PORT": port, "METRICS_PORT": metrics_port, "REPLICA": f"{service}-{number}", "DRAIN_SECONDS": 0}
    listening = _listening(port)
    part = Part(
        name=f"{service}-{number}",
        argv=(sys.executable, "-m", "shared.serve", service),
        env={
            **_environment(ours.stack.parts()[f"{service}-1"].pid),
            **{f"GPUDEV_{name}": str(own[name]) for name in own},
        },
        cwd=ROOT,
        log=ours.stack.state.logs / f"{service}-{number}.log",
        # that the port answers would not tell which of them does
        ready=lambda: _listening(port) > listening,
        port=port,
        stop_seconds=10,
    )
    process = parts.spawn(part)
    try:
        parts.await_ready(process, part)
        yield process.pid
    finally:
        parts.stop(process, part)


def _environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry.startswith(("GPUDEV_", "AWS_", "KUBE")))


def _listening(port: int) -> int:
    """Sockets that listen on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _LISTENS for row in rows)
