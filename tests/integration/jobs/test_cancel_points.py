"""A cancel at every step of preparing a job with tools, keys and a disk (Incidents 4, 5 and 9).

The steps are not chosen by hand: a first run counts every call to Kubernetes and every write to the database.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.pod_facts import PodState, read_pod
from services.jobs.operations.cancel import cancel_job
from services.jobs.workers.reconciler import PASS_SECONDS, Reconciler
from shared.database import Database, Statement, Transaction
from shared.leased_worker import Budget
from tests.support.crash import Crash
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, github_of, later, new_disk_claimed
from tests.support.tools_pods import key_pages

pytestmark = pytest.mark.slow

AT_ONCE = 4
LEAST_STEPS = 18
"""A Secret, two objects of the disk, Pod and Service, the keys, and the looks and writes between them."""
POD_LOOKS = 4
"""Steps by which runs may differ: how often a pod is looked at until it is ready is not ours."""


class Steps:
    """What a worker has done so far; at one of its steps something happens."""

    def __init__(self, at: int | None = None, happens: Callable[[], Awaitable[None]] | None = None) -> None:
        self.names: list[str] = []
        self._at, self._happens = at, happens

    @property
    def reached(self) -> bool:
        """Whether it has come to that step."""
        return self._at is not None and len(self.names) > self._at

    async def take(self, name: str) -> None:
        """Note a step."""
        self.names.append(name)
        if self._happens is not None and len(self.names) - 1 == self._at:
            await self._happens()


class SteppingCluster(Cluster):
    """Each call is a step, taken when it has had its effect."""

    def __init__(self, world: JobsWorld, steps: Steps) -> None:
        super().__init__(kubeconfig=world.settings.kubeconfig, namespace=world.settings.namespace)
        self._steps = steps

    async def _call(self, method: str, kind: str, name: str | None = None, **how: Any) -> Any:
        try:
            return await super()._call(method, kind, name, **how)
        finally:
            await self._steps.take(f"{method} {kind}")


class SteppingDatabase(Database):
    """Each write is a step, and so is the moment before each commit."""

    def __init__(self, world: JobsWorld, steps: Steps) -> None:
        super().__init__(world.settings.database_url, pool_size=2)
        self._steps = steps

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        done = await super().execute(statement, **parameters)
        await self._steps.take("written")
        return done

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with super().transaction() as transaction:
            yield transaction
            await self._steps.take("not yet committed")
        await self._steps.take("committed")


@pytest.fixture
async def world(jobs_world: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with (
        key_pages(jobs_world, alice="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43),
        jobs_world.disks_answering(new_disk_claimed()),
    ):
        yield jobs_world


@pytest.fixture
async def client(world: JobsWorld) -> AsyncIterator[Client]:
    """Of a replica that neither works nor sweeps: the test's workers are the only ones."""
    async with world.service(concurrency=0, sweep_seconds=3600.0) as client:
        yield client


async def granted(world: JobsWorld, client: Client) -> UUID:
    job_id = await world.submit(client, github_user="alice", disk_name="home")
    await world.grant(job_id)

    async def has_lease() -> bool:
        return (await read(world, job_id)).node is not None

    await eventually(has_lease, "it has its lease")
    return job_id


async def read(world: JobsWorld, job_id: UUID) -> Job:
    return storage.jobs.to_job(await world.row(job_id))


async def cancel(world: JobsWorld, job_id: UUID) -> None:
    await cancel_job(user_id=1, job_id=str(job_id), key=None, now=later(), context=world.context())


