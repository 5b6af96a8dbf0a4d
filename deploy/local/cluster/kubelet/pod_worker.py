"""Brings one pod from bound to ended, and from deleted to gone."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from deploy.local.cluster.events import EventRecorder
from deploy.local.cluster.kubelet import environment, volumes
from deploy.local.cluster.kubelet.container_worker import ContainerWorker, PodContext
from deploy.local.cluster.kubelet.images import Init
from deploy.local.cluster.kubelet.instances import Config
from deploy.local.cluster.kubelet.probes import Probe
from deploy.local.cluster.kubelet.status import PodFacts, pod_status
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object, now, parse_timestamp, uid_of
from deploy.local.cluster.registry.deletion import DeleteOptions
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES

logger = logging.getLogger(__name__)

_MOUNT_RETRY_SECONDS = 1.0
_ENDED = {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every pod worker shares."""

    registry: Registry
    events: EventRecorder
    search_path: str
    """PATH of every container."""
    host_ip: str
    back_off_seconds: float
    resolve: Callable[[Sequence[str], str, Path], list[str]]
    """The program that a container's argv means, by its image and root."""
    spawn: Callable[[Path], Awaitable[int]]
    """Starts a shim for the directory of a container's instance; its pid."""
    probes: Mapping[bytes, Probe]
    """Of programs that are not executed for a probe, by the content of their file."""
    inits: Mapping[bytes, Init]
    """Of programs that are not executed as init containers, likewise."""


