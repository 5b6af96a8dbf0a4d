"""Statements about snapshots."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.disks.domain.disk import DiskState
from services.disks.domain.snapshot import SNAPSHOT_TABLE, SnapshotEvent, SnapshotState
from services.disks.storage.conditions import BEFORE, NOW
from services.disks.storage.pages import page_and_total
from services.disks.storage.tables import disks, snapshots
from shared.database import Statement, in_states, word
from shared.database.purge import delete_some

_ID = sa.bindparam("id", type_=sa.Uuid)
_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)
_AWS_ID = sa.bindparam("aws_id", type_=sa.Text)
_FIELDS = (
    "id",
    "disk_id",
    "snapshot_id",
    "job_id",
    "size_gb",
    "status",
    "name_tag",
    "created_at",
    "completed_at",
)
_made = disks.alias("made")
_is_being_restored_from = sa.exists().where(
    _made.c.source_snapshot == snapshots.c.id, _made.c.state == word(DiskState.CREATING)
)

INSERT = Statement(
    insert(snapshots).values(**{name: sa.bindparam(name) for name in _FIELDS}, updated_at=NOW).on_conflict_do_nothing()
)
"""Affects no row when it has one already."""
READ = Statement(sa.select(snapshots).where(snapshots.c.id == _ID))

_shown = snapshots.c.status.in_(
    [word(SnapshotState.PENDING), word(SnapshotState.COMPLETED), word(SnapshotState.FAILED)]
)
LIST = page_and_total(snapshots, sa.and_(snapshots.c.disk_id == _DISK_ID, _shown))

FIND_OWN = Statement(
    sa.select(snapshots)
    .join(disks, disks.c.id == snapshots.c.disk_id)
    .where(
        disks.c.user_id == sa.bindparam("user_id", type_=sa.BigInteger),
        disks.c.state == word(DiskState.AVAILABLE),
        _shown,
        sa.or_(snapshots.c.id == _ID, snapshots.c.snapshot_id == _AWS_ID),
    )
)
"""A user's snapshot by our id or AWS's."""

ASKED = Statement(
    sa.update(snapshots)
    .where(snapshots.c.id == _ID)
    .values(asked_at=sa.bindparam("asked_at", type_=sa.DateTime(timezone=True)))
)


def _move(event: SnapshotEvent, *conditions: sa.ColumnElement[bool], **values: object) -> Statement:
    transition = SNAPSHOT_TABLE[event]
    return Statement(
        sa.update(snapshots)
        .where(*conditions, in_states(snapshots.c.status, transition.sources))
        .values(status=transition.target, updated_at=NOW, **values)
    )


_one = snapshots.c.id == _ID
BIND = _move(SnapshotEvent.BOUND, _one, snapshot_id=_AWS_ID, name_tag=sa.bindparam("name_tag", type_=sa.Text))
COMPLETE = _move(SnapshotEvent.COMPLETED, _one, completed_at=NOW)
FAIL = _move(SnapshotEvent.REFUSED, _one, error=sa.bindparam("error", type_=sa.Text))
SET_DELETED = _move(SnapshotEvent.REMOVED, _one)
SET_DELETING = _move(
    SnapshotEvent.LET_GO,
    snapshots.c.id == sa.any_(sa.bindparam("ids", type_=sa.ARRAY(sa.Uuid))),
    ~_is_being_restored_from,
)
"""Run under the lock of the disk, which whoever restores from them takes too."""
SET_ALL_DELETING = _move(SnapshotEvent.LET_GO, snapshots.c.disk_id == _DISK_ID)
OF_DISK = Statement(
    sa.select(snapshots)
    .where(snapshots.c.disk_id == _DISK_ID, snapshots.c.status == sa.bindparam("status", type_=sa.Text))
    .order_by(snapshots.c.created_at, snapshots.c.id)
)

_tagged = sa.and_(
    snapshots.c.disk_id == _DISK_ID,
    snapshots.c.snapshot_id.is_not(None),
    snapshots.c.status.in_([word(SnapshotState.PENDING), word(SnapshotState.COMPLETED)]),
)
STALE_TAGS = Statement(
    sa.select(snapshots.c.snapshot_id)
    .where(_tagged, snapshots.c.name_tag.is_distinct_from(sa.bindparam("name", type_=sa.Text)))
    .order_by(snapshots.c.created_at, snapshots.c.id)
)
COUNT_TAGGED = Statement(sa.select(sa.func.count()).select_from(snapshots).where(_tagged))
SET_NAME_TAGS = Statement(
    sa.update(snapshots)
    .where(snapshots.c.snapshot_id == sa.any_(sa.bindparam("aws_ids", type_=sa.ARRAY(sa.Text))))
    .values(name_tag=sa.bindparam("name_tag", type_=sa.Text))
)

CROWDED = Statement(
    sa.select(snapshots.c.disk_id)
    .join(disks, disks.c.id == snapshots.c.disk_id)
    .where(
        snapshots.c.status == word(SnapshotState.COMPLETED),
        disks.c.state == word(DiskState.AVAILABLE),
        disks.c.deleted_at.is_(None),
    )
    .group_by(snapshots.c.disk_id)
    .having(sa.func.count() > sa.bindparam("newest", type_=sa.BigInteger))
)
"""Disks that may have more snapshots than are kept."""

FORGET = delete_some(
    snapshots,
    sa.and_(
        snapshots.c.status.in_([word(SnapshotState.FAILED), word(SnapshotState.DELETED)]),
        snapshots.c.updated_at < BEFORE,
    ),
)