async def prepare(world: JobsWorld, job_id: UUID, steps: Steps) -> None:
    """One pass until there is nothing to do but to wait for the pod, and one when the pod is ready."""
    async with AsyncExitStack() as stack:
        database, cluster, github = SteppingDatabase(world, steps), SteppingCluster(world, steps), github_of(world)
        for closing in (database.close, cluster.close, github.close):
            stack.push_async_callback(closing)
        reconciler = Reconciler(replace(world.context(), database=database), cluster, github)
        job = (await reconciler.work(await read(world, job_id), Budget(PASS_SECONDS))).job

        async def ready() -> bool:
            pod = await world.cluster.find_pod(f"gpu-dev-{job_id}-1")
            cancelled = (await read(world, job_id)).phase is not Phase.PREPARING
            return cancelled or (pod is not None and read_pod(pod).state is PodState.READY)

        if job.phase is Phase.PREPARING:
            await eventually(ready, "its pod is ready")
            await reconciler.work(await read(world, job_id), Budget(PASS_SECONDS))


async def finish(world: JobsWorld, job_id: UUID) -> Job:
    """Another worker goes on until the job has ended."""
    github = github_of(world)
    reconciler = Reconciler(world.context(), world.cluster, github)

    async def ended() -> bool:
        job = await read(world, job_id)
        if job.phase is not Phase.ENDED and job.node is not None:
            await reconciler.work(job, Budget(PASS_SECONDS))
        return (await read(world, job_id)).phase is Phase.ENDED

    try:
        await eventually(ended, "it has ended")
    finally:
        await reconciler.close()
        await github.close()
    return await read(world, job_id)


async def left_over(world: JobsWorld, job_id: UUID) -> list[str]:
    name = f"gpu-dev-{job_id}-1"
    disk = [
        kind for kind in ("persistentvolumes", "persistentvolumeclaims") if await world.cluster.find_object(kind, name)
    ]
    return [kind for kind, _ in await world.objects(job_id)] + disk


async def assert_cancelled(world: JobsWorld, job_id: UUID, where: str) -> None:
    job = await finish(world, job_id)
    assert job.status == "cancelled", where
    assert await left_over(world, job_id) == [], where
    told = await world.announced(job_id)
    assert told[-2:] == ["cancel_requested", "ended"], where
    assert [told.count(name) for name in ("preparing", "cancel_requested", "ended")] == [1, 1, 1], (where, told)
    assert (await world.row(job_id))["env_sealed"] is None, where


async def test_the_worker_is_killed_at_each_step_and_the_job_cancelled_then(world: JobsWorld, client: Client) -> None:
    async def killed_at(job_id: UUID, at: int) -> Steps:
        async def die() -> None:
            raise Crash

        steps = Steps(at, die)
        with suppress(Crash):
            await prepare(world, job_id, steps)
        await cancel(world, job_id)
        return steps

    await at_every_step(world, client, killed_at)


async def test_the_job_is_cancelled_at_each_step_of_a_worker_that_goes_on(world: JobsWorld, client: Client) -> None:
    async def cancelled_at(job_id: UUID, at: int) -> Steps:
        cancelling: list[asyncio.Task[None]] = []

        async def begin() -> None:
            cancelling.append(asyncio.create_task(cancel(world, job_id)))
            # before a commit it has to wait for the worker's transaction
            await asyncio.wait(cancelling, timeout=0.3)

        steps = Steps(at, begin)
        await prepare(world, job_id, steps)
        await (cancelling[0] if cancelling else cancel(world, job_id))
        return steps

    await at_every_step(world, client, cancelled_at)


async def at_every_step(world: JobsWorld, client: Client, run: Callable[[UUID, int], Awaitable[Steps]]) -> None:
    counting = Steps()
    job_id = await granted(world, client)
    await prepare(world, job_id, counting)
    assert (await read(world, job_id)).phase is Phase.ACTIVE
    await cancel(world, job_id)
    await assert_cancelled(world, job_id, "active")
    names = counting.names
    assert len(names) >= LEAST_STEPS, names
    room = asyncio.Semaphore(AT_ONCE)

    async def one(at: int) -> bool:
        async with room:
            job_id = await granted(world, client)
            steps = await run(job_id, at)
            await assert_cancelled(world, job_id, f"step {at}, {names[at]}")
            return steps.reached

    reached = await asyncio.gather(*(one(at) for at in range(len(names))))
    assert sum(reached) >= len(names) - POD_LOOKS, names
