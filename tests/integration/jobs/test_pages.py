"""Pages far from the first: whatever happens meanwhile, they are the rest of the same list."""

import asyncio
from random import Random
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from services.jobs import storage
from services.jobs.domain.job_list import JobQuery
from services.jobs.operations.fold_counts import fold_counts
from services.jobs.operations.read import list_versions
from shared.contracts.jobs import JobStatus
from shared.database import Executor, Statement
from tests.support.jobs import JobsWorld

COPY = Statement(
    sa.text(
        "INSERT INTO jobs SELECT copied.* FROM jobs AS one, unnest(CAST(:ages AS integer[])) AS age, "
        "jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid(), "
        "'created_at', date_trunc('minute', one.created_at) + age * interval '100 milliseconds')) AS copied "
        "WHERE one.id = CAST(:job_id AS uuid)"
    )
)
SOME = (
    "id IN (SELECT id FROM jobs WHERE user_id = 1 AND id <> CAST(:job_id AS uuid) "
    "ORDER BY random() LIMIT CAST(:count AS integer) FOR UPDATE SKIP LOCKED)"
)
END = Statement(sa.text(f"UPDATE jobs SET status = CAST(:status AS text), revision = revision + 1 WHERE {SOME}"))
FORGET = Statement(sa.text(f"DELETE FROM jobs WHERE {SOME}"))
MOVE = Statement(sa.text(f"UPDATE jobs SET created_at = created_at + interval '7 seconds' WHERE {SOME}"))
GIVE = Statement(sa.text(f"UPDATE jobs SET user_id = 2 WHERE {SOME}"))
FOLD_AS_BEFORE = Statement(
    sa.text(
        "WITH folded AS (DELETE FROM job_counts WHERE user_id = 1 RETURNING status, jobs) INSERT INTO job_counts "
        "(user_id, status, jobs) SELECT 1, status, sum(jobs) FROM folded GROUP BY status HAVING sum(jobs) <> 0"
    )
)
"""What replicas of the release before do."""
SPANS = Statement(sa.text("SELECT begins_at::text, sum(jobs)::integer AS jobs FROM job_spans GROUP BY 1 ORDER BY 1"))
ALL_IN_ORDER = Statement(
    sa.text(
        "SELECT id FROM jobs WHERE user_id = ANY(CAST(:user_ids AS bigint[])) "
        "AND status = ANY(CAST(:statuses AS text[])) ORDER BY created_at DESC, id DESC "
        "LIMIT CAST(:limit AS bigint) OFFSET CAST(:offset AS bigint)"
    )
)
FILTERS = (None, ["queued"], ["completed", "failed"], ["active", "pending"], list(JobStatus))


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


@pytest.fixture
async def job_id(world: JobsWorld) -> UUID:
    """A job of alice's. No replica runs any more, whose loop would fold the counts between two steps of a test."""
    async with world.service() as client:
        return await world.submit(client)


