"""The queue and the leases, on a real database."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy as sa
from msgspec import structs

from services.capacity.api.shown_cluster import ShownCluster
from services.capacity.domain.availability import count_availability, count_cluster
from services.capacity.domain.queue_entry import EntryState
from services.capacity.operations.purge import purge_queue
from services.capacity.operations.read import read_snapshot
from services.capacity.operations.schedule import schedule_jobs
from services.capacity.storage.leases import GRANT, TRY_SCHEDULER_LOCK
from services.capacity.workers.scheduler import Scheduler
from shared.contracts.jobs import JobCancelRequested, JobReady, JobRequeued, JobStarted, JobStatus
from shared.database import Database, Statement
from tests.support.capacity import NOW, Capacity, about, ended, facts, later, submitted
from tests.support.harness import eventually, running
from tests.support.promises import promised


async def test_a_submitted_job_is_granted_gpus(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(4)
    await capacity.schedule()
    assert await capacity.leased_by(job.job_id) == [("n1", 0), ("n1", 1), ("n1", 2), ("n1", 3)]
    (granted,) = await capacity.events(job.job_id)
    assert granted.type == "dev.gpudev.capacity.granted.v1"
    assert granted.sequence == 1


async def test_a_job_that_does_not_fit_is_told_its_position_and_starts_when_another_ends(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    first = await capacity.submit()
    second = await capacity.submit(at=later(seconds=1))
    await capacity.schedule()
    assert await capacity.leased_by(second.job_id) == []
    assert (await capacity.entry_row(second.job_id))["position"] == 1
    await capacity.apply(ended(first))
    await capacity.schedule()
    assert len(await capacity.leased_by(second.job_id)) == 8
    assert await capacity.told(first.job_id) == ["granted", "released"]
    assert await capacity.told(second.job_id) == ["queued", "granted"]


async def test_versions_of_a_job_rise_by_one(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    first, second = await capacity.submit(), await capacity.submit(at=later(seconds=1))
    await capacity.schedule()
    await capacity.apply(about(first, JobRequeued, JobStatus.QUEUED, epoch=1, reason="pod lost"))
    await capacity.schedule()
    await capacity.apply(ended(first, epoch=2))
    await capacity.schedule()
    for job in (first, second):
        sequences = [event.sequence for event in await capacity.events(job.job_id)]
        assert sequences == list(range(1, len(sequences) + 1))


async def test_two_schedulers_at_once_make_one_lease(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("n2"))
    job = await capacity.submit(4)
    other = Database(capacity.dsn, pool_size=2)
    await asyncio.gather(
        *(
            schedule_jobs(replace(capacity.context, database=database), now=NOW)
            for database in (capacity.database, other)
            for _ in range(2)
        )
    )
    await other.close()
    assert len(await capacity.leased_by(job.job_id)) == 4
    assert await capacity.told(job.job_id) == ["granted"]


async def test_a_replica_leaves_the_queue_to_the_one_that_schedules_it(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await capacity.submit(4)
    other = Database(capacity.dsn, pool_size=1)
    async with other.transaction() as tx:
        assert await tx.fetch_value(TRY_SCHEDULER_LOCK)
        assert not (await capacity.schedule()).ran
    await other.close()
    assert len((await capacity.schedule()).granted) == 1


async def test_a_job_that_somebody_changes_as_its_turn_comes_is_granted_right_after_that(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(4)
    scheduler = Scheduler(capacity.context)
    async with AsyncExitStack() as loops:
        async with capacity.database.transaction() as announcing:
            await announcing.execute(Statement(sa.text("SELECT 1 FROM places FOR UPDATE")))
            assert (await capacity.schedule()).passed_over
            rounds = capacity.announcer.rung
            await loops.enter_async_context(running(scheduler.loop.run))
            # each round wakes the announcer; the third comes long before the second of the first is over
            with promised(1.0):
                await eventually(lambda: capacity.announcer.rung >= rounds + 3, "it tries again")
        with promised(0.7):
            await eventually(lambda: capacity.leased_by(job.job_id), "it has its GPUs")
    assert not (await capacity.schedule()).passed_over


async def test_the_same_gpu_cannot_be_leased_twice_whatever_the_scheduler_does(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    first, second = await capacity.submit(2), await capacity.submit(2)
    await _grant(capacity, first.job_id, [0, 1])
    with pytest.raises(asyncpg.UniqueViolationError):
        await _grant(capacity, second.job_id, [1, 2])
    assert await capacity.leased_by(second.job_id) == []
    assert (await capacity.entry_row(second.job_id))["state"] == EntryState.WAITING


async def _grant(capacity: Capacity, job_id: UUID, indexes: list[int]) -> None:
    lease_jobs = [job_id] * len(indexes)
    await capacity.database.fetch_all(
        GRANT, job_ids=[job_id], nodes=["n1"], lease_jobs=lease_jobs, lease_indexes=indexes, now=NOW
    )


async def test_free_gpus_spread_over_nodes_are_not_placeable_together(capacity: Capacity) -> None:
    """Incident 27."""
    await capacity.nodes(facts("n1"), facts("n2"))
    small = [await capacity.submit(4, at=later(seconds=number)) for number in range(4)]
    await capacity.schedule()
    held = {(await capacity.leased_by(job.job_id))[0][0]: job for job in small}
    for job in held.values():
        await capacity.apply(ended(job))
    whole = await capacity.submit(8, at=later(minutes=1))
    await capacity.schedule()
    assert await capacity.leased_by(whole.job_id) == []
    entry = await capacity.available()
    assert (entry.available, entry.max_placeable, entry.queued) == (8, 4, 8)
    assert "spread over nodes" in (await capacity.entry_row(whole.job_id))["reason"]


async def test_a_job_that_waits_for_its_disk_holds_nobody_up_and_keeps_its_place(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    waits = await capacity.submit(waits_for_disk=True)
    behind = await capacity.submit(at=later(seconds=1))
    last = await capacity.submit(at=later(seconds=2))
    await capacity.schedule()
    assert len(await capacity.leased_by(behind.job_id)) == 8
    assert await capacity.told(waits.job_id) == []
    await capacity.apply(about(waits, JobReady, JobStatus.QUEUED))
    await capacity.apply(ended(behind))
    await capacity.schedule()
    assert len(await capacity.leased_by(waits.job_id)) == 8
    assert await capacity.leased_by(last.job_id) == []


async def test_a_requeued_job_gives_its_lease_back_and_is_first_again(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    first = await capacity.submit()
    second = await capacity.submit(at=later(seconds=1))
    await capacity.schedule()
    requeued = about(first, JobRequeued, JobStatus.QUEUED, epoch=1, reason="unschedulable")
    await capacity.apply(requeued)
    await capacity.schedule()
    assert len(await capacity.leased_by(first.job_id)) == 8
    assert (await capacity.entry_row(first.job_id))["epoch"] == 2
    await capacity.apply(requeued, sequence=2)
    assert len(await capacity.leased_by(first.job_id)) == 8, "a requeue of an older lease took the new one"
    assert await capacity.leased_by(second.job_id) == []


async def test_a_job_that_ended_before_it_was_submitted_gets_no_place(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = submitted()
    await capacity.apply(ended(job, epoch=0), sequence=3)
    await capacity.apply(job, sequence=1)
    await capacity.schedule()
    assert await capacity.leases() == []
    assert (await capacity.entry_row(job.job_id))["state"] == EntryState.ENDED
    assert (await capacity.available()).queued == 0


async def test_a_waiting_job_whose_cancel_is_requested_leaves_the_queue(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit()
    await capacity.apply(about(job, JobCancelRequested, JobStatus.QUEUED))
    await capacity.schedule()
    assert await capacity.leases() == []
    assert (await capacity.available()).queued == 0


async def test_a_running_job_keeps_its_gpus_until_it_has_ended(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit()
    await capacity.schedule()
    await capacity.apply(about(job, JobCancelRequested, JobStatus.ACTIVE))
    await capacity.schedule()
    assert len(await capacity.leased_by(job.job_id)) == 8
    await capacity.apply(ended(job))
    assert await capacity.leases() == []


async def test_a_lease_granted_while_its_job_ended_is_given_back(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit()
    await capacity.schedule()
    await capacity.apply(ended(job, epoch=0))
    assert await capacity.leases() == []
    assert await capacity.told(job.job_id) == ["granted", "released"]


async def test_the_estimate_follows_the_end_of_what_runs(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    first = await capacity.submit()
    second = await capacity.submit(at=later(seconds=1))
    await capacity.schedule()
    # its pod is being made, which takes a minute as long as nothing was measured
    assert (await capacity.entry_row(second.job_id))["estimated_start_at"] == later(hours=1, minutes=1)
    begun = {"node": "n1", "epoch": 1, "started_at": later(hours=1), "expires_at": later(hours=2)}
    await capacity.apply(about(first, JobStarted, JobStatus.ACTIVE, **begun))
    await capacity.schedule(later(seconds=2))
    row = await capacity.entry_row(second.job_id)
    assert (row["estimated_start_at"], row["estimated_p90_at"]) == (later(hours=2), later(hours=2))
    assert row["first_p90_at"] == later(hours=1, minutes=1)


async def test_many_changes_within_a_second_are_told_once(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    running = [await capacity.submit(1, at=later(seconds=number)) for number in range(8)]
    ahead = await capacity.submit(8, at=later(minutes=1))
    last = await capacity.submit(8, at=later(minutes=2))
    await capacity.schedule()
    await capacity.apply(about(ahead, JobCancelRequested, JobStatus.QUEUED))
    for number, job in enumerate(running[:7]):
        await capacity.apply(ended(job))
        await capacity.schedule(later(milliseconds=100 * number))
    assert await capacity.told(last.job_id) == ["queued"]
    await capacity.schedule(later(seconds=1))
    assert await capacity.told(last.job_id) == ["queued", "queued"]
    assert (await capacity.entry_row(last.job_id))["position"] == 1
    changes = len(await capacity.told("h100"))
    await capacity.schedule(later(seconds=5))
    await capacity.schedule(later(seconds=9))
    assert await capacity.told(last.job_id) == ["queued", "queued"]
    assert len(await capacity.told("h100")) <= changes + 1


async def test_nothing_is_placed_on_a_cordoned_or_unready_node(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1", schedulable=False), facts("n2", ready=False))
    job = await capacity.submit(1)
    await capacity.schedule()
    assert await capacity.leases() == []
    entry = await capacity.available()
    assert (entry.total, entry.available, entry.in_use, entry.queued) == (0, 0, 0, 1)
    await capacity.nodes(facts("n1", resource_version=2))
    await capacity.schedule()
    assert len(await capacity.leased_by(job.job_id)) == 1


async def test_a_lease_on_a_cordoned_node_is_in_its_row_and_in_no_sum(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("n2"))
    await capacity.submit(4)
    await capacity.schedule()
    await capacity.nodes(facts("n1", schedulable=False, resource_version=2))
    entry = await capacity.available()
    assert (entry.total, entry.available, entry.in_use) == (8, 8, 0)
    assert [(node.name, node.in_use, node.schedulable) for node in entry.nodes] == [
        ("n1", 4, False),
        ("n2", 0, True),
    ]


async def test_jobs_are_counted_by_status_in_the_snapshot_of_availability(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("a1", "a100"))
    active, preparing = await capacity.submit(4), await capacity.submit(2, at=later(seconds=1))
    await capacity.submit(8, at=later(seconds=2))
    await capacity.submit(8, "a100", waits_for_disk=True)
    await capacity.schedule()
    started = {"node": "n1", "epoch": 1, "started_at": NOW, "expires_at": later(hours=2)}
    await capacity.apply(about(active, JobStarted, JobStatus.ACTIVE, **started))
    status = count_cluster(await read_snapshot(capacity.database))
    assert list(status.jobs.values()) == [1, 1, 1, 1]
    assert status.types == count_availability(await read_snapshot(capacity.database))
    assert len(await capacity.leased_by(preparing.job_id)) == 2


@pytest.mark.parametrize("read", [ShownCluster.availability, ShownCluster.status])
async def test_an_answer_is_one_statement_that_writes_nothing(
    capacity: Capacity, read: Callable[[ShownCluster], Awaitable[object]]
) -> None:
    async with capacity.database.transaction() as tx:
        await tx.execute(Statement(sa.text("SET TRANSACTION READ ONLY")))
        run = 0
        fetch = tx.fetch_all

        async def counted(statement: Statement, **parameters: object) -> object:
            nonlocal run
            run += 1
            return await fetch(statement, **parameters)

        only: Any = SimpleNamespace(fetch_all=counted)
        await read(ShownCluster(replace(capacity.context, database=only)))
        assert run == 1


@pytest.mark.parametrize("read", [ShownCluster.availability, ShownCluster.status])
async def test_an_answer_does_not_look_at_the_queue_however_long_it_is(
    capacity: Capacity, read: Callable[[ShownCluster], Awaitable[object]]
) -> None:
    await capacity.nodes(facts("n1"))
    await capacity.submit(4)
    async with capacity.database.transaction() as tx:
        await tx.execute(Statement(sa.text("LOCK TABLE places IN ACCESS EXCLUSIVE MODE")))
        async with asyncio.timeout(30):  # it would wait for the lock
            await read(ShownCluster(capacity.context))


async def test_one_message_handled_by_two_replicas_at_once_makes_one_lease(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("n2"))
    other = Capacity(capacity.dsn, Database(capacity.dsn, pool_size=2))
    job = submitted(4)
    await asyncio.gather(*(replica.apply(job, sequence=1) for replica in (capacity, other)))
    await asyncio.gather(capacity.schedule(), other.schedule())
    await capacity.schedule()
    await other.database.close()
    assert len(await capacity.leases()) == 4
    assert await capacity.told(job.job_id) == ["granted"]


async def test_events_that_come_together_do_what_they_do_one_by_one(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"), facts("n2"))
    leased, requeued = await capacity.submit(8), await capacity.submit(8, at=later(seconds=1))
    await capacity.schedule()
    new, over = submitted(4, at=later(seconds=2)), submitted(2, at=later(seconds=3))
    begun = {"started_at": NOW, "expires_at": later(hours=1), "node": "n1", "epoch": 1}
    await capacity.apply_together(
        (new, 1),
        (about(leased, JobStarted, JobStatus.ACTIVE, **begun), 2),
        (about(requeued, JobRequeued, JobStatus.QUEUED, epoch=1, reason="pod lost"), 2),
        (about(new, JobCancelRequested, JobStatus.QUEUED), 2),
        (ended(leased), 3),
        (ended(over, epoch=0), 2),
        (over, 1),
        (new, 1),
    )
    rows = [await capacity.entry_row(job.job_id) for job in (leased, requeued, new, over)]
    assert [row["state"] for row in rows] == ["ended", "waiting", "waiting", "ended"]
    assert [row["cancelling"] for row in rows] == [False, False, True, False]
    assert [row["job_version"] for row in rows] == [3, 2, 2, 2]
    assert await capacity.leases() == []
    assert await capacity.told(leased.job_id) == ["granted", "released"]
    assert await capacity.told(requeued.job_id) == ["granted", "released"]
    assert [event.sequence for event in await capacity.events(requeued.job_id)] == [1, 2]
    assert await capacity.database.fetch_value(Statement(sa.text("SELECT count(*) FROM runs"))) == 1
    assert (await capacity.available()).queued == 8


async def test_a_batch_goes_on_with_the_entry_that_another_replica_has_made_meanwhile(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    other = Capacity(capacity.dsn, Database(capacity.dsn, pool_size=2))
    jobs = [submitted(1, at=later(seconds=number)) for number in range(50)]
    cancels = [(about(job, JobCancelRequested, JobStatus.QUEUED), 2) for job in jobs]
    await asyncio.gather(capacity.apply_together(*((job, 1) for job in jobs)), other.apply_together(*reversed(cancels)))
    await other.database.close()
    rows = [await capacity.entry_row(job.job_id) for job in jobs]
    assert {(row["state"], row["cancelling"], row["gpu_count"]) for row in rows} == {("waiting", True, 1)}


async def test_entries_of_jobs_are_forgotten_nine_days_after_their_end(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    over, waits = await capacity.submit(), await capacity.submit(at=later(seconds=1))
    await capacity.apply(ended(over))
    assert not await purge_queue(capacity.database, later(hours=9 * 24 - 1))
    assert await capacity.entry_row(over.job_id) is not None
    assert not await purge_queue(capacity.database, later(hours=9 * 24 + 1))
    assert await capacity.entry_row(over.job_id) is None
    assert await capacity.entry_row(waits.job_id) is not None


async def test_a_type_with_waiting_jobs_and_no_nodes_has_an_entry(capacity: Capacity) -> None:
    await capacity.submit(8, "b200")
    await capacity.schedule()
    entry = await capacity.available("b200")
    assert (entry.total, entry.queued, entry.max_per_node) == (0, 8, 8)


async def test_an_older_fact_about_a_node_undoes_nothing(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1", resource_version=5, schedulable=False))
    assert await capacity.nodes(facts("n1", resource_version=4)) == 0
    assert (await capacity.available()).total == 0
    assert await capacity.nodes(structs.replace(facts("n1"), resource_version=6)) == 1
    assert [event.sequence for event in await capacity.events("n1")] == [1, 2]
