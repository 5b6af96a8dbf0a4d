"""Killed at any call, the work goes on where it was left: nothing is made twice, nothing is left over."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster, ClusterUnavailable
from services.jobs.consumers import Consumers
from services.jobs.context import Context
from services.jobs.domain.facts import Cancel, Granted, PodReady, PodWaits
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.submission import read_submission
from services.jobs.domain.transition_table import transition_of
from services.jobs.operations.cancel import cancel_job
from services.jobs.operations.submit import submit_job
from services.jobs.operations.transition import LeaseTooEarly, apply_event, apply_fact, write_transition
from services.jobs.workers.reconciler import PASS_SECONDS, Looked, Reconciler
from shared.contracts.asyncapi import event_types
from shared.contracts.auth import Identity
from shared.leased_worker import Budget
from tests.support.crash import Crash
from tests.support.harness import eventually
from tests.support.jobs import JobsWorld, body, github_of, later
from tests.support.pods import READY_POD, pod

CALLS_TO_MAKE = 6
"""Look, make Secret, Pod and Service, tie the Secret, look again."""
OWNER = Identity(user_id=1, username="alice", key_id="k", expires_at=later(hours=1))


class BreakingCluster(Cluster):
    """Does what it is asked to, then, at one call, fails: killed, or without telling that it was done."""

    def __init__(self, world: JobsWorld, *, fails_at: int, failure: tuple[Any, bool], only: str = "") -> None:
        super().__init__(kubeconfig=world.settings.kubeconfig, namespace=world.settings.namespace)
        self._numbers = count(1)
        self._fails_at = fails_at
        self._error, self._has_effect = failure
        self._only = only
        self.failed = False

    async def _call(self, method: str, kind: str, name: str | None = None, **how: Any) -> Any:
        fails = method.startswith(self._only) and next(self._numbers) == self._fails_at
        self.failed = self.failed or fails
        if not fails:
            return await super()._call(method, kind, name, **how)
        if self._has_effect:
            with suppress(Exception):
                await super()._call(method, kind, name, **how)
        raise self._error


@asynccontextmanager
async def breaking(world: JobsWorld, fails_at: int, failure: tuple[Any, bool], only: str = "") -> AsyncIterator[Any]:
    """A reconciler that dies at a call of its cluster."""
    cluster = BreakingCluster(world, fails_at=fails_at, failure=failure, only=only)
    with suppress(Crash, ClusterUnavailable):
        try:
            yield Reconciler(world.context(), cluster, github_of(world))
        finally:
            await cluster.close()
    assert cluster.failed


KILLED = (Crash, True)
FAILURES = [KILLED, (ClusterUnavailable, True), (ClusterUnavailable, False)]


@pytest.fixture
def context(world: JobsWorld) -> Context:
    return world.context()


@pytest.fixture
async def reconciler(world: JobsWorld, context: Context) -> AsyncIterator[Reconciler]:
    """Its loop does not run: a test drives it pass by pass."""
    made = Reconciler(context, world.cluster, github_of(world))
    yield made
    await made.close()


async def submitted(context: Context, **changes: Any) -> UUID:
    submission = read_submission(body(**changes))
    outcome = await submit_job(
        owner=OWNER, submission=submission, job_id=uuid4(), key=None, now=later(), context=context
    )
    return outcome.answer.job_id


async def granted(world: JobsWorld, context: Context, epoch: int = 1, **changes: Any) -> UUID:
    job_id = await submitted(context, **changes)
    await deliver(context, job_id, Granted(epoch, world.node), sequence=epoch)
    return job_id


async def deliver(context: Context, job_id: UUID, fact: Any, sequence: int | None) -> None:
    async with context.database.transaction() as transaction:
        await apply_event(
            transaction=transaction, job_id=job_id, fact=fact, sequence=sequence, now=later(), context=context
        )


async def read(world: JobsWorld, job_id: UUID) -> Job:
    return storage.jobs.to_job(await world.row(job_id))


async def cancel(context: Context, job_id: UUID) -> None:
    await cancel_job(user_id=1, job_id=str(job_id), key=None, now=later(), context=context)


async def a_pass(reconciler: Reconciler, job: Job) -> Looked:
    return await reconciler.work(job, Budget(PASS_SECONDS))


async def two_passes(world: JobsWorld, reconciler: Reconciler, job_id: UUID) -> None:
    """One makes the pod, the next one looks at it."""
    for _ in range(2):
        await a_pass(reconciler, await read(world, job_id))


async def passes_until(world: JobsWorld, reconciler: Reconciler, job_id: UUID, *phases: Phase) -> Job:
    async def reached() -> Job | None:
        job = await read(world, job_id)
        if job.phase not in phases and job.node is not None:
            job = (await a_pass(reconciler, job)).job
        return job if job.phase in phases else None

    found: Job = await eventually(reached, f"phase is one of {phases}")
    return found


async def assert_one_of_each(world: JobsWorld, job_id: UUID) -> None:
    assert sorted(kind for kind, _ in await world.objects(job_id)) == ["pods", "secrets", "services"]


@pytest.mark.parametrize("fails_at", range(1, CALLS_TO_MAKE + 1))
@pytest.mark.parametrize("failure", FAILURES, ids=["killed", "no answer but done", "no answer and not done"])
async def test_making_the_pod_survives_a_failure_at_every_call(
    world: JobsWorld, reconciler: Reconciler, fails_at: int, failure: tuple[Any, bool]
) -> None:
    """Incidents 4 and 5."""
    job_id = await granted(world, world.context())
    async with breaking(world, fails_at, failure) as dying:
        await two_passes(world, dying, job_id)
    await passes_until(world, reconciler, job_id, Phase.ACTIVE)
    await assert_one_of_each(world, job_id)
    assert await world.announced(job_id) == ["submitted", "preparing", "started"]


@pytest.mark.parametrize("fails_at", range(1, CALLS_TO_MAKE + 1))
async def test_a_cancel_at_every_call_of_making_leaves_nothing(
    world: JobsWorld, context: Context, reconciler: Reconciler, fails_at: int
) -> None:
    """Incident 9."""
    job_id = await granted(world, context)
    async with breaking(world, fails_at, KILLED) as dying:
        await two_passes(world, dying, job_id)
    await cancel(context, job_id)
    await passes_until(world, reconciler, job_id, Phase.ENDED)
    await eventually(lambda: nothing(world, job_id), "nothing is left")
    assert await world.announced(job_id) == ["submitted", "preparing", "cancel_requested", "ended"]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
async def test_ending_survives_a_kill_at_every_deletion(
    world: JobsWorld, context: Context, reconciler: Reconciler, fails_at: int
) -> None:
    job_id = await granted(world, context)
    await passes_until(world, reconciler, job_id, Phase.ACTIVE)
    await cancel(context, job_id)
    async with breaking(world, fails_at, KILLED, only="DELETE") as dying:
        await passes_until(world, dying, job_id, Phase.ENDED)
    await passes_until(world, reconciler, job_id, Phase.ENDED)
    await eventually(lambda: nothing(world, job_id), "nothing is left")
    assert (await world.announced(job_id))[-2:] == ["cancel_requested", "ended"]


async def nothing(world: JobsWorld, job_id: UUID) -> bool:
    return not await world.objects(job_id)


async def test_a_pod_that_was_just_made_is_left_alone_until_there_is_news_of_it_or_a_second_is_over(
    world: JobsWorld, context: Context, reconciler: Reconciler
) -> None:
    job_id = await granted(world, context)
    looked = await a_pass(reconciler, await read(world, job_id))
    assert looked.next_at <= later(seconds=1)
    assert looked.job.pod_uid is not None
    assert looked.job.detail == "making the pod", "whatever the pod does, it does not say yet"


async def test_two_workers_on_one_job_make_one_pod_and_one_history(
    world: JobsWorld, context: Context, reconciler: Reconciler
) -> None:
    job_id = await granted(world, context)
    stale = await read(world, job_id)
    other = Reconciler(world.context(), world.cluster, github_of(world))
    await passes_until(world, reconciler, job_id, Phase.ACTIVE)
    await a_pass(other, stale)
    assert (await read(world, job_id)).phase is Phase.ACTIVE
    await assert_one_of_each(world, job_id)
    assert await world.announced(job_id) == ["submitted", "preparing", "started"]


async def test_what_a_stale_worker_saw_is_refused(world: JobsWorld, context: Context, reconciler: Reconciler) -> None:
    """Incident 3."""
    job_id = await granted(world, context)
    stale = await read(world, job_id)
    await passes_until(world, reconciler, job_id, Phase.ACTIVE)
    waits = await apply_fact(job=stale, fact=PodWaits(1, "pulling"), now=later(), context=context)
    starts = await apply_fact(job=stale, fact=PodReady(1, None), now=later(), context=context)
    assert (waits, starts) == (None, None)
    assert (await read(world, job_id)).phase is Phase.ACTIVE
    assert await world.announced(job_id) == ["submitted", "preparing", "started"]


async def test_a_cancel_between_decision_and_write_wins(
    world: JobsWorld, context: Context, reconciler: Reconciler
) -> None:
    job_id = await granted(world, context)
    decided = await read(world, job_id)
    await cancel(context, job_id)
    assert await apply_fact(job=decided, fact=PodReady(1, None), now=later(), context=context) is None
    await passes_until(world, reconciler, job_id, Phase.ENDED)
    assert (await read(world, job_id)).status == "cancelled"


async def test_a_change_whose_transaction_fails_leaves_neither_state_nor_event(
    world: JobsWorld, context: Context
) -> None:
    job_id = await granted(world, context)
    job = await read(world, job_id)
    changed = transition_of(job, Cancel(), later())
    assert changed is not None
    with suppress(Crash):
        async with context.database.transaction() as transaction:
            await write_transition(
                transaction=transaction, before=job, transition=changed, now=later(), context=context
            )
            raise Crash
    assert await read(world, job_id) == job
    assert await world.announced(job_id) == ["submitted", "preparing"]


async def test_a_newer_lease_waits_until_the_older_is_given_back(world: JobsWorld, context: Context) -> None:
    job_id = await granted(world, context)
    job = await read(world, job_id)
    with pytest.raises(LeaseTooEarly):
        await deliver(context, job_id, Granted(2, world.node), sequence=2)
    assert await read(world, job_id) == job


async def test_a_job_is_one_workers_until_its_lease_ends(world: JobsWorld, context: Context) -> None:
    job_id = await granted(world, context)
    claim = {"now": later(seconds=1), "hinted": [], "limit": 10}
    first, second = uuid4(), uuid4()
    lease = later(seconds=5) - later()
    mine = await world.database.fetch_all(storage.leases.CLAIM, **claim, lease=lease, worker=first)
    theirs = await world.database.fetch_all(storage.leases.CLAIM, **claim, lease=lease, worker=second)
    assert ([row["id"] for row in mine], theirs) == ([job_id], [])
    await world.update(job_id, "worked_until = now() - interval '1 second'")
    assert await world.database.fetch_all(storage.leases.CLAIM, **claim, lease=lease, worker=second)
    finish = {"job_id": job_id, "known_revision": 1, "next_look_at": later()}
    assert await world.database.execute(storage.leases.FINISH, **finish, worker=first) == 0
    assert await world.database.execute(storage.leases.FINISH, **finish, worker=second) == 1


async def test_a_job_whose_pod_has_changed_comes_before_those_without_one(world: JobsWorld, context: Context) -> None:
    begun, new, late = [await granted(world, context) for _ in range(3)]
    now = later()
    await world.update(begun, f"pod_uid = 'a pod', due_at = '{now + timedelta(hours=1)}'")
    await world.update(new, f"due_at = '{now - timedelta(seconds=1)}'")
    await world.update(late, f"due_at = '{now - timedelta(seconds=3)}'")
    claim = {"now": now, "hinted": [begun, new], "limit": 1, "lease": timedelta(seconds=60), "worker": uuid4()}
    claimed = [await world.database.fetch_value(storage.leases.CLAIM, **claim) for _ in range(3)]
    assert claimed == [late, begun, new], "but not before who has waited for long"


async def test_a_look_at_a_pod_that_is_on_its_way_is_put_off_until_more_is_known(
    context: Context, reconciler: Reconciler
) -> None:
    first, second, hints = uuid4(), uuid4(), context.hints.waiting
    reconciler.hear(first, pod("Pending"))
    reconciler.hear(second, pod("Pending"))
    reconciler.hear(second, READY_POD)
    assert hints == {second}, "at once, as it decides"
    hints.clear()
    await eventually(lambda: hints, "a look, though nothing more comes")
    assert hints == {first}


async def test_a_hint_at_a_job_whose_row_another_has_just_then_is_not_lost(
    world: JobsWorld, context: Context, reconciler: Reconciler
) -> None:
    job_id, worker, lease = await granted(world, context), uuid4(), timedelta(seconds=60)
    await world.update(job_id, f"due_at = '{later(hours=1)}'")
    context.hints.add(job_id)
    async with world.database.transaction() as transaction:
        await transaction.fetch_one(storage.jobs.LOCK, job_id=job_id)
        assert await reconciler.claim(worker, lease, 10) == []
    await eventually(lambda: context.hints.waiting, "it is asked for again")
    assert [job.id for job in await reconciler.claim(worker, lease, 10)] == [job_id]


async def test_one_jobs_trouble_does_not_stop_the_others(world: JobsWorld) -> None:
    async with world.service() as client:
        bad = await world.submit(client, command="exit 0")
        await world.update(bad, "env_sealed = 'not a token'::bytea")
        await world.grant(bad)
        good = [await world.submit(client, command="exit 0") for _ in range(3)]
        for job_id in good:
            await world.grant(job_id)

        async def all_done() -> bool:
            return all([(await world.announced(job_id))[-1] == "ended" for job_id in good])

        await eventually(all_done, "the good jobs ended")
        assert (await read(world, bad)).phase is Phase.PREPARING


def test_consumers_listen_to_what_the_design_says_and_to_what_webhooks_tell() -> None:
    names = {subscription.event.subject_filter() for subscription in Consumers(None).subscriptions()}  # type: ignore[arg-type]
    told = {event.subject_filter() for event in event_types() if event.DOMAIN in {"jobs", "disks"}}
    assert names == told | {
        "gpudev.v1.capacity.queued.*",
        "gpudev.v1.capacity.granted.*",
        "gpudev.v1.capacity.revoked.*",
        "gpudev.v1.disks.claimed.*",
        "gpudev.v1.disks.operation_failed.*",
        "gpudev.v1.auth.user_disabled.*",
        "gpudev.v1.auth.user_enabled.*",
    }
