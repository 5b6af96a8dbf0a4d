"""The kubelets of all nodes of the fleet: registration, heartbeats, admission, and a worker for every pod."""

import asyncio
import ipaddress
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.local.cluster import fleet
from deploy.local.cluster.events import EventRecorder
from deploy.local.cluster.kubelet.images import Init, resolve
from deploy.local.cluster.kubelet.instances import Instance, instances
from deploy.local.cluster.kubelet.launcher import Launcher
from deploy.local.cluster.kubelet.pod_worker import PodWorker, Surroundings
from deploy.local.cluster.kubelet.probes import Probe
from deploy.local.cluster.kubelet.volumes import spread
from deploy.local.cluster.machinery.objects import Object, now, timestamp, uid_of
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES
from deploy.local.cluster.registry.store import Change
from deploy.local.cluster.scheduler.filters import matches_node_selector
from deploy.local.cluster.scheduler.requests import allocatable, insufficient, occupies, pod_requests, used_by

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 60.0
_SHUTDOWN_GRACE_SECONDS = 1.2
_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENDED = {"Succeeded", "Failed"}
_POD_NETWORK = ipaddress.IPv4Network("127.128.0.0/9")


class Kubelet:
    """Runs the pods of the fleet's nodes as local processes below `directory`."""

    def __init__(
        self,
        registry: Registry,
        events: EventRecorder,
        directory: Path,
        nodes: dict[str, str],
        *,
        back_off_seconds: float,
        images: Mapping[str, Path],
        launcher: Launcher,
        probes: Mapping[bytes, Probe],
        inits: Mapping[bytes, Init],
    ) -> None:
        self._registry, self._events, self._images = registry, events, images
        self._directory, self._nodes = directory, nodes
        # the interpreter's folder last, so that `python` exists on a bare machine too
        search_path = f"{_STANDARD_PATH}:{Path(sys.executable).parent}"
        self._around = Surroundings(
            registry,
            events,
            search_path,
            fleet.NODE_ADDRESS,
            back_off_seconds,
            self.resolve,
            launcher.spawn,
            probes,
            inits,
        )
        self._workers: dict[str, PodWorker] = {}
        self._dead: set[str] = set()  # nodes
        self._clearing: set[asyncio.Task[None]] = set()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread(directory)

    def directory_of(self, pod: Object) -> Path:
        """Where a pod's containers, volumes and logs lie."""
        return self._directory / uid_of(pod)

    def resolve(self, argv: Sequence[str], image: str, root: Path) -> list[str]:
        """The program that a container of this image, whose mounts lie in `root`, means by `argv`."""
        return resolve(argv, image, root, self._images)

    def register_nodes(self) -> None:
        """Creates or refreshes the fleet's Node objects, and removes those of an earlier, larger fleet."""
        for name, instance_type in self._nodes.items():
            wanted = _simulated_node(name, instance_type)
            if self._registry.store.get("nodes", "", name) is None:
                self._registry.create(RESOURCES["nodes"], "", wanted)
            self._registry.modify(_node(name), lambda value, wanted=wanted: _refresh(value, wanted))  # type: ignore[misc]
        for record in self._registry.store.records("nodes"):
            annotations = record.value["metadata"].get("annotations") or {}
            if "gpudev.local/simulated" in annotations and record.key[2] not in self._nodes:
                self._registry.store.remove(*record.key)

    def adopt(self) -> None:
        """Takes up the pods that the store knows, and clears away what belongs to none of them."""
        known = {uid_of(pod): pod for pod in self._registry.store.values("pods")}
        for entry in self._directory.iterdir():
            if entry.name not in known:
                self._clear_later(entry)
        for pod in known.values():
            self._attend(pod)

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.resource != "pods":
            return
        pod = change.record.value
        if change.type == "DELETED":
            worker = self._workers.pop(uid_of(pod), None)
            if worker is not None:
                worker.removed()
            directory = self.directory_of(pod)
            if directory.exists():
                self._clear_later(directory, worker)
        else:
            self._attend(pod)

    async def heartbeat(self) -> None:
        """Keeps the nodes' conditions fresh; runs until cancelled."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            moment = timestamp(now())
            for name in self._nodes.keys() - self._dead:
                self._registry.modify(_node(name), lambda value: _beat(value, moment))  # noqa: B023  called at once

    async def stop(self) -> None:
        """Ends every container process; their exits are on disk for the next start."""
        for worker in self._workers.values():
            worker.task.cancel()
        await asyncio.gather(*(worker.task for worker in self._workers.values()), return_exceptions=True)
        running = [i for directory in self._directory.iterdir() for i in _running(directory)]
        await _end(running, _SHUTDOWN_GRACE_SECONDS)

    def kill_node(self, name: str) -> None:
        """The machine is gone: its processes with it, and the pods' objects stay as they are, but unready."""
        self._dead.add(name)
        for pod in list(self._pods_on(name)):
            worker = self._workers.pop(uid_of(pod), None)
            if worker is not None:
                worker.task.cancel()
            for instance in _running(self.directory_of(pod)):
                instance.signal(signal.SIGKILL)
            self._registry.modify(_pod(pod), _unready)
        self._registry.modify(_node(name), _lost)

    def start_node(self, name: str) -> None:
        """The machine is back; what restarts there is for the pods to say."""
        self._dead.discard(name)
        wanted = _simulated_node(name, self._nodes[name])
        self._registry.modify(_node(name), lambda value: _refresh(value, wanted))
        for pod in list(self._pods_on(name)):
            self._attend(pod)

    def kill_for_memory(self, pod: Object) -> bool:
        """Ends the pod's running containers as the kernel does when memory runs out; whether any ran."""
        running = _running(self.directory_of(pod))
        for instance in running:
            instance.kill_for_memory()
        return bool(running)

    def evict(self, pod: Object) -> bool:
        """Ends the pod as a node does that is short of memory; whether it lived."""
        worker = self._workers.get(uid_of(pod))
        if worker is None or pod["status"]["phase"] in _ENDED:
            return False
        worker.evict("The node was low on resource: memory. ")
        return True

    def _pods_on(self, node: str) -> Iterator[Object]:
        return (pod for pod in self._registry.store.values("pods") if pod["spec"].get("nodeName") == node)

    def _attend(self, pod: Object) -> None:
        worker = self._workers.get(uid_of(pod))
        if worker is not None:
            worker.update(pod)
            return
        node = pod["spec"].get("nodeName")
        if node not in self._nodes or node in self._dead:
            return
        if pod["status"]["phase"] not in _ENDED and "startTime" not in pod["status"] and not self._admit(pod):
            return
        pod_ip = pod["status"].get("podIP") or self._free_ip()
        self._workers[uid_of(pod)] = PodWorker(pod, self.directory_of(pod), pod_ip, self._around)

    def _admit(self, pod: Object) -> bool:
        """What the kubelet checks again after the scheduler: a pod may have named its node itself."""
        name = pod["spec"]["nodeName"]
        record = self._registry.store.get("nodes", "", name)
        if record is None:
            return False  # the pod garbage collector takes it
        neighbours = [
            other
            for other in self._registry.store.values("pods")
            if other["spec"].get("nodeName") == name and "startTime" in other["status"] and occupies(other)
        ]
        requested, used, available = pod_requests(pod["spec"]), used_by(neighbours), allocatable(record.value)
        lacking = insufficient(requested, used, available)
        if lacking:
            first = lacking[0]
            message = (
                f"Pod was rejected: Node didn't have enough resource: {first}, requested: {requested[first]}, "
                f"used: {used.get(first, 0)}, capacity: {available.get(first, 0)}"
            )
            self._reject(pod, f"OutOf{first}", message)
        elif not matches_node_selector(pod["spec"], record.value):
            self._reject(pod, "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match")
        else:
            return True
        return False

    def _reject(self, pod: Object, reason: str, message: str) -> None:
        def fail(value: Object) -> None:
            started = {"startTime": timestamp(now())}
            value["status"] |= {"phase": "Failed", "reason": reason, "message": message, **started}

        self._registry.modify(_pod(pod), fail)
        host = pod["spec"]["nodeName"]
        self._events.record(pod, "Warning", reason, message, component="kubelet", host=host)

    def _free_ip(self) -> str:
        """An own loopback address per pod, so that pods can listen on the same port. macOS has one only.

        By chance out of eight million: the pods of another simulator on this machine have theirs there too.
        """
        if not sys.platform.startswith("linux"):
            return fleet.NODE_ADDRESS
        used = {worker.pod_ip for worker in self._workers.values()}
        used |= {pod["status"].get("podIP", "") for pod in self._registry.store.values("pods")}
        while (address := str(_POD_NETWORK[random.randrange(1, _POD_NETWORK.num_addresses - 1)])) in used:  # noqa: S311
            pass
        return address

    def _clear_later(self, directory: Path, worker: PodWorker | None = None) -> None:
        task = asyncio.create_task(self._clear(directory, worker))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    @staticmethod
    async def _clear(directory: Path, worker: PodWorker | None) -> None:
        if worker is not None:
            await asyncio.gather(worker.task, return_exceptions=True)
        await _end(_running(directory), 0)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _running(pod_directory: Path) -> list[Instance]:
    containers = pod_directory / "containers"
    if not containers.is_dir():
        return []
    found = [instance for entry in containers.iterdir() for instance in instances(entry)]
    return [instance for instance in found if (instance.directory / "started").exists() and instance.exit is None]