class PodWorker:
    """One pod, by uid. `update` tells it what the API says; it tells the API what the containers do."""

    def __init__(self, pod: Object, directory: Path, pod_ip: str, surroundings: Surroundings) -> None:
        self.pod, self.directory, self._around = pod, directory, surroundings
        self.pod_ip = pod_ip
        started = pod["status"].get("startTime")
        self._facts = PodFacts(pod_ip, surroundings.host_ip, parse_timestamp(started) if started else now())
        spec = pod["spec"]
        # init containers restart until they succeed, unless the pod never restarts anything
        init_policy = "Never" if spec["restartPolicy"] == "Never" else "OnFailure"
        self._init = [self._container(c, init_policy, surroundings.inits) for c in spec.get("initContainers") or []]
        self._main = [self._container(c, spec["restartPolicy"], {}) for c in spec["containers"]]
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._failure: tuple[str, str] | None = None
        self._removed = False
        self.task = asyncio.create_task(self._run(), name=f"pod {pod['metadata']['name']}")

    def update(self, pod: Object) -> None:
        """The API's new version of the pod."""
        self.pod = pod
        self._changed.set()

    def removed(self) -> None:
        """The pod is gone from the API: end everything at once."""
        self._removed = True
        self._changed.set()

    def evict(self, message: str) -> None:
        """Ends the pod for the node's sake."""
        self._failure = ("Evicted", message)
        self._changed.set()

    async def _run(self) -> None:
        try:
            lifecycle = asyncio.create_task(self._live())
            supervision = asyncio.create_task(self._supervise())
            try:
                await lifecycle
                while not self._deleting and not self._removed:
                    await self._next_change(None)
            finally:
                supervision.cancel()
                lifecycle.cancel()
                await asyncio.gather(supervision, lifecycle, return_exceptions=True)
            if not self._removed:
                self._confirm_deletion()
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("pod %s", self.pod["metadata"]["name"])

    @property
    def _deleting(self) -> bool:
        return "deletionTimestamp" in self.pod["metadata"]

    async def _live(self) -> None:
        if self.pod["status"]["phase"] in _ENDED:
            return
        self._publish()
        await self._set_up_volumes()
        for worker in self._init:
            await worker.run()
            if worker.view.exit_code != 0:
                self._publish()
                return
        await asyncio.gather(*(worker.run() for worker in self._main))
        self._publish()

    async def _supervise(self) -> None:
        """Stops the containers when the pod is deleted, removed or over its deadline."""
        while not self._deleting and not self._removed and self._failure is None:
            if self._overdue():
                self._failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
                break
            await self._next_change(self._deadline())
        self._stopping.set()
        if not self._removed:
            self._signal(signal.SIGTERM)
            await self._grace()
        while True:
            # again and again: a container may have been about to start when it was told to stop
            self._signal(signal.SIGKILL)
            await asyncio.sleep(0.2)

    async def _grace(self) -> None:
        began = now()
        while not self._removed:
            seconds = self.pod["metadata"].get("deletionGracePeriodSeconds")
            if seconds is None:
                seconds = self.pod["spec"]["terminationGracePeriodSeconds"]
            end = began + timedelta(seconds=seconds)
            if self._deleting:
                end = min(end, parse_timestamp(self.pod["metadata"]["deletionTimestamp"]) + timedelta(seconds=1))
            if now() >= end:
                return
            await self._next_change(end)

    def _signal(self, number: signal.Signals) -> None:
        for worker in (*self._init, *self._main):
            worker.stop(number)

    def _deadline(self) -> datetime | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        return None if seconds is None else self._facts.started_at + timedelta(seconds=seconds)

    def _overdue(self) -> bool:
        deadline = self._deadline()
        return deadline is not None and now() >= deadline and self.pod["status"]["phase"] not in _ENDED

    async def _next_change(self, until: datetime | None) -> None:
        seconds = None if until is None else max((until - now()).total_seconds(), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def _set_up_volumes(self) -> None:
        while not self._stopping.is_set():
            try:
                disks = self.directory.parents[1] / "disks"
                volumes.set_up(self._current(), self.directory / "volumes", self._lookup, disks)
            except volumes.MountError as error:
                self._event("Warning", "FailedMount", str(error), "")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_MOUNT_RETRY_SECONDS):
                        await self._stopping.wait()
            else:
                return

    def _container(self, spec: Object, restart_policy: str, inits: Mapping[bytes, Init]) -> ContainerWorker:
        context = PodContext(
            configure=self._configure,
            resolve=self._resolve,
            spawn=self._around.spawn,
            probes=self._around.probes,
            inits=inits,
            root=self._root(spec["name"]),
            publish=self._publish,
            event=self._event,
            pod_ip=self.pod_ip,
            grace_seconds=self.pod["spec"]["terminationGracePeriodSeconds"],
            back_off_seconds=self._around.back_off_seconds,
        )
        return ContainerWorker(spec, self.directory / "containers" / spec["name"], restart_policy, context)

    def _configure(self, container: Object) -> Config:
        """Raises ConfigError when a Secret or ConfigMap is missing."""
        pod = self._current()
        variables = environment.variables_of(container, pod, self._lookup)
        root = self._root(container["name"])
        volumes.link_mounts(container, pod, self.directory / "volumes", root)
        working_directory = volumes.inside(root, container.get("workingDir") or "/")
        working_directory.mkdir(parents=True, exist_ok=True)
        volumes.make_message_file(container, root)
        base = {
            "PATH": self._around.search_path,
            "HOME": str(root),
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "GPUDEV_ROOT": str(root),
            "GPUDEV_POD_IP": self.pod_ip,
        }
        if "HOME" in variables:  # the one of the usual variables that is a path of the container
            variables = variables | {"HOME": volumes.meaning(container, root, variables["HOME"])}
        argv = self._resolve(environment.command_line(container, variables), container)
        return Config(argv, base | variables, working_directory)

    def _resolve(self, argv: Sequence[str], container: Object) -> list[str]:
        return self._around.resolve(argv, container["image"], self._root(container["name"]))

    def _root(self, container_name: str) -> Path:
        return self.directory / "roots" / container_name

    def _current(self) -> Object:
        return {**self.pod, "status": {**self.pod["status"], "podIP": self.pod_ip, "hostIP": self._around.host_ip}}

    def _lookup(self, resource: str, name: str) -> Object | None:
        namespace = self.pod["metadata"]["namespace"] if RESOURCES[resource].namespaced else ""
        record = self._around.registry.store.get(resource, namespace, name)
        return None if record is None else record.value

    def _event(self, kind: str, reason: str, message: str, container: str) -> None:
        init = any(worker.view.name == container for worker in self._init)
        path = f"spec.{'initContainers' if init else 'containers'}{{{container}}}" if container else ""
        host = self.pod["spec"]["nodeName"]
        self._around.events.record(self.pod, kind, reason, message, component="kubelet", host=host, field_path=path)

    def _publish(self) -> None:
        """Writes the status, if the pod is still the one that this worker knows."""
        if self._removed:
            return
        facts = PodFacts(self.pod_ip, self._around.host_ip, self._facts.started_at, self._failure)
        if self._init and not all(worker.view.exit_code == 0 for worker in self._init):
            for worker in self._main:
                if worker.view.state == {"waiting": {"reason": "ContainerCreating"}}:
                    worker.view.state = {"waiting": {"reason": "PodInitializing"}}
        init, main = [worker.view for worker in self._init], [worker.view for worker in self._main]

        def write(value: Object) -> None:
            if uid_of(value) == uid_of(self.pod) and value["status"]["phase"] not in _ENDED:
                value["status"] = pod_status(value, init, main, facts, now())

        self._around.registry.modify(self._target(), write)

    def _confirm_deletion(self) -> None:
        """Nothing runs any more: the object can go."""
        self._publish()
        try:
            options = DeleteOptions(grace_period_seconds=0, uid=uid_of(self.pod))
            self._around.registry.delete(self._target(), options)
        except errors.StatusError as error:
            if error.reason not in {"NotFound", "Conflict"}:
                raise

    def _target(self) -> Target:
        metadata = self.pod["metadata"]
        return Target(RESOURCES["pods"], metadata["namespace"], metadata["name"])
