"""What jobs asks PostgreSQL stays as cheap as it is however many jobs have ended."""

import sqlalchemy as sa

from services.jobs import storage
from shared.database import Statement
from tests.support.jobs import Client, JobsWorld
from tests.support.plans import readers_of_whole_tables

_GROWING = ("jobs", "job_access", "job_history", "outbox")
_ENDED = (
    "INSERT INTO jobs SELECT copied.* FROM jobs AS one, generate_series(1, 1000) AS number, "
    "jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid(), "
    "'user_id', number % 50, 'created_at', one.created_at - number * interval '1 minute')) AS copied "
    "WHERE one.id = '{job_id}'"
)
_TOLD = (
    "INSERT INTO outbox (event_id, type, subject, entity_id, entity_version, occurred_at, data, published_at) "
    "SELECT gen_random_uuid(), 'dev.gpudev.jobs.submitted.v1', '', id, 1, created_at, '{}', created_at FROM jobs"
)
_BELONGINGS = (
    "INSERT INTO job_access (job_id) SELECT id FROM jobs ON CONFLICT DO NOTHING",
    "INSERT INTO job_history SELECT id, 1, 'queued', NULL, created_at FROM jobs ON CONFLICT DO NOTHING",
    _TOLD,
    *(f"ANALYZE {table}" for table in _GROWING),
)


async def test_no_statement_reads_all_jobs_that_have_ended(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await world.update(job_id, "status = 'completed', ended_at = now(), released_at = now(), outcome = 'completed'")
    for sql in (*[_ENDED.format(job_id=job_id)] * 5, *_BELONGINGS):
        await world.database.execute(Statement(sa.text(sql)))
    assert await readers_of_whole_tables(world.settings.database_url, storage, _GROWING) == set()
