"""Statements about claims."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.disks.domain.claim import ClaimState
from services.disks.storage.conditions import BEFORE, NOW, alive, holding, word
from services.disks.storage.tables import claims, disks
from shared.database import Statement

TAKE = Statement(
    insert(claims)
    .from_select(
        ["job_id", "disk_id", "user_id", "state", "expires_at", "created_at", "updated_at"],
        sa.select(
            sa.bindparam("job_id", type_=sa.Uuid),
            disks.c.id,
            disks.c.user_id,
            sa.bindparam("state", type_=sa.Text),
            sa.bindparam("expires_at", type_=sa.DateTime(timezone=True)),
            NOW,
            NOW,
        ).where(
            disks.c.id == sa.bindparam("disk_id", type_=sa.Uuid),
            alive,
            ~sa.exists().where(
                claims.c.disk_id == disks.c.id,
                holding,
                claims.c.job_id != sa.bindparam("job_id", type_=sa.Uuid),
            ),
        ),
    )
    .on_conflict_do_update(
        index_elements=[claims.c.job_id],
        set_={
            "disk_id": sa.text("excluded.disk_id"),
            "state": sa.text("excluded.state"),
            "expires_at": sa.text("excluded.expires_at"),
            "updated_at": sa.text("excluded.updated_at"),
        },
        where=sa.and_(
            claims.c.user_id == sa.text("excluded.user_id"),
            claims.c.state.in_([word(ClaimState.PROVISIONAL), word(ClaimState.DROPPED)]),
        ),
    )
)
"""Take a free disk that is there, or take it again. Affects no row when the disk or the job's own state forbids it."""

FIND = Statement(
    sa.select(claims.c.disk_id, claims.c.state, claims.c.user_id).where(claims.c.job_id == sa.bindparam("job_id"))
)
CONFIRM = Statement(
    sa.update(claims)
    .where(
        claims.c.job_id == sa.bindparam("job_id"),
        claims.c.disk_id == sa.bindparam("disk_id"),
        claims.c.state == word(ClaimState.PROVISIONAL),
    )
    .values(state=ClaimState.CONFIRMED, updated_at=NOW)
)
ANNOUNCE = Statement(
    sa.update(claims)
    .where(
        claims.c.disk_id == sa.bindparam("disk_id"),
        claims.c.state == word(ClaimState.CONFIRMED),
        claims.c.announced_at.is_(None),
    )
    .values(announced_at=NOW, updated_at=NOW)
    .returning(claims.c.job_id)
)
"""The job that is to be told, once."""

RELEASE = Statement(
    sa.update(claims)
    .where(claims.c.job_id == sa.bindparam("job_id"), holding)
    .values(state=ClaimState.RELEASED, updated_at=NOW)
    .returning(claims.c.disk_id)
)
CLOSE_DROPPED = Statement(
    sa.update(claims)
    .where(claims.c.job_id == sa.bindparam("job_id"), claims.c.state == word(ClaimState.DROPPED))
    .values(state=ClaimState.RELEASED, updated_at=NOW)
)
DROP_OF_DISK = Statement(
    sa.update(claims)
    .where(claims.c.disk_id == sa.bindparam("disk_id"), holding)
    .values(state=ClaimState.DROPPED, updated_at=NOW)
    .returning(claims.c.job_id)
)
DROP_EXPIRED = Statement(
    sa.update(claims)
    .where(claims.c.state == word(ClaimState.PROVISIONAL), claims.c.expires_at <= NOW)
    .values(state=ClaimState.DROPPED, updated_at=NOW)
)

FORGET = Statement(
    sa.delete(claims).where(
        claims.c.state.in_([word(ClaimState.DROPPED), word(ClaimState.RELEASED)]),
        claims.c.updated_at < BEFORE,
    )
)
