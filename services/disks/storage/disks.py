"""Statements about disks."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.disks.domain.disk import DiskState
from services.disks.storage.conditions import BEFORE, LIMIT, NOW, alive, facts, known
from services.disks.storage.pages import page_and_total
from services.disks.storage.tables import disks, operations, snapshots
from shared.database import Statement, word
from shared.database.locks import wait_for_user_lock
from shared.database.purge import delete_some

_USER_ID = sa.bindparam("user_id", type_=sa.BigInteger)
_NAME = sa.bindparam("name", type_=sa.Text)
_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)
_FIELDS = (
    "id",
    "user_id",
    "username",
    "name",
    "size_gb",
    "availability_zone",
    "state",
    "version",
    "source_snapshot",
)

INSERT = Statement(
    insert(disks)
    .values(**{name: sa.bindparam(name) for name in _FIELDS}, created_at=NOW, updated_at=NOW)
    .on_conflict_do_nothing()
)
"""Affects no row when the name is taken."""

LOCK_NAMES = wait_for_user_lock("disk")
"""The user's names and limits are this transaction's alone; taken before any row of theirs."""

USAGE = Statement(
    sa.select(
        sa.func.count().label("disks"),
        sa.cast(sa.func.coalesce(sa.func.sum(disks.c.size_gb), 0), sa.BigInteger).label("gb"),
    ).where(disks.c.user_id == _USER_ID, alive)
)

_listed = sa.and_(
    disks.c.user_id == _USER_ID,
    known,
    sa.or_(disks.c.deleted_at.is_(None), sa.bindparam("include_deleted", type_=sa.Boolean)),
)
LIST = page_and_total(disks, _listed, *facts)

_named = sa.and_(disks.c.user_id == _USER_ID, disks.c.name == _NAME, known)
_newest_first = (disks.c.deleted_at.is_not(None), disks.c.deleted_at.desc(), disks.c.created_at.desc(), disks.c.id)

FIND = Statement(sa.select(disks, *facts).where(_named).order_by(*_newest_first).limit(1))
"""The one that is not deleted, else the one deleted last."""

LOCK_NAMED = Statement(sa.select(disks.c.id).where(_named).order_by(*_newest_first).limit(1).with_for_update())
"""The same, locked."""

LOCK_ALIVE = Statement(
    sa.select(disks.c.id).where(disks.c.user_id == _USER_ID, disks.c.name == _NAME, alive).with_for_update()
)
LOCK = Statement(sa.select(disks.c.id).where(disks.c.id == _DISK_ID).with_for_update())
READ = Statement(sa.select(disks, *facts).where(disks.c.id == _DISK_ID))
"""Run after the lock, as a statement of its own: only then it sees what the lock waited for."""

NAME_IS_TAKEN = Statement(sa.select(sa.exists().where(disks.c.user_id == _USER_ID, disks.c.name == _NAME, alive)))
HAS_DELETED = Statement(
    sa.select(
        sa.exists().where(
            disks.c.user_id == _USER_ID,
            disks.c.name == _NAME,
            disks.c.deleted_at.is_not(None),
            disks.c.state == word(DiskState.AVAILABLE),
        )
    )
)


WRITTEN = (
    "state",
    "name",
    "availability_zone",
    "volume_id",
    "name_tag",
    "last_used",
    "deleted_at",
    "delete_date",
    "purge_at",
    "version",
)
"""What the table of phases and facts changes."""
WRITE = Statement(
    sa.update(disks)
    .where(disks.c.id == _DISK_ID, disks.c.version == sa.bindparam("held_version", type_=sa.BigInteger))
    .values(**{name: sa.bindparam(f"new_{name}", type_=disks.c[name].type) for name in WRITTEN}, updated_at=NOW)
)
"""Run under the lock, so that it always affects its row."""
SET_NAME_TAG = Statement(
    sa.update(disks).where(disks.c.id == _DISK_ID).values(name_tag=sa.bindparam("name_tag", type_=sa.Text))
)

DUE_PURGES = Statement(
    sa.select(disks.c.id)
    .where(disks.c.state == word(DiskState.AVAILABLE), disks.c.purge_at <= NOW)
    .order_by(disks.c.purge_at)
    .limit(LIMIT)
)
_made = disks.alias("made")
IS_SOURCE = Statement(
    sa.select(
        sa.exists().where(
            snapshots.c.disk_id == _DISK_ID,
            snapshots.c.id == _made.c.source_snapshot,
            _made.c.state == word(DiskState.CREATING),
        )
    )
)
"""Whether a disk is just being made from one of its snapshots; whoever begins that takes the lock of this one."""

FORGET_FAILED = delete_some(disks, sa.and_(disks.c.state == word(DiskState.FAILED), disks.c.updated_at < BEFORE))
FORGET_PURGED = delete_some(
    disks,
    sa.and_(
        disks.c.state == word(DiskState.PURGED),
        disks.c.updated_at < BEFORE,
        ~sa.exists().where(operations.c.disk_id == disks.c.id),
    ),
)
"""When the last of its operations has been forgotten."""
