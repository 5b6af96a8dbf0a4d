"""Wires store, API server, scheduler, controllers and kubelets, and runs them as one."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.local.cluster import pki
from deploy.local.cluster.apiserver.admin import Admin
from deploy.local.cluster.apiserver.api import Api
from deploy.local.cluster.apiserver.faults import Faults
from deploy.local.cluster.apiserver.http import HttpServer
from deploy.local.cluster.apiserver.pods import PodSubresources
from deploy.local.cluster.controllers.events import expire_events
from deploy.local.cluster.controllers.garbage_collector import GarbageCollector
from deploy.local.cluster.controllers.namespaces import NamespaceController
from deploy.local.cluster.controllers.nodes import NodeLifecycleController
from deploy.local.cluster.controllers.volumes import VolumeBinder
from deploy.local.cluster.events import EventRecorder
from deploy.local.cluster.kubelet.kubelet import Kubelet
from deploy.local.cluster.kubelet.launcher import Launcher
from deploy.local.cluster.kubelet.node_ports import NodePortProxy
from deploy.local.cluster.registry.registry import Registry
from deploy.local.cluster.registry.store import Store
from deploy.local.cluster.scheduler.scheduler import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    state: Path
    kubeconfig: Path
    port: int
    nodes: dict[str, str]
    """Instance type by node name."""
    watch_window: int
    """How many past changes a watch can resume over."""
    back_off_seconds: float
    """The first back-off of a crashing container or a failing pull; it doubles up to 300 s."""
    images: dict[str, Path]
    """Images that have files on this machine, by name."""
    programs: dict[Path, str]
    """Modules of Python programs that are loaded once for all containers, by the file that stands for them."""
    probes: dict[Path, str]
    """Modules that answer in place of such programs what a probe asks them, likewise."""
    inits: dict[Path, str]
    """Modules that do in place of such programs what an init container is for, likewise."""


class StateInUse(Exception):
    """Another simulator runs on this state directory."""


class Simulator:
    """One simulated cluster."""

    def __init__(self, options: Options) -> None:
        self._options = options
        options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        options.state.chmod(0o700)
        self._lock = _lock(options.state / "lock")
        self._identity = pki.ensure_identity(options.state / "pki")
        self._store = Store(options.state / "store.db", window=options.watch_window)
        self._registry = Registry(self._store)

    async def run(self, stop: asyncio.Event, ready: asyncio.Event) -> None:
        """Serves until `stop` is set; raises when a part fails."""
        registry, store = self._registry, self._store
        store.failure = asyncio.get_running_loop().create_future()
        events = EventRecorder(registry)
        namespaces, nodes = NamespaceController(registry), NodeLifecycleController(registry)
        launcher = Launcher(self._options.programs)
        launcher.start()  # it loads while the rest starts
        collector, scheduler = GarbageCollector(registry), Scheduler(registry, events)
        binder, proxy = VolumeBinder(registry), NodePortProxy(store)
        kubelet = Kubelet(
            registry,
            events,
            self._options.state / "pods",
            self._options.nodes,
            back_off_seconds=self._options.back_off_seconds,
            images=self._options.images,
            launcher=launcher,
            probes=_functions(self._options.probes, "probe"),
            inits=_functions(self._options.inits, "init"),
        )
        subresources = PodSubresources(registry, kubelet.directory_of, kubelet.resolve)
        handlers = {name: getattr(subresources, name) for name in ("log", "exec", "binding", "eviction")}
        faults = Faults()
        api = Api(registry, self._identity.read_token(), handlers, Admin(registry, kubelet, faults).handle, faults)
        server = HttpServer(api.handle, self._identity.tls())
        for part in (namespaces, nodes, collector, scheduler, binder, kubelet, proxy):
            store.subscribe(part.on_change)
        namespaces.ensure_initial()
        kubelet.register_nodes()
        await store.durable()
        kubelet.adopt()
        await server.start(self._options.port)
        pki.write_kubeconfig(self._options.kubeconfig, self._identity, self._options.port)
        ready.set()
        loops = [part.run() for part in (namespaces, nodes, collector, scheduler, binder, proxy)]
        try:
            await _until(stop, [*loops, kubelet.heartbeat(), expire_events(registry)], store.failure)
        finally:
            await server.stop()
            await kubelet.stop()
            launcher.close()
            await store.close()
            os.close(self._lock)


def _functions(modules: dict[Path, str], name: str) -> dict[bytes, Any]:
    """By the content of the files that they stand for."""
    return {file.read_bytes(): getattr(import_module(module), name) for file, module in modules.items()}


async def _until(stop: asyncio.Event, loops: list[Coroutine[Any, Any, None]], failure: asyncio.Future[None]) -> None:
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(loop) for loop in loops]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopped, failure], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a loop never ends by itself: this raises what ended it
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, stopped, return_exceptions=True)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateInUse(f"another simulator runs on {path.parent}") from None
    return descriptor
