"""What no API server has: routes below /simulator that make things go wrong (README.md)."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from deploy.local.cluster.apiserver.api import success
from deploy.local.cluster.apiserver.faults import Fault, Faults
from deploy.local.cluster.apiserver.http import Request, Response
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES


class Machines(Protocol):
    """What can happen to nodes and their pods."""

    def kill_node(self, name: str) -> None:
        """Everything on it ends, and nobody tells."""

    def start_node(self, name: str) -> None:
        """It comes up again."""

    def kill_for_memory(self, pod: Object) -> bool:
        """End the pod's running containers as the kernel does when memory runs out; whether any ran."""

    def evict(self, pod: Object) -> bool:
        """End the pod as a node does that is short of memory; whether it lived."""


class Admin:
    """Handles requests below /simulator."""

    def __init__(self, registry: Registry, machines: Machines, faults: Faults) -> None:
        self._registry, self._machines, self._faults = registry, machines, faults

    def handle(self, request: Request, parts: list[str]) -> Response:
        """The answer; `parts` are the path's below /simulator."""
        match request.method, parts:
            case "GET", ["faults"]:
                return Response(body=msgspec.json.encode(self._faults.wanted))
            case "PUT", ["faults"]:
                self._faults.replace(_read_faults(request))
            case "DELETE", ["faults"]:
                self._faults.replace([])
            case "POST", ["nodes", name, "kill"]:
                self._on_node(name, self._machines.kill_node)
            case "POST", ["nodes", name, "start"]:
                self._on_node(name, self._machines.start_node)
            case "POST", ["pods", namespace, name, "oom"]:
                self._on_pod(namespace, name, self._machines.kill_for_memory)
            case "POST", ["pods", namespace, name, "evict"]:
                self._on_pod(namespace, name, self._machines.evict)
            case _:
                raise errors.no_such_path()
        return Response(body=msgspec.json.encode(success()))

    def _on_node(self, name: str, effect: Callable[[str], None]) -> None:
        self._registry.get(Target(RESOURCES["nodes"], "", name))
        effect(name)

    def _on_pod(self, namespace: str, name: str, effect: Callable[[Object], bool]) -> None:
        if not effect(self._registry.get(Target(RESOURCES["pods"], namespace, name)).value):
            raise errors.bad_request(f"pod {name} does not run")


def _read_faults(request: Request) -> list[Fault]:
    try:
        return msgspec.json.decode(request.body, type=list[Fault])
    except msgspec.DecodeError as error:
        raise errors.bad_request(f"these are no faults: {error}") from error
