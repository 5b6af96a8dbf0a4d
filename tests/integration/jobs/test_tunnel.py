"""SSH sessions and their job, which is a port that the test listens on; the client is played, too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster
from services.jobs.domain.job import Job
from services.jobs.operations import tunnel as tunnel_module
from services.jobs.operations.tunnel import BROKEN, DONE, JOB_OVER, Tunnels
from shared.audit import Act, audit_endpoint, begin_act
from shared.contracts.audit import AuditQuery
from shared.contracts.capacity import LeaseRevoked
from shared.errors import Conflict, Unavailable
from tests.support.harness import eventually, running
from tests.support.jobs import Client, JobsWorld, first_gpu_node, until_status


@pytest.fixture
def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


class Person:
    """A client's end of a session: it takes what comes, and ends its direction after the job has.

    Args:
        says: What it says, once it is greeted.
    """

    def __init__(self, says: bytes = b"") -> None:
        self.heard = b""
        self.end: tuple[int, str] | None = None
        self._answer = says
        self._says: asyncio.Queue[bytes] = asyncio.Queue()

    async def accept(self) -> None:
        """Begin."""

    async def receive(self) -> bytes:
        """What it says next."""
        return await self._says.get()

    async def send(self, data: bytes | str) -> None:
        """It comes."""
        self.heard += data if isinstance(data, bytes) else b""
        if data == b"":
            self._says.put_nowait(b"")
        elif self._answer:
            self._says.put_nowait(self._answer)

    async def close(self, code: int, reason: str) -> None:
        """The end."""
        self.end = code, reason

    async def must_end(self) -> None:
        """The replica stays."""
        await asyncio.Event().wait()


async def never() -> str:
    """The key stays good."""
    await asyncio.Event().wait()
    return ""


@asynccontextmanager
async def port(*, closes: bool = False) -> AsyncIterator[int]:
    """Of a job: it greets, and then is silent, as one whose node has died, from where no end comes either, unless it
    `closes`."""
    writers: list[asyncio.StreamWriter] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"SSH-2.0-job\r\n")
        await writer.drain()
        if closes:
            writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def found(world: JobsWorld, job_id: UUID) -> Job:
    return storage.jobs.to_job(await world.row(job_id))


async def test_a_session_on_a_node_that_dies_ends_with_the_reason_and_none_begins(
    world: JobsWorld, client: Client
) -> None:
    async with port() as number:
        job_id = await world.submit_active(client)
        where = f"node = 'gpu-1', epoch = 1, node_ip = '127.0.0.1', node_port = {number}, pod_name = 'a-pod'"
        await world.update(job_id, where)
        context = world.context()
        tunnels, person = Tunnels(context, world.cluster), Person()
        tunnel = await tunnels.open(1, await found(world, job_id))
        session = asyncio.create_task(tunnel.run(person, never))
        await eventually(lambda: person.heard, "the job's greeting")
        await world.capacity_says(LeaseRevoked(job_id=job_id, epoch=1, reason="Node gpu-1 is gone"))
        await until_status(client, job_id, "failed")
        await asyncio.wait_for(session, 60)
        assert person.end == (JOB_OVER, "The job is failed: The node was lost: Node gpu-1 is gone")
        with pytest.raises(Conflict, match="The job is failed: The node was lost: Node gpu-1 is gone"):
            await tunnels.open(1, await found(world, job_id))


@pytest.fixture
async def cluster(jobs_kubeconfig: Path) -> AsyncIterator[Cluster]:
    """One that answers."""
    cluster = Cluster(kubeconfig=str(jobs_kubeconfig), namespace="none")
    yield cluster
    await cluster.close()


async def test_a_session_that_is_not_answered_ends_once_its_node_is_known_to_be_lost(
    world: JobsWorld, client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the job has ended by it, and though no end of the connection comes."""
    monkeypatch.setattr(tunnel_module, "_UNANSWERED_SECONDS", 0.1)
    monkeypatch.setattr(tunnel_module, "_LOOK_SECONDS", 0.1)
    async with port() as number:
        job_id = await world.submit_active(client)
        await world.update(job_id, f"node = 'gone', epoch = 1, node_ip = '127.0.0.1', node_port = {number}")
        tunnels, person = Tunnels(world.context(), cluster), Person(says=b"are you there?")
        tunnel = await tunnels.open(1, await found(world, job_id))
        await asyncio.wait_for(tunnel.run(person, never), 60)
    assert person.end == (BROKEN, "The node was lost: Node gone is gone")


@pytest.mark.parametrize("lost", [True, False])
async def test_a_session_that_the_job_ends_is_told_whether_its_node_was_lost(
    world: JobsWorld, client: Client, cluster: Cluster, jobs_kubeconfig: Path, *, lost: bool
) -> None:
    node = "gone" if lost else first_gpu_node(str(jobs_kubeconfig))
    async with port(closes=True) as number:
        job_id = await world.submit_active(client)
        await world.update(job_id, f"node = '{node}', epoch = 1, node_ip = '127.0.0.1', node_port = {number}")
        tunnels, person = Tunnels(world.context(), cluster), Person()
        tunnel = await tunnels.open(1, await found(world, job_id))
        await asyncio.wait_for(tunnel.run(person, never), 60)
    assert person.end == ((BROKEN, "The node was lost: Node gone is gone") if lost else (DONE, ""))


async def test_a_job_that_waits_has_no_session_yet(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    with pytest.raises(Conflict, match="The job is not active: it is queued"):
        await Tunnels(world.context(), world.cluster).open(1, await found(world, job_id))


async def test_a_session_that_is_opened_leaves_an_entry_in_the_audit(world: JobsWorld, client: Client) -> None:
    async with port() as number:
        job_id = await world.submit_active(client)
        place = "node = 'gpu-1', epoch = 1, node_ip = '127.0.0.1', pod_name = 'a-pod', node_port"
        begin_act(Act(action="open_ssh", username="opens"))
        tunnels = Tunnels(world.context(), world.cluster)
        await world.update(job_id, f"{place} = 1")  # where nobody listens
        with pytest.raises(Unavailable):
            await tunnels.open(1, await found(world, job_id))
        await world.update(job_id, f"{place} = {number}")
        tunnel, person = await tunnels.open(1, await found(world, job_id)), Person()
        async with running(lambda: tunnel.run(person, never)):
            await eventually(lambda: person.heard, "the job's greeting")
    entries = (await audit_endpoint(world.database)(AuditQuery(limit=9, username="opens"))).entries
    assert [(one.action, one.object_kind, one.object_id) for one in entries] == [("open_ssh", "job", str(job_id))]
