"""Disks whose time after deletion is over are purged, each by itself."""

from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa

from services.disks.operations.purge import begin_purges
from services.disks.settings import DisksSettings
from shared.database import Database, Statement
from tests.support.disks import disks_context, new_user_id, now

_DELETED = Statement(
    sa.text(
        "INSERT INTO disks (id, user_id, username, name, size_gb, state, version, availability_zone, volume_id, "
        "created_at, updated_at, deleted_at, delete_date, purge_at) SELECT CAST(:disk_id AS uuid), "
        "CAST(:user_id AS bigint), 'ada', 'old', 1, 'available', 1, 'us-east-1a', 'vol-' || CAST(:disk_id AS uuid), "
        "at, at, at, CAST(at AS date), CAST(:purge_at AS timestamptz) "
        "FROM (SELECT CAST(:purge_at AS timestamptz) - interval '30 days' AS at) AS deleted"
    )
)
_STATES = Statement(
    sa.text("SELECT id, state FROM disks WHERE user_id = CAST(:user_id AS bigint) ORDER BY purge_at, state")
)


async def test_a_disk_whose_purge_fails_keeps_no_other_from_its_own(
    disks_settings: DisksSettings, disks_database: Database
) -> None:
    context, user_id, first = disks_context(disks_settings, disks_database), new_user_id(), uuid4()
    for days, disk_id in ((2, first), (1, uuid4())):
        purge_at = now() - timedelta(days=days)
        await disks_database.execute(_DELETED, disk_id=disk_id, user_id=user_id, purge_at=purge_at)

    async def states() -> dict[bool, str]:
        rows = await disks_database.fetch_all(_STATES, user_id=user_id)
        return {row["id"] == first: row["state"] for row in rows}

    refused = f"ALTER TABLE operations ADD CONSTRAINT refused CHECK (disk_id <> '{first}') NOT VALID"
    await disks_database.execute(Statement(sa.text(refused)))
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await begin_purges(context, now=now())
        assert await states() == {True: "available", False: "purging"}
    finally:
        await disks_database.execute(Statement(sa.text("ALTER TABLE operations DROP CONSTRAINT refused")))
    assert await begin_purges(context, now=now()) == 1
    assert set((await states()).values()) == {"purging"}
