"""Statements of the sweep: what AWS should hold."""

import sqlalchemy as sa

from services.disks.storage.tables import disks, snapshots
from shared.database import Statement

DISKS = Statement(
    sa.select(
        disks.c.id,
        disks.c.user_id,
        disks.c.name,
        disks.c.state,
        disks.c.volume_id,
        disks.c.name_tag,
        disks.c.updated_at,
    )
)
SNAPSHOTS = Statement(
    sa.select(
        snapshots.c.id,
        snapshots.c.disk_id,
        snapshots.c.snapshot_id,
        snapshots.c.status,
        snapshots.c.name_tag,
        snapshots.c.updated_at,
    )
)
_AWS_ID = sa.bindparam("aws_id", type_=sa.Text)
DISK_OF = Statement(
    sa.union_all(
        sa.select(disks.c.id).where(disks.c.volume_id == _AWS_ID),
        sa.select(snapshots.c.disk_id).where(snapshots.c.snapshot_id == _AWS_ID),
    )
)
"""The disk that a volume or a snapshot belongs to."""