async def _end(running: list[Instance], grace_seconds: float) -> None:
    waiting = [asyncio.create_task(instance.wait()) for instance in running]
    if not waiting:
        return
    if grace_seconds:
        for instance in running:
            instance.signal(signal.SIGTERM)
        await asyncio.wait(waiting, timeout=grace_seconds)
    for instance in running:
        instance.signal(signal.SIGKILL)
    _, left = await asyncio.wait(waiting, timeout=1)
    if left:
        logger.error("%d containers did not end (pid %d)", len(left), os.getpid())


def _node(name: str) -> Target:
    return Target(RESOURCES["nodes"], "", name)


def _simulated_node(name: str, instance_type: str) -> Object:
    made = fleet.node(name, instance_type)
    made["metadata"]["annotations"] = {"gpudev.local/simulated": "true"}
    return made


def _pod(pod: Object) -> Target:
    return Target(RESOURCES["pods"], pod["metadata"]["namespace"], pod["metadata"]["name"])


def _lost(node: Object) -> None:
    for condition in node["status"]["conditions"]:
        condition |= {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": timestamp(now()),
        }


def _unready(pod: Object) -> None:
    """What the node lifecycle controller does to the pods of a lost node."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            condition |= {"status": "False", "lastTransitionTime": timestamp(now())}


def _refresh(value: Object, wanted: Object) -> None:
    value["metadata"].setdefault("labels", {}).update(wanted["metadata"]["labels"])
    value["metadata"].setdefault("annotations", {}).update(wanted["metadata"]["annotations"])
    value["status"] = wanted["status"]
    taints = [t for t in value["spec"].get("taints") or [] if not t["key"].endswith(("/not-ready", "/unreachable"))]
    value["spec"]["taints"] = taints
    if not taints:
        del value["spec"]["taints"]


def _beat(value: Object, moment: str) -> None:
    for condition in value["status"].get("conditions", []):
        condition["lastHeartbeatTime"] = moment
