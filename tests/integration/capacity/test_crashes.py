"""A replica dies at every point of every change between the queue and a lease; the points are counted, not chosen."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from services.capacity.domain.queue_entry import EntryState
from services.capacity.operations.announce import announce_queue
from services.capacity.operations.apply_job_events import Versioned, apply_job_events
from services.capacity.operations.record_cluster import confirm_node_gone
from services.capacity.operations.schedule import schedule_jobs
from shared.contracts.jobs import JobRequeued, JobStatus
from shared.database import Database, Statement, Transaction
from tests.support.capacity import NOW, Capacity, about, ended, facts, later
from tests.support.crash import Crash, CrashingDatabase, CrashPoints

Act = Callable[[Capacity, Database], Awaitable[Any]]


async def schedule(capacity: Capacity, database: Database) -> None:
    await schedule_jobs(replace(capacity.context, database=database), now=NOW)


async def announce(capacity: Capacity, database: Database) -> None:
    await announce_queue(replace(capacity.context, database=database), now=NOW)


async def give_back(capacity: Capacity, database: Database) -> None:
    async with database.transaction() as tx:
        await _apply(capacity, tx, ended(await _first(capacity)))


async def requeue(capacity: Capacity, database: Database) -> None:
    first = await _first(capacity)
    async with database.transaction() as tx:
        await _apply(capacity, tx, about(first, JobRequeued, JobStatus.QUEUED, epoch=1, reason="no room"))


async def lose_node(capacity: Capacity, database: Database) -> None:
    await confirm_node_gone(replace(capacity.context, database=database), name="n1", uid="uid-n1", now=NOW)


JOBS = UUID(int=1), UUID(int=2), UUID(int=3)


async def _first(capacity: Capacity) -> Any:
    return (await _jobs(capacity))[0]


async def _jobs(capacity: Capacity) -> list[Any]:
    if not capacity.sequences:
        await capacity.nodes(facts("n1"))
        for number, job_id in enumerate(JOBS):
            await capacity.submit(4, at=later(seconds=number), job_id=job_id)
    return capacity.submitted


async def _apply(capacity: Capacity, tx: Transaction, event: Any) -> None:
    await apply_job_events(capacity.context, tx, [Versioned(event, 2)], now=NOW)


async def state_of(capacity: Capacity) -> tuple[Any, ...]:
    """Entries, leases and events; they must agree at any time."""
    leases = await capacity.leases()
    found = []
    for job_id in JOBS:
        row = await capacity.entry_row(job_id)
        told = await capacity.told(job_id)
        held = [index for _, index, owner in leases if owner == job_id]
        assert (row["state"] == EntryState.LEASED) == (len(held) == 4), "a lease without its entry, or the reverse"
        assert told.count("granted") - told.count("released") - told.count("revoked") == (len(held) > 0)
        assert row["version"] == len(told)
        sequences = [event.sequence for event in await capacity.events(job_id)]
        assert sequences == list(range(1, len(told) + 1))
        found.append((row["state"], row["epoch"], row["position"], tuple(held), tuple(told)))
    return tuple(found)


@pytest.mark.parametrize(
    ("before", "act"),
    [
        ((), schedule),
        ((schedule,), announce),
        ((schedule, announce), give_back),
        ((schedule, announce), requeue),
        ((schedule, announce), lose_node),
        ((schedule, give_back), schedule),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_death_at_any_point_leaves_all_or_nothing_and_the_next_round_finishes(
    capacity: Capacity, capacity_dsn: str, before: tuple[Act, ...], act: Act
) -> None:
    async def fresh() -> None:
        for table in ("places", "leases", "outbox", "line_counts", "announcements", "nodes", "calibrations", "runs"):
            await capacity.database.execute(Statement(sa.text(f"DELETE FROM {table}")))
        capacity.sequences.clear()
        capacity.submitted = []
        await _jobs(capacity)
        for earlier in before:
            await earlier(capacity, capacity.database)

    await fresh()
    untouched = await state_of(capacity)
    counted = CrashPoints()
    counting = CrashingDatabase(capacity_dsn, counted, pool_size=1, statements=True)
    await act(capacity, counting)
    await counting.close()
    finished = await state_of(capacity)
    assert counted.passed > 4
    for point in range(counted.passed):
        await fresh()
        dying = CrashingDatabase(capacity_dsn, CrashPoints(point), pool_size=1, statements=True)
        with pytest.raises(Crash):
            await act(capacity, dying)
        await dying.close()
        assert await state_of(capacity) in {untouched, finished}, f"half of it was done at point {point}"
        await act(capacity, capacity.database)
        assert await state_of(capacity) == finished, f"it was not made good after point {point}"
