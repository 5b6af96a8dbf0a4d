"""SSH through the API: the bytes of a job's SSH port, both ways, as long as the job, the key and both ends last.

A tunnel holds two connections and nothing else: no thread, no connection to the database. It takes no more from one end
than the other takes from it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Gauge

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster, ClusterUnavailable
from services.jobs.context import Context
from services.jobs.domain.job import ENDED_STATUSES, Job, Phase
from services.jobs.domain.manifests import SSH_PORT
from services.jobs.operations.lock import JobNotActive
from shared.audit import record_act
from shared.background import cancel_all
from shared.contracts.audit import AuditObject
from shared.errors import Conflict, RateLimited, Unavailable

log = structlog.get_logger(__name__)

PING = "ping"
"""A text message that says nothing: sent while it is quiet, so that nothing on the way takes the tunnel for dead."""
DONE, RESTARTING, JOB_OVER, KEY_ENDED, BROKEN = 1000, 1012, 4001, 4003, 4004
"""Codes of the end (RFC 6455 section 7.4: 1012 is registered, 4000 and more are our own)."""
_DIAL_SECONDS = 5.0
_PING_SECONDS = 20.0
_LOOK_SECONDS = 10.0
"""Between two looks at the job when no news comes."""
_UNANSWERED_SECONDS = 20.0
"""After which a job that says nothing to what the client has said may be on a node that is lost."""
_LAST_SECONDS = 1.0
"""In which a client takes the reason of the end."""
_PIECE_BYTES = 512 << 10
_BULK_BYTES = 16 << 10
"""Who sends so much at once sends more: a moment's pause makes one message of many, each of which costs the same."""
_PAUSE_SECONDS = 0.001
_RETRY_AFTER_SECONDS = 5
_open = Gauge("gpudev_ssh_sessions", "SSH sessions over the API")


class Peer(Protocol):
    """The client's end of a tunnel: messages."""

    async def accept(self) -> None:
        """Begin."""

    async def receive(self) -> bytes | str | None:
        """The next message; None: the client has gone."""

    async def send(self, data: bytes | str) -> None:
        """Send one; returns when there is room for the next."""

    async def close(self, code: int, reason: str) -> None:
        """End it, and say why."""

    async def must_end(self) -> None:
        """Wait until the replica has no more time for it."""


class End(msgspec.Struct, frozen=True):
    """Why a tunnel ends."""

    code: int
    reason: str


class JobIsOver(Conflict):
    def __init__(self, job: Job) -> None:
        super().__init__(_over(job).reason)


class TooManySessions(RateLimited):
    def __init__(self, text: str) -> None:
        super().__init__(text, retry_after_seconds=_RETRY_AFTER_SECONDS)


