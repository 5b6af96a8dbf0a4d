"""What statements have in common: the conditions that partial indexes are made for."""

import sqlalchemy as sa

from services.disks.domain.claim import HOLDING
from services.disks.domain.disk import DiskState
from services.disks.domain.operation import OperationStatus
from services.disks.domain.snapshot import SnapshotState
from services.disks.storage.tables import claims, disks, operations, snapshots
from shared.database import in_states, word

NOW = sa.bindparam("now", type_=sa.DateTime(timezone=True))
LIMIT = sa.bindparam("limit", type_=sa.BigInteger)
OFFSET = sa.bindparam("offset", type_=sa.BigInteger)
BEFORE = sa.bindparam("before", type_=sa.DateTime(timezone=True))

holding = in_states(claims.c.state, HOLDING)
alive = sa.and_(disks.c.deleted_at.is_(None), disks.c.state != word(DiskState.FAILED))
known = disks.c.state.not_in([word(DiskState.FAILED), word(DiskState.PURGED)])
"""To its owner: the disk exists, deleted or not."""
still_open = in_states(operations.c.status, [status for status in OperationStatus if not status.ended])

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
