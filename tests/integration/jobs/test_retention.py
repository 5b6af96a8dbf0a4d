"""Jobs leave when they have been over for long enough."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from services.jobs import storage
from services.jobs.operations.purge import purge_jobs
from services.jobs.operations.webhook_messages import purge_messages
from services.jobs.storage import tables
from shared.database import Statement
from shared.database import purge as purge_module
from shared.database.purge import BITE
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld

_MANY = Statement(
    sa.text(
        "INSERT INTO jobs SELECT (jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid()))).* "
        "FROM jobs AS one, generate_series(1, CAST(:number AS integer)) WHERE one.id = :job_id"
    ).bindparams(sa.bindparam("job_id", type_=sa.Uuid))
)

_WEBHOOK = Statement(
    sa.text(
        "INSERT INTO webhooks (id, user_id, types, format, sealed, created_at) "
        "VALUES (CAST(:webhook_id AS uuid), 1, '{}', 'events', '', now())"
    )
)
_MESSAGES = Statement(
    sa.text(
        "INSERT INTO webhook_deliveries (webhook_id, message_id, type, entity, body, status, created_at) "
        "SELECT CAST(:webhook_id AS uuid), gen_random_uuid(), 'jobs.ended', 'one', '', CAST(:status AS text), "
        "now() - interval '1 day' * CAST(:days AS integer) FROM generate_series(1, CAST(:number AS integer))"
    )
)
_COUNT_MESSAGES = Statement(sa.select(sa.func.count()).select_from(tables.webhook_deliveries))


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def over(world: JobsWorld, client: Client, days: int) -> UUID:
    """A job that ended so long ago."""
    job_id = await world.submit(client)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await world.update(
        job_id, f"released_at = now() - interval '{days} days', ended_at = now() - interval '{days} days'"
    )
    return job_id


async def rows_of(world: JobsWorld, job_id: UUID) -> int:
    parts = (tables.job_access, tables.job_history, tables.job_users, tables.job_logs)
    counts = [
        await world.database.fetch_value(
            Statement(sa.select(sa.func.count()).select_from(part).where(part.c.job_id == sa.bindparam("job_id"))),
            job_id=job_id,
        )
        for part in parts
    ]
    return int(sum(counts))


async def test_a_job_is_not_found_a_year_after_its_end_and_nothing_is_left_of_it(
    world: JobsWorld, client: Client
) -> None:
    old, young, open_ = await over(world, client, 366), await over(world, client, 364), await world.submit(client)
    await world.update(open_, "created_at = now() - interval '400 days'")
    assert not await purge_jobs(world.context(), now=datetime.now(UTC))
    answers = [await client.get(f"/v1/jobs/{job_id}") for job_id in (old, young, open_)]
    assert [answer.status_code for answer in answers] == [404, 200, 200]
    assert (await rows_of(world, old), await rows_of(world, young)) == (0, 3)
    assert (await client.get("/v1/jobs")).json()["total"] == 2


async def test_a_job_that_holds_something_stays_however_old_it_is(world: JobsWorld, client: Client) -> None:
    job_id = await over(world, client, 400)
    await world.update(job_id, "released_at = NULL")
    await purge_jobs(world.context(), now=datetime.now(UTC))
    assert (await client.get(f"/v1/jobs/{job_id}")).status_code == 200


async def test_operators_say_how_long_jobs_are_kept_and_the_service_does_it(world: JobsWorld) -> None:
    async with world.service(job_retention_days=10_000) as client:
        job_id, younger = await over(world, client, 8), await over(world, client, 6)
    async with world.service(job_retention_days=7) as client:

        async def gone() -> bool:
            return (await client.get(f"/v1/jobs/{job_id}")).status_code == 404

        await eventually(gone, "its time is over")
        assert (await client.get(f"/v1/jobs/{younger}")).status_code == 200


async def test_many_leave_in_bites_and_one_that_somebody_works_on_holds_up_no_other(
    world: JobsWorld, client: Client
) -> None:
    held = await over(world, client, 400)
    await world.database.execute(_MANY, number=BITE + 10, job_id=held)
    before = datetime.now(UTC)
    async with world.database.transaction() as transaction:
        await transaction.fetch_one(storage.jobs.LOCK, job_id=held)
        assert await world.database.execute(storage.jobs.PURGE, before=before, most=7) == 7
        assert not await purge_jobs(world.context(), now=before)
        assert (await client.get("/v1/jobs")).json()["total"] == 1
    assert not await purge_jobs(world.context(), now=before)
    assert (await client.get("/v1/jobs")).json()["total"] == 0


async def test_messages_of_webhooks_leave_in_bites_that_no_backlog_makes_too_large(
    world: JobsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_module, "_SECONDS", 0.0)
    database, webhook_id = world.database, uuid4()
    await database.execute(_WEBHOOK, webhook_id=webhook_id)
    for status, days, number in (
        ("delivered", 31, 2 * BITE),
        ("parked", 31, 5),
        ("pending", 31, 3),
        ("delivered", 29, 2),
    ):
        await database.execute(_MESSAGES, webhook_id=webhook_id, status=status, days=days, number=number)
    assert await purge_messages(now=datetime.now(UTC), context=world.context())
    assert await database.fetch_value(_COUNT_MESSAGES) == BITE + 10
    while await purge_messages(now=datetime.now(UTC), context=world.context()):
        pass
    assert await database.fetch_value(_COUNT_MESSAGES) == 5
