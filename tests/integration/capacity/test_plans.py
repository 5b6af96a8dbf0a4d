"""What capacity asks PostgreSQL stays as cheap as it is however many entries have ended."""

import sqlalchemy as sa

from services.capacity import storage
from shared.database import Statement
from tests.support.capacity import NOW, Capacity
from tests.support.plans import readers_of_whole_tables

_ENDED = (
    "INSERT INTO places SELECT (jsonb_populate_record(one, jsonb_build_object('job_id', gen_random_uuid(), "
    "'user_id', number % 50, 'state', 'ended', 'ended_at', now() - number * interval '1 minute'))).* "
    "FROM places AS one, generate_series(1, 5000) AS number WHERE state = 'waiting'"
)
_LEASED = "INSERT INTO leases SELECT 'n1', 0, job_id, 1, now() FROM places WHERE state = 'waiting'"


async def test_no_statement_reads_all_entries_that_have_ended(capacity: Capacity) -> None:
    await capacity.submit(4, at=NOW)
    for sql in (_ENDED, _LEASED, "ANALYZE places", "ANALYZE leases"):
        await capacity.database.execute(Statement(sa.text(sql)))
    assert await readers_of_whole_tables(capacity.dsn, storage, ["places"]) == set()