class Walk:
    """Random changes of alice's jobs, some of which are given to bob.

    Args:
        world: Where her jobs are.
        job_id: One of them, which stays.
        chance: Where all of it comes from.
    """

    def __init__(self, world: JobsWorld, job_id: UUID, chance: Random) -> None:
        self._world = world
        self._job_id = job_id
        self._chance = chance

    async def change(self, executor: Executor) -> None:
        """Submits, ends, forgets, moves or gives away some."""
        what, given = self._chance.choice(
            ((COPY, "ages"), (COPY, "ages"), (END, "status"), (FORGET, ""), (MOVE, ""), (GIVE, ""))
        )
        parameters: dict[str, Any] = {"job_id": self._job_id}
        if given == "ages":
            parameters["ages"] = self._ages()
        else:
            parameters["count"] = self._chance.randrange(1, 25)
        if given == "status":
            parameters["status"] = self._chance.choice(list(JobStatus))
        await executor.execute(what, **parameters)

    def _ages(self) -> list[int]:
        """Before all others, between them, and many in one second."""
        first, width = self._chance.randrange(-3000, 3000), self._chance.choice((1, 20, 400))
        return [first + self._chance.randrange(width) for _ in range(self._chance.randrange(1, 60))]

    async def fold(self) -> None:
        """What the loop does, with short spans; sometimes what the release before does."""
        async with self._world.database.transaction() as tx:
            if await tx.fetch_value(storage.counts.TRY_FOLD_LOCK):
                if self._chance.random() < 0.1:
                    await tx.execute(FOLD_AS_BEFORE)
                else:
                    user_id = self._chance.choice((1, 1, 2))
                    await tx.execute(storage.counts.FOLD, user_id=user_id, long=12, part=6)

    async def compare(self) -> None:
        """Pages of one snapshot, found by spans and by counting from the first job."""
        async with self._world.database.snapshot() as snapshot:
            for statuses in FILTERS:
                limit, offset = self._chance.randrange(1, 40), self._chance.randrange(300)
                given: dict[str, Any] = {"user_id": 1, "limit": limit, "offset": offset}
                given |= {} if statuses is None else {"statuses": statuses}
                kinds = {"filtered": statuses is not None, "only_open": statuses == ["active", "pending"]}
                by_counting, by_spans = (
                    storage.versions.page_statement(**kinds, by_spans=one) for one in (False, True)
                )
                (plain,), (found,) = [
                    await snapshot.fetch_all(statement, **given) for statement in (by_counting, by_spans)
                ]
                assert dict(found) == dict(plain), (given, await snapshot.fetch_all(SPANS))
                await self._compare_of_all(snapshot, statuses, limit, offset)

    async def _compare_of_all(self, snapshot: Executor, statuses: list[str] | None, limit: int, offset: int) -> None:
        """The same of all users, as operators list them."""
        for users in (None, [1], [2, 77]):
            given: dict[str, Any] = {"limit": limit, "offset": offset}
            given |= {} if statuses is None else {"statuses": statuses}
            given |= {} if users is None else {"user_ids": users}
            found = storage.lists.list_ids(of_all=users is None, filtered=statuses is not None)
            rows = await snapshot.fetch_all(found, **given)
            plain = {"user_ids": users or [1, 2], "statuses": statuses or list(JobStatus), "limit": limit}
            assert rows == await snapshot.fetch_all(ALL_IN_ORDER, offset=offset, **plain), given


@pytest.mark.parametrize("seed", range(3))
async def test_pages_by_spans_are_those_by_counting_after_any_changes(
    world: JobsWorld, job_id: UUID, seed: int
) -> None:
    chance = Random(seed)
    walk = Walk(world, job_id, chance)
    for _ in range(60):
        await walk.change(world.database)
        if chance.random() < 0.4:
            await walk.fold()
        await walk.compare()


async def test_pages_are_right_while_jobs_change_in_transactions_that_end_in_any_order(
    world: JobsWorld, job_id: UUID
) -> None:
    done = False

    async def change(seed: int) -> None:
        chance = Random(seed)
        walk = Walk(world, job_id, chance)
        for _ in range(25):
            async with world.database.transaction() as tx:
                for _ in range(chance.randrange(1, 4)):
                    await walk.change(tx)

    async def fold(seed: int) -> None:
        walk = Walk(world, job_id, Random(seed))
        while not done:
            await walk.fold()

    async def compare() -> None:
        walk = Walk(world, job_id, Random(9))
        while not done:
            await walk.compare()

    others = [asyncio.create_task(one) for one in (fold(1), fold(2), compare())]
    await asyncio.gather(*(change(seed) for seed in (3, 4, 5)))
    done = True
    await asyncio.gather(*others)


async def test_spans_become_no_longer_than_a_page_can_skip(world: JobsWorld, job_id: UUID) -> None:
    for first in (0, 25_000, 12_500):
        await world.database.execute(COPY, job_id=job_id, ages=list(range(first, first + 12_500, 5)))
        await fold_counts(world.context())
        spans = [row["jobs"] for row in await world.database.fetch_all(SPANS)]
        assert max(spans) <= 2000 < sum(spans)
    page = await list_versions(user_id=1, query=JobQuery(limit=7, offset=5_123), executor=world.database)
    in_order = Statement(sa.text("SELECT id FROM jobs ORDER BY created_at DESC, id DESC LIMIT 7 OFFSET 5123"))
    assert [one.job_id for one in page.versions] == [row["id"] for row in await world.database.fetch_all(in_order)]
    assert page.total == 7501


async def test_counts_that_the_release_before_has_folded_are_counted_anew(world: JobsWorld, job_id: UUID) -> None:
    """Also of a user for whom nothing changes any more, as after an upgrade."""
    await world.database.execute(COPY, job_id=job_id, ages=list(range(0, 30_000, 10)))
    await world.database.execute(FOLD_AS_BEFORE)
    assert await world.database.fetch_all(SPANS) == []
    await fold_counts(world.context())
    spans = await world.database.fetch_all(SPANS)
    assert sorted(row["jobs"] for row in spans) == [2, 999, 1000, 1000]
    assert not await world.database.fetch_all(storage.counts.USERS_TO_FOLD)
