"""Keeps one container of a pod as its spec asks: creates it, follows it, restarts it, stops it."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.local.cluster.kubelet import images, volumes
from deploy.local.cluster.kubelet.environment import ConfigError
from deploy.local.cluster.kubelet.images import Init
from deploy.local.cluster.kubelet.instances import Config, Exit, Instance, instances
from deploy.local.cluster.kubelet.probes import Probe, Prober
from deploy.local.cluster.kubelet.status import ContainerView
from deploy.local.cluster.machinery.objects import Object, now, parse_timestamp, timestamp

_RESET_AFTER = timedelta(minutes=10)  # a container that ran this long starts with the shortest back-off again
_LONGEST_BACK_OFF_SECONDS = 300.0
_CONFIG_RETRY_SECONDS = 1.0
_PROGRAM_BYTES = 65536  # more than any file has that only stands for a program
_PULL_VERDICT_SECONDS = 1.0  # between ErrImagePull and ImagePullBackOff


@dataclass(frozen=True, slots=True)
class PodContext:
    """What a container needs of its pod."""

    configure: Callable[[Object], Config]
    """Resolves environment and command; raises ConfigError."""
    resolve: Callable[[Sequence[str], Object], list[str]]
    """The program that an argv of a container means."""
    spawn: Callable[[Path], Awaitable[int]]
    """Starts a shim for an instance's directory; its pid."""
    probes: Mapping[bytes, Probe]
    """Of programs that are not executed for a probe, by the content of their file."""
    inits: Mapping[bytes, Init]
    """Of programs that are not executed as this container's first process, likewise."""
    root: Path
    """Where the container's mounts lie."""
    publish: Callable[[], None]
    """Writes the pod's status."""
    event: Callable[[str, str, str, str], None]
    """Records an event: type, reason, message, container."""
    pod_ip: str
    grace_seconds: int
    back_off_seconds: float


