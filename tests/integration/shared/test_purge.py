"""What is old is deleted in small bites, and nothing else."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from shared.database import Statement
from shared.database import purge as purge_module
from shared.database.purge import BITE, delete_some, purge
from shared.database.tables import inbox, outbox
from tests.support.harness import Harness

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
_FILL = Statement(
    sa.text(
        "INSERT INTO inbox (event_id, attempts, done_at, updated_at) SELECT gen_random_uuid(), 0, :at, :at "
        "FROM generate_series(1, CAST(:number AS integer))"
    ).bindparams(sa.bindparam("at", type_=sa.DateTime(timezone=True)))
)
_LOCK_ONE = Statement(sa.select(inbox.c.event_id).order_by(inbox.c.updated_at).limit(1).with_for_update())
_COUNT_INBOX = Statement(sa.select(sa.func.count()).select_from(inbox))
_COUNT_OUTBOX = Statement(sa.select(sa.func.count()).select_from(outbox))
_PUBLISHED = Statement(sa.update(outbox).values(published_at=sa.bindparam("at")))
_OLD = delete_some(inbox, inbox.c.updated_at < sa.bindparam("before"))


async def test_many_old_rows_go_and_young_ones_stay(harness: Harness) -> None:
    await harness.database.execute(_FILL, at=NOW - timedelta(days=9), number=2 * BITE + 5)
    await harness.database.execute(_FILL, at=NOW, number=3)
    assert await harness.database.execute(_OLD, before=NOW, most=BITE) == BITE
    assert not await harness.consumer().purge(NOW)
    assert await harness.database.fetch_value(_COUNT_INBOX) == 3


async def test_there_is_more_after_many_bites(harness: Harness) -> None:
    await harness.database.execute(_FILL, at=NOW - timedelta(days=9), number=21 * BITE)
    assert await purge(harness.database, _OLD, before=NOW)
    assert not await purge(harness.database, _OLD, before=NOW)
    assert await harness.database.fetch_value(_COUNT_INBOX) == 0


async def test_a_purge_of_a_slow_table_leaves_the_others_their_time(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.database.execute(_FILL, at=NOW - timedelta(days=9), number=3 * BITE)
    monkeypatch.setattr(purge_module, "_SECONDS", 0.0)
    assert await purge(harness.database, _OLD, before=NOW)
    assert await harness.database.fetch_value(_COUNT_INBOX) == 2 * BITE


async def test_a_row_that_somebody_has_is_left_for_the_next_time(harness: Harness) -> None:
    await harness.database.execute(_FILL, at=NOW - timedelta(days=9), number=3)
    async with harness.database.transaction() as transaction:
        await transaction.fetch_one(_LOCK_ONE)
        assert not await harness.consumer().purge(NOW)
        assert await harness.database.fetch_value(_COUNT_INBOX) == 1
    await harness.consumer().purge(NOW)
    assert await harness.database.fetch_value(_COUNT_INBOX) == 0


async def test_events_leave_the_outbox_after_the_stream_has_let_them_go(harness: Harness) -> None:
    for _ in range(3):
        await harness.publish(str(uuid4()))
    assert not await harness.relay.purge(NOW)
    assert await harness.database.fetch_value(_COUNT_OUTBOX) == 3, "what is not published stays"
    await harness.database.execute(_PUBLISHED, at=NOW - timedelta(days=7))
    await harness.relay.purge(NOW)
    assert await harness.database.fetch_value(_COUNT_OUTBOX) == 3
    await harness.relay.purge(NOW + timedelta(days=2))
    assert await harness.database.fetch_value(_COUNT_OUTBOX) == 0
