"""Statements about the listings of what is on disks."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.disks.storage.tables import contents
from shared.database import Statement

_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)
_NEW = {
    "job_id": sa.bindparam("job_id", type_=sa.Uuid),
    "epoch": sa.bindparam("epoch", type_=sa.BigInteger),
    "taken_at": sa.bindparam("taken_at", type_=sa.DateTime(timezone=True)),
    "listing": sa.bindparam("listing", type_=JSONB),
    "missed_job_id": None,
}

STORE = Statement(
    insert(contents)
    .values(disk_id=_DISK_ID, **_NEW)
    .on_conflict_do_update(
        index_elements=[contents.c.disk_id],
        set_=_NEW,
        where=sa.or_(
            contents.c.job_id.is_distinct_from(_NEW["job_id"]),
            contents.c.epoch < _NEW["epoch"],
            sa.and_(contents.c.epoch == _NEW["epoch"], contents.c.taken_at <= _NEW["taken_at"]),
        ),
    )
)
"""Affects no row when a newer listing of the same job is there."""

MISS = Statement(
    insert(contents)
    .values(disk_id=_DISK_ID, missed_job_id=_NEW["job_id"])
    .on_conflict_do_update(
        index_elements=[contents.c.disk_id],
        set_={"missed_job_id": _NEW["job_id"]},
        where=contents.c.job_id.is_distinct_from(_NEW["job_id"]),
    )
)
"""The job has ended; unless its listing is there, there is none of it."""

READ = Statement(sa.select(contents).where(contents.c.disk_id == _DISK_ID))
