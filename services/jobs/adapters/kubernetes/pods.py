"""Pods: make, look, watch, run a program inside, delete; and the trouble that their nodes and events show."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Gauge

from services.jobs.adapters.kubernetes.exec_channel import PROTOCOL, Broken, ExecResult, NotRun, converse
from services.jobs.adapters.kubernetes.objects import FORBIDDEN, SELECTOR, ClusterRefused, Objects
from services.jobs.domain.manifests import Manifest
from services.jobs.domain.pod import MAIN_CONTAINER, Meta, Pod
from services.jobs.domain.trouble import Node, PodEvent, newest, node_loss, node_trouble
from shared.contracts.labels import job_id_of
from shared.kubernetes import ClusterUnavailable, StatusError

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 10
"""Length of one watch: a connection that died unnoticed is noticed within it and the slack below."""
_WATCH_SLACK_SECONDS = 5.0
_WATCH_PAUSE_SECONDS = 0.5
_NO_EXEC = frozenset({400, 404, 409, 422})
OnChange = Callable[[UUID, Pod | None], None]
"""Takes a job whose pod has changed, and the pod; None: it was deleted, or nobody knows what has changed."""
_watch_contact = Gauge("gpudev_watch_contact_timestamp_seconds", "Last sign of life of the watch on pods")


class _PodEvents(msgspec.Struct, frozen=True):
    items: list[PodEvent] = []


class Pods(Objects):
    """The jobs' pods."""

    async def find_pod(self, name: str) -> Pod | None:
        """The pod as it is now, by a live look; None when there is none."""
        return await self._find("pods", name, Pod)

    async def ensure_pod(self, manifest: Manifest) -> Pod:
        """Make the pod, or adopt the one that an earlier try made.

        Raises:
            ClusterRefused: It can never be made like this.
            ClusterForbids: It may not be made now.
            NameTaken: There is one of its name that is not of this job and lease, or is going away.
            ClusterUnavailable: No answer; it may have been made.
        """
        return await self._ensure("pods", manifest, Pod)

    async def delete_pod(self, name: str, uid: str) -> None:
        """Ask for the deletion of exactly this pod, with its own grace period. Idempotent; it may live on for long."""
        await self.delete_object("pods", name, uid)

    async def find_node_trouble(self, name: str) -> str | None:
        """Why a node's pods were deleted, for a person, by a live look; None: it is well, or we may not look.

        Raises:
            ClusterUnavailable: There was no answer.
        """
        return await self._judge_node(name, node_trouble)

    async def find_node_loss(self, name: str) -> str | None:
        """Why nothing on a node can be reached; otherwise as `find_node_trouble`."""
        return await self._judge_node(name, node_loss)

    async def _judge_node(self, name: str, judge: Callable[[str, Node | None], str | None]) -> str | None:
        try:
            return judge(name, await self._find("nodes", name, Node))
        except StatusError as error:
            if error.status.code == FORBIDDEN:
                return None
            raise

    async def find_newest_event(self, pod_uid: str) -> PodEvent | None:
        """What the cluster said last of a pod; None: nothing, or we may not look.

        Raises:
            ClusterUnavailable: There was no answer.
        """
        query = {"fieldSelector": f"involvedObject.uid={pod_uid}"}
        try:
            events = await self._call("GET", "events", query=query, model=_PodEvents)
        except StatusError as error:
            if error.status.code == FORBIDDEN:
                return None
            raise
        return newest(events.items)

    async def exec_in_pod(self, name: str, argv: list[str], *, stdin: bytes | None, seconds: float) -> ExecResult:
        """Run a program in the pod's main container. As idempotent as the program; it may go on after an error here.

        Args:
            name: Of the pod; names are never used twice, so it is the pod that was meant or none.
            argv: Program and arguments; nothing that a user gave.
            stdin: Its standard input, sent with its length on a line before it; None: none. Never logged.
            seconds: For everything.

        Raises:
            ClusterRefused: The pod is not there, or its container does not run or cannot run the program.
            ClusterUnavailable: No answer; it may have run.
        """
        query = [("container", MAIN_CONTAINER), ("stdout", "true"), ("stderr", "true")]
        query += [("stdin", "true")] if stdin is not None else []
        query += [("command", argument) for argument in argv]
        path = self._path("pods", name, "exec")
        try:
            async with self._api.websocket(path, query, protocol=PROTOCOL, seconds=seconds) as socket:
                return await converse(socket, stdin)
        except NotRun as error:
            raise ClusterRefused(f"The program could not be run: {error}") from error
        except Broken as error:
            raise ClusterUnavailable(method="EXEC", cause=type(error).__name__) from error
        except StatusError as error:
            if error.status.code in _NO_EXEC:
                raise ClusterRefused("The pod is not there or does not run") from error
            raise

    async def watch_pods(self, on_change: OnChange) -> None:
        """Call `on_change` with the job of each pod that changed, until cancelled; also with all after a gap."""
        version: str | None = None
        while True:
            try:
                if version is None:
                    pods, version = await self.list_objects("pods")
                    for pod in pods:
                        _report(pod, None, on_change)
                version = await self._watch_once(version, on_change)
            except ClusterUnavailable as error:
                code = error.status.code if isinstance(error, StatusError) else None
                log.warning("watch_interrupted", error=type(error).__name__, code=code)
                version = None
                await asyncio.sleep(_WATCH_PAUSE_SECONDS)

    async def _watch_once(self, version: str, on_change: OnChange) -> str:
        watching = self._api.watch(
            self._path("pods"),
            Pod,
            resource_version=version,
            seconds=_WATCH_SECONDS,
            slack_seconds=_WATCH_SLACK_SECONDS,
            query={"labelSelector": SELECTOR},
        )
        async with aclosing(watching) as events:
            async for event in events:
                _watch_contact.set_to_current_time()
                version = event.object.metadata.resource_version
                if event.type != "BOOKMARK":
                    _report(event.object.metadata, event.object if event.type != "DELETED" else None, on_change)
        _watch_contact.set_to_current_time()
        return version


def _report(meta: Meta, pod: Pod | None, on_change: OnChange) -> None:
    job_id = job_id_of(meta.labels)
    if job_id is not None:
        on_change(job_id, pod)