class Tunnels:
    """Opens tunnels, and counts them.

    Args:
        context: The service's.
        cluster: Where pods are.
    """

    def __init__(self, context: Context, cluster: Cluster) -> None:
        self._context = context
        self._cluster = cluster
        self._sessions: Counter[int] = Counter()
        """By user."""

    async def open(self, user_id: int, job: Job) -> "Tunnel":
        """A tunnel to a job, for a user; whoever gets it runs it.

        Raises:
            JobIsOver: There is nothing to connect to any more.
            JobNotActive: Or not yet.
            TooManySessions: The user, or all together, have as many as there may be.
            Unavailable: Its SSH port does not answer.
        """
        if job.status in ENDED_STATUSES:
            raise JobIsOver(job)
        if job.phase is not Phase.ACTIVE:
            raise JobNotActive(job)
        self._admit(user_id)
        try:
            port = await self._connect(job)
        except BaseException:
            self._leave(user_id)
            raise
        return Tunnel(port, job.id, self._context, self._cluster, lambda: self._leave(user_id))

    def _admit(self, user_id: int) -> None:
        settings = self._context.settings
        if self._sessions[user_id] >= settings.max_ssh_sessions:
            text = f"You already have {settings.max_ssh_sessions} SSH sessions here: end one of them first"
            raise TooManySessions(text)
        if self._sessions.total() >= settings.max_all_ssh_sessions:
            raise TooManySessions("There are too many SSH sessions at once: try again")
        self._sessions[user_id] += 1
        _open.inc()

    def _leave(self, user_id: int) -> None:
        _open.dec()
        self._sessions[user_id] -= 1
        self._sessions += Counter()  # forgets who has none

    async def _connect(self, job: Job) -> "Port":
        """The job's SSH port; that it was opened is written to the audit."""
        reader, writer = await self._dial(job)
        try:
            audited = AuditObject("job", str(job.id), job.name)
            await record_act(self._context.database, [audited], now=self._context.clock())
        except BaseException:
            writer.close()
            raise
        return Port(reader, writer)

    async def _dial(self, job: Job) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = await self._address(job)
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                return await asyncio.open_connection(host, port, limit=_PIECE_BYTES // 2)
        except OSError as error:  # TimeoutError is one
            raise Unavailable(
                "The job's SSH port does not answer: try again", host=host, port=port, cause=type(error).__name__
            ) from error

    async def _address(self, job: Job) -> tuple[str, int]:
        settings = self._context.settings
        if settings.dial_pods:
            pod = await self._cluster.find_pod(job.pod_name) if job.pod_name is not None else None
            if pod is None or pod.status.pod_ip is None:
                raise Conflict("The job's pod is gone")
            return pod.status.pod_ip, SSH_PORT
        if job.node_ip is None or job.node_port is None:
            raise Unavailable("The job's SSH port is not known yet: try again")
        return settings.node_host.format(ip=job.node_ip, node=job.node), job.node_port


class Port:
    """The job's end of a tunnel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._is_bulk = False

    async def read(self) -> bytes:
        """What has come; empty: no more will."""
        if self._is_bulk:
            await asyncio.sleep(_PAUSE_SECONDS)
        data = await self._reader.read(_PIECE_BYTES)
        self._is_bulk = len(data) >= _BULK_BYTES
        return data

    async def write(self, data: bytes) -> None:
        """Send it; empty: no more will come."""
        if data:
            self._writer.write(data)
            await self._writer.drain()
        elif self._writer.can_write_eof():
            self._writer.write_eof()

    def close(self) -> None:
        """End it; what was written is still sent."""
        self._writer.close()

    def abort(self) -> None:
        """End it at once, unless it was closed: what was written before that is still sent."""
        if not self._writer.is_closing():
            self._writer.transport.abort()


class Tunnel:
    """One session.

    Args:
        port: Of the job.
        job_id: Whose end is the tunnel's.
        context: The service's.
        cluster: Where its node is.
        left: Called once, at the end.
    """

    def __init__(
        self,
        port: Port,
        job_id: UUID,
        context: Context,
        cluster: Cluster,
        left: Callable[[], None],
    ) -> None:
        self._port = port
        self._job_id = job_id
        self._context = context
        self._cluster = cluster
        self._left = left
        self._quiet_since = 0.0
        self._unanswered_since: float | None = None
        """When the client said what nothing has followed."""
        self._client_was_first: bool | None = None
        """To end its direction; None: neither has, or the connection to the job broke."""

    async def run(self, peer: Peer, key_ended: Callable[[], Awaitable[str]]) -> None:
        """Pass bytes on until either end, the job or the key has ended, and tell the client why.

        An empty message says that no more comes from that side, as the end of a stream does.

        Args:
            peer: The client.
            key_ended: Waits until its key is no longer good; why.
        """
        tasks: list[asyncio.Task[Any]] = []
        try:
            await peer.accept()
            ends: list[asyncio.Task[End]] = [
                asyncio.create_task(self._pump_both(peer)),
                asyncio.create_task(self._until_job_over()),
                asyncio.create_task(self._until_key_ended(key_ended)),
                asyncio.create_task(self._until_it_must_end(peer)),
            ]
            tasks = [*ends, asyncio.create_task(self._ping(peer))]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            end = await self._why(next(task for task in ends if task.done()).result())
            await cancel_all(tasks)
            with suppress(TimeoutError):  # a client that takes nothing is not waited for
                async with asyncio.timeout(_LAST_SECONDS):
                    await peer.close(end.code, end.reason)
        finally:
            await cancel_all(tasks)
            self._port.abort()
            self._left()

    async def _why(self, end: End) -> End:
        """A job that ends closes its port a moment before it is over, and a node that is lost before that is known."""
        if end.code not in {DONE, BROKEN}:
            return end
        job = await self._look()
        if job is not None and job.phase is not Phase.ACTIVE:
            return _over(job)
        return (None if self._client_was_first else await self._lost(job)) or end

    async def _lost(self, job: Job | None) -> End | None:
        """Of a job whose node cannot be reached; None: it can, or that cannot be known now."""
        if job is None or job.node is None:
            return None
        try:
            loss = await self._cluster.find_node_loss(job.node)
        except ClusterUnavailable:
            return None
        return End(BROKEN, loss) if loss else None

    async def _pump_both(self, peer: Peer) -> End:
        up, down = asyncio.create_task(self._pump_up(peer)), asyncio.create_task(self._pump_down(peer))
        try:
            done, _ = await asyncio.wait([up, down], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        except OSError:
            return End(BROKEN, "The connection to the job broke")
        else:
            self._port.close()
            return End(DONE, "")
        finally:
            await cancel_all([up, down])

    async def _pump_up(self, peer: Peer) -> None:
        """From the client to the job."""
        while True:
            message = await peer.receive()
            if message is None:
                self._client_was_first = True
                raise ConnectionAbortedError("the client has gone")
            if isinstance(message, bytes):
                self._unanswered_since = self._unanswered_since or asyncio.get_running_loop().time()
                await self._port.write(message)
                if not message:
                    self._client_was_first = self._client_was_first is None
                    return

    async def _pump_down(self, peer: Peer) -> None:
        """From the job to the client."""
        data = b"-"
        while data:
            data = await self._port.read()
            self._quiet_since, self._unanswered_since = asyncio.get_running_loop().time(), None
            if not data and self._client_was_first is None:
                self._client_was_first = False
            await peer.send(data)

    async def _ping(self, peer: Peer) -> None:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            if asyncio.get_running_loop().time() - self._quiet_since >= _PING_SECONDS:
                await peer.send(PING)

    async def _until_job_over(self) -> End:
        async with self._context.wake_ups.of(self._job_id) as woken:
            while True:
                woken.clear()
                job = await self._look()
                if job is not None and job.phase is not Phase.ACTIVE and job.phase is not Phase.ENDING:
                    return _over(job)
                if self._is_unanswered() and (lost := await self._lost(job)):
                    return lost
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await woken.wait()

    def _is_unanswered(self) -> bool:
        since = self._unanswered_since
        return since is not None and asyncio.get_running_loop().time() - since >= _UNANSWERED_SECONDS

    async def _look(self) -> Job | None:
        """None: it cannot be known now, which ends no session."""
        try:
            row = await self._context.database.fetch_one(storage.jobs.FIND, job_id=self._job_id)
        except Unavailable as error:
            log.info("job_not_looked_at", job_id=str(self._job_id), error=type(error).__name__)
            return None
        return storage.jobs.to_shown_job(row) if row is not None else None

    async def _until_key_ended(self, key_ended: Callable[[], Awaitable[str]]) -> End:
        return End(KEY_ENDED, f"Your API key: {await key_ended()}")

    async def _until_it_must_end(self, peer: Peer) -> End:
        await peer.must_end()
        return End(RESTARTING, "This replica stops: connect again")


def _over(job: Job) -> End:
    state = "ending" if job.phase is Phase.ENDING else job.status.value
    reason = job.failure_reason or job.reason
    return End(JOB_OVER, f"The job is {state}" + (f": {reason}" if reason else ""))