class ContainerWorker:
    """One container over all its instances."""

    def __init__(self, spec: Object, directory: Path, restart_policy: str, context: PodContext) -> None:
        self.spec, self._directory, self._context = spec, directory, context
        self._restart_policy = restart_policy
        self.view = ContainerView(spec["name"], spec["image"])
        self._stop = asyncio.Event()
        self._instance: Instance | None = None
        self._probes: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until the container has ended for good or was stopped; the view then says how."""
        known = instances(self._directory)
        self._show_last(known)
        instance = known[-1] if known else None
        if instance is not None and instance.config() is None:
            shutil.rmtree(instance.directory)  # a crash came between the directory and its claim: nothing ever ran
            instance = None
        while True:
            if instance is None:
                instance = await self._create()
            if instance is None:
                return
            ended = await self._follow(instance)
            if self._stop.is_set() or not self._restarts(ended):
                return
            await self._back_off(instance, ended)
            if self._stop.is_set():
                return
            instance = None

    def stop(self, number: signal.Signals) -> None:
        """Signals the running instance, if any, and lets no further one start."""
        self._stop.set()
        self._cancel_probes()
        if self._instance is not None:
            if number is signal.SIGTERM:
                self._context.event("Normal", "Killing", f"Stopping container {self.view.name}", self.view.name)
            self._instance.signal(number)

    def _restarts(self, ended: Exit) -> bool:
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and ended.code != 0)

    async def _create(self) -> Instance | None:
        """A claimed instance, once image and configuration are there; None when stopped before."""
        while not self._stop.is_set():
            if not await self._pull():
                continue
            try:
                config = self._context.configure(self.spec)
            except ConfigError as error:
                self._wait_for("CreateContainerConfigError", str(error))
                self._context.event("Warning", "Failed", f"Error: {error}", self.view.name)
                await self._pause(_CONFIG_RETRY_SECONDS)
                continue
            attempt = len(instances(self._directory))
            instance = Instance(self._directory / str(attempt), attempt)
            done = await _to_its_end(self._begin, instance, config)
            self._context.event("Normal", "Created", f"Created container {self.view.name}", self.view.name)
            if done:
                self._context.event("Normal", "Started", f"Started container {self.view.name}", self.view.name)
            return instance
        return None

    def _begin(self, instance: Instance, config: Config) -> bool:
        """Claims the instance; whether it has run by then, since its program does here what it would do there.

        That is two processes fewer for a program that ends after a moment. One that cannot do it is executed, and tells
        why; one that was cut off is executed too, by whoever finds the claim.
        """
        instance.claim(config)
        try:
            began, program = now(), self._program(config.argv[0])
            done = program is not None and program(config.argv[1:], config.environment)
        except OSError:
            return False
        if done:
            instance.record_success(began)
        return done

    def _program(self, path: str) -> Init | None:
        if not self._context.inits:
            return None
        with Path(path).open("rb") as file:
            return self._context.inits.get(file.read(_PROGRAM_BYTES))

    async def _pull(self) -> bool:
        image, name, event = self.view.image, self.view.name, self._context.event
        if not images.is_valid(image):
            text = f'Failed to apply default image tag "{image}": couldn\'t parse image name: invalid reference format'
            self._wait_for("InvalidImageName", text)
            event("Warning", "InspectFailed", text, name)
            await self._stop.wait()
            return False
        if images.can_be_pulled(image):
            event("Normal", "Pulled", f'Container image "{image}" already present on machine', name)
            return True
        delay = self._context.back_off_seconds
        while not self._stop.is_set():
            event("Normal", "Pulling", f'Pulling image "{image}"', name)
            event("Warning", "Failed", f'Failed to pull image "{image}": {images.pull_error(image)}', name)
            self._wait_for("ErrImagePull", images.pull_error(image))
            await self._pause(_PULL_VERDICT_SECONDS)
            self._wait_for("ImagePullBackOff", f'Back-off pulling image "{image}"')
            event("Normal", "BackOff", f'Back-off pulling image "{image}"', name)
            await self._pause(delay)
            delay = min(delay * 2, _LONGEST_BACK_OFF_SECONDS)
        return False

    async def _follow(self, instance: Instance) -> Exit:
        """Starts the instance, or finds it as a former simulator left it, and sees it through to its end."""
        self._instance = instance
        self.view.container_id, self.view.restart_count = instance.id, instance.attempt
        began = await instance.start(self._context.spawn)
        if began is not None and instance.exit is None:
            self._running(instance, began)
            if self._stop.is_set():
                instance.signal(signal.SIGTERM)
        ended = await instance.wait()
        self._cancel_probes()
        self._instance = None
        self.view.ready = self.view.started = False
        self.view.state = {"terminated": self._terminated(instance, began, ended)}
        if ended.problem:
            self._context.event("Warning", "Failed", f"Error: {_start_message(ended)}", self.view.name)
        self._context.publish()
        return ended

    def _running(self, instance: Instance, began: datetime) -> None:
        readiness, startup = self.spec.get("readinessProbe"), self.spec.get("startupProbe")
        self.view.state = {"running": {"startedAt": timestamp(began)}}
        self.view.started = startup is None
        self.view.ready = readiness is None and startup is None
        self._context.event("Normal", "Started", f"Started container {self.view.name}", self.view.name)
        if startup is not None:
            self._probe(startup, instance, self._on_startup)
        else:
            self._probe_running(instance)
        self._context.publish()

    def _probe_running(self, instance: Instance) -> None:
        if "readinessProbe" in self.spec:
            self._probe(self.spec["readinessProbe"], instance, self._on_readiness)
        if "livenessProbe" in self.spec:
            self._probe(self.spec["livenessProbe"], instance, self._on_liveness)

    def _probe(self, probe: Object, instance: Instance, report: Callable[[bool, str], None]) -> None:
        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports") or [] if "name" in port}
        if "exec" in probe:
            probe = {**probe, "exec": {"command": self._context.resolve(probe["exec"].get("command") or [], self.spec)}}
        prober = Prober(probe, instance, self._context.pod_ip, ports, report, self._context.probes)
        self._probes.append(asyncio.create_task(prober.run()))

    def _on_startup(self, success: bool, output: str) -> None:
        if not success:
            self._restart("Startup", output)
        elif self._instance is not None and not self.view.started:
            self.view.started = True
            self.view.ready = "readinessProbe" not in self.spec
            self._cancel_probes()
            self._probe_running(self._instance)
            self._context.publish()

    def _on_readiness(self, success: bool, output: str) -> None:
        if not success:
            self._context.event("Warning", "Unhealthy", f"Readiness probe failed: {output}", self.view.name)
        if self.view.ready != success and "running" in self.view.state:
            self.view.ready = success
            self._context.publish()

    def _on_liveness(self, success: bool, output: str) -> None:
        if not success:
            self._restart("Liveness", output)

    def _restart(self, probe: str, output: str) -> None:
        name, instance = self.view.name, self._instance
        self._context.event("Warning", "Unhealthy", f"{probe} probe failed: {output}", name)
        if instance is None:
            return
        self._context.event(
            "Normal", "Killing", f"Container {name} failed {probe.lower()} probe, will be restarted", name
        )
        self._cancel_probes()
        instance.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._context.grace_seconds, instance.signal, signal.SIGKILL)

    def _cancel_probes(self) -> None:
        for task in self._probes:
            task.cancel()
        self._probes = []

    async def _back_off(self, instance: Instance, ended: Exit) -> None:
        terminated = self.view.state["terminated"]
        ran = ended.finished_at - parse_timestamp(terminated["startedAt"])
        failures = 0 if ran > _RESET_AFTER else instance.attempt
        seconds = back_off_of(self._context.back_off_seconds, failures)
        # a restarted simulator goes on with the rest of the wait
        seconds -= (now() - ended.finished_at).total_seconds()
        if failures and seconds > 0:
            self.view.last_state = {"terminated": terminated}
            text = f"back-off {seconds:.0f}s restarting failed container={self.view.name}"
            self._wait_for("CrashLoopBackOff", text)
            self._context.event("Warning", "BackOff", "Back-off restarting failed container", self.view.name)
            await self._pause(seconds)
        self.view.last_state = {"terminated": terminated}

    def _terminated(self, instance: Instance, began: datetime | None, ended: Exit) -> Object:
        state = _terminated(instance, began, ended)
        message = volumes.last_message(self.spec, self._context.root)
        return {**state, "message": message} if message and "message" not in state else state

    def _show_last(self, known: list[Instance]) -> None:
        if len(known) > 1 and (before := known[-2].exit) is not None:
            # without its last words: they are overwritten by now
            self.view.last_state = {"terminated": _terminated(known[-2], None, before)}

    def _wait_for(self, reason: str, message: str) -> None:
        self.view.state = {"waiting": {"reason": reason, "message": message}}
        self._context.publish()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


def back_off_of(first_seconds: float, failures: int) -> float:
    """How long a container waits that has failed so many times in a row."""
    return min(first_seconds * 2 ** min(failures - 1, 20), _LONGEST_BACK_OFF_SECONDS) if failures else 0.0


async def _to_its_end(call: Callable[[Instance, Config], bool], instance: Instance, config: Config) -> bool:
    """In a thread, since it waits for the disk; a cancellation comes through when it has ended."""
    calling = asyncio.ensure_future(asyncio.to_thread(call, instance, config))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await calling
        raise


def _terminated(instance: Instance, began: datetime | None, ended: Exit) -> Object:
    if began is None and not ended.problem:
        began = ended.finished_at
    state: Object = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": timestamp(began or datetime.fromtimestamp(0, UTC)),
        "finishedAt": timestamp(ended.finished_at),
        "containerID": f"processes://{instance.id}",
    }
    if ended.problem:
        state["message"] = _start_message(ended)
    return state


def _start_message(ended: Exit) -> str:
    return f"failed to create containerd task: failed to create shim task: runc create failed: {ended.problem}: unknown"
