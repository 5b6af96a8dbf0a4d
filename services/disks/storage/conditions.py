"""What statements have in common: states as text, and the conditions that partial indexes are made for."""

from enum import StrEnum

import sqlalchemy as sa

from services.disks.domain.claim import ClaimState
from services.disks.domain.disk import DiskState, OperationStatus
from services.disks.domain.snapshot import SnapshotState
from services.disks.storage.tables import claims, disks, operations, snapshots


def word(state: StrEnum) -> sa.ColumnElement[str]:
    """The state as text of the statement: PostgreSQL matches no partial index with a parameter."""
    return sa.literal_column(f"'{state}'", sa.Text)


NOW = sa.bindparam("now", type_=sa.DateTime(timezone=True))
LIMIT = sa.bindparam("limit", type_=sa.BigInteger)
OFFSET = sa.bindparam("offset", type_=sa.BigInteger)
BEFORE = sa.bindparam("before", type_=sa.DateTime(timezone=True))

holding = claims.c.state.in_([word(ClaimState.PROVISIONAL), word(ClaimState.CONFIRMED)])
alive = sa.and_(disks.c.deleted_at.is_(None), disks.c.state != word(DiskState.FAILED))
known = disks.c.state.not_in([word(DiskState.FAILED), word(DiskState.PURGED)])
"""To its owner: the disk exists, deleted or not."""
still_open = operations.c.status.in_([word(OperationStatus.QUEUED), word(OperationStatus.RUNNING)])

facts = (
    sa.select(claims.c.job_id).where(claims.c.disk_id == disks.c.id, holding).scalar_subquery().label("job_id"),
    sa.exists()
    .where(snapshots.c.disk_id == disks.c.id, snapshots.c.status == word(SnapshotState.PENDING))
    .label("backing_up"),
    sa.select(sa.func.count())
    .where(snapshots.c.disk_id == disks.c.id, snapshots.c.status == word(SnapshotState.COMPLETED))
    .scalar_subquery()
    .label("snapshot_count"),
)
"""What a disk's owner sees beside its row."""
