"""The pods' own subresources: log, exec, binding, eviction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from deploy.local.cluster.apiserver import remote_command, websocket
from deploy.local.cluster.apiserver.api import success
from deploy.local.cluster.apiserver.http import Request, Response, Upgraded
from deploy.local.cluster.apiserver.listing import integer
from deploy.local.cluster.kubelet.execution import CannotExecute, NotRunning, execute
from deploy.local.cluster.kubelet.instances import Instance, instances
from deploy.local.cluster.kubelet.logs import LogOptions, read_log, since
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.deletion import parse_options
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.scheduler.scheduler import bind


class PodSubresources:
    """Handlers by name, for the API server."""

    def __init__(
        self,
        registry: Registry,
        directory_of: Callable[[Object], Path],
        resolve: Callable[[Sequence[str], str, Path], list[str]],
    ) -> None:
        self._registry, self._directory_of, self._resolve = registry, directory_of, resolve

    async def log(self, request: Request, target: Target) -> Response:
        """GET …/log."""
        _require(request, "GET")
        pod = self._registry.get(target).value
        name = _container_name(pod, request.query.get("container", ""))
        instance = self._instance(pod, name, previous=_flag(request, "previous"))
        options = _log_options(request)
        if instance is None:
            # a container of a node without kubelet, or of a pod that the kubelet refused, never wrote anything
            return Response(body=b"", content_type="text/plain")
        found = instance

        def ended() -> bool:
            return found.exit is not None or not found.directory.exists()

        return Response(content_type="text/plain", stream=read_log(found.log, options, ended=ended))

    async def exec(self, request: Request, target: Target) -> Response:
        """GET or POST …/exec: a program in a running container, over a connection that leaves HTTP."""
        if request.method not in {"GET", "POST"}:
            raise errors.method_not_allowed()
        command = _command(request)
        pod = self._registry.get(target).value
        name = _container_name(pod, request.query.get("container", ""))
        instance = self._running(pod, name)
        if not websocket.is_wanted(request):
            raise errors.bad_request("Upgrade request required")
        headers = websocket.handshake(request)
        image = next(c["image"] for c in _containers(pod) if c["name"] == name)
        argv = self._resolve(command.argv, image, self._directory_of(pod) / "roots" / name)
        run = partial(_run, instance.directory, argv, command)
        return Response(101, headers=headers, upgrade=run)

    async def binding(self, request: Request, target: Target) -> Response:
        """POST …/binding: assigns the pod to a node."""
        _require(request, "POST")
        body = request.json()
        node = body.get("target", {}).get("name") if isinstance(body, dict) else None
        if not node:
            raise errors.bad_request("the binding names no node")
        pod = self._registry.get(target).value
        if pod["spec"].get("nodeName"):
            detail = f'pod {target.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise errors.conflict("pods/binding", target.name, detail)
        bind(self._registry, pod, str(node))
        return Response(201, msgspec.json.encode({**success(), "code": 201}))

    async def eviction(self, request: Request, target: Target) -> Response:
        """POST …/eviction: a delete that disruption budgets could refuse; there are none here."""
        _require(request, "POST")
        body = request.json()
        if not isinstance(body, dict) or body.get("kind", "Eviction") != "Eviction":
            raise errors.bad_request("the body of the request is no Eviction")
        self._registry.delete(target, parse_options(request.query, body.get("deleteOptions")))
        return Response(201, msgspec.json.encode({**success(), "code": 201}))

    def _running(self, pod: Object, name: str) -> Instance:
        if not pod["spec"].get("nodeName"):
            raise errors.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        found = instances(self._directory_of(pod) / "containers" / name)
        if not found or not found[-1].running:
            raise errors.not_running(name)
        return found[-1]

    def _instance(self, pod: Object, name: str, *, previous: bool) -> Instance | None:
        found = instances(self._directory_of(pod) / "containers" / name)
        if previous:
            if len(found) < 2:  # noqa: PLR2004
                message = f'previous terminated container "{name}" in pod "{pod["metadata"]["name"]}" not found'
                raise errors.bad_request(message)
            return found[-2]
        if found:
            return found[-1]
        status = pod["status"]
        entries = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        state: Object = next((entry["state"] for entry in entries if entry["name"] == name), {})
        reason = state.get("waiting", {}).get("reason", "")
        if reason or (status["phase"] == "Pending" and pod["spec"].get("nodeName")):
            why = f"is waiting to start: {reason or 'ContainerCreating'}"
            raise errors.bad_request(f'container "{name}" in pod "{pod["metadata"]["name"]}" {why}')
        return None  # without a node there is no log, which is not an error


@dataclass(frozen=True, slots=True)
class _Command:
    argv: list[str]
    stdin: bool
    stdout: bool
    stderr: bool
    terminal: bool


def _command(request: Request) -> _Command:
    argv = [value for name, value in request.parameters if name == "command"]
    flags = [_flag(request, name) for name in ("stdin", "stdout", "stderr", "tty")]
    if not argv:
        raise errors.bad_request("you must specify at least 1 command for the pod")
    if not any(flags[:3]):
        raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return _Command(argv, *flags)


async def _run(instance: Path, argv: list[str], command: _Command, connection: Upgraded) -> None:
    channels = websocket.WebSocketChannels(connection)
    try:
        execution = await execute(instance, argv, terminal=command.terminal, stdin=command.stdin)
    except (CannotExecute, NotRunning) as error:
        await channels.finish(msgspec.json.encode(remote_command.start_failure(str(error))))
        return
    await remote_command.serve(channels, execution)


def _containers(pod: Object) -> list[Object]:
    return [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]


def _require(request: Request, method: str) -> None:
    if request.method != method:
        raise errors.method_not_allowed()


def _container_name(pod: Object, wanted: str) -> str:
    main = [str(container["name"]) for container in pod["spec"]["containers"]]
    init = [str(container["name"]) for container in pod["spec"].get("initContainers") or []]
    pod_name = pod["metadata"]["name"]
    if wanted:
        if wanted not in main + init:
            raise errors.bad_request(f"container {wanted} is not valid for pod {pod_name}")
        return wanted
    if len(main) > 1:
        raise errors.bad_request(f"a container name must be specified for pod {pod_name}, choose one of: {main}")
    return main[0]


def _flag(request: Request, name: str) -> bool:
    return request.query.get(name) in {"true", "1"}


def _log_options(request: Request) -> LogOptions:
    try:
        begin = since(integer(request.query, "sinceSeconds"), request.query.get("sinceTime"))
    except ValueError as error:
        raise errors.bad_request(f"invalid sinceTime: {error}") from error
    return LogOptions(
        follow=_flag(request, "follow"),
        timestamps=_flag(request, "timestamps"),
        tail_lines=integer(request.query, "tailLines"),
        limit_bytes=integer(request.query, "limitBytes"),
        since=begin,
    )
