"""Statements about claims."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.disks.domain.claim import CLAIM_TABLE, HOLDING, ClaimEvent, ClaimState
from services.disks.storage.conditions import BEFORE, NOW, alive, holding
from services.disks.storage.tables import claims, disks
from shared.database import Statement, in_states, word
from shared.database.purge import delete_some


def _take(event: ClaimEvent) -> Statement:
    """Take a free disk that is there, or take it again."""
    transition = CLAIM_TABLE[event]
    return Statement(
        insert(claims)
        .from_select(
            ["job_id", "disk_id", "user_id", "state", "expires_at", "created_at", "updated_at"],
            sa.select(
                sa.bindparam("job_id", type_=sa.Uuid),
                disks.c.id,
                disks.c.user_id,
                word(transition.target),
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
                in_states(claims.c.state, transition.sources),
            ),
        )
    )


TAKE_PROVISIONALLY = _take(ClaimEvent.ASKED)
"""Affects no row when the disk or the job's own state forbids it."""
TAKE_LATE = _take(ClaimEvent.SUBMITTED_LATE)
"""Likewise."""


def _move(event: ClaimEvent, *conditions: sa.ColumnElement[bool]) -> sa.Update:
    transition = CLAIM_TABLE[event]
    return (
        sa.update(claims)
        .where(*conditions, in_states(claims.c.state, transition.sources))
        .values(state=transition.target, updated_at=NOW)
    )


_of_job = claims.c.job_id == sa.bindparam("job_id")
_of_disk = claims.c.disk_id == sa.bindparam("disk_id")

FIND = Statement(sa.select(claims.c.disk_id, claims.c.state, claims.c.user_id).where(_of_job))
CONFIRM = Statement(_move(ClaimEvent.SUBMITTED, _of_job, _of_disk))
RELEASE = Statement(_move(ClaimEvent.ENDED, _of_job).returning(claims.c.disk_id))
CLOSE_DROPPED = Statement(_move(ClaimEvent.ENDED_WITHOUT, _of_job))
DROP_OF_DISK = Statement(_move(ClaimEvent.DISK_FAILED, _of_disk).returning(claims.c.job_id))
DROP_EXPIRED = Statement(_move(ClaimEvent.EXPIRED, claims.c.expires_at <= NOW))

ANNOUNCE = Statement(
    sa.update(claims)
    .where(_of_disk, claims.c.state == word(ClaimState.CONFIRMED), claims.c.announced_at.is_(None))
    .values(announced_at=NOW, updated_at=NOW)
    .returning(claims.c.job_id)
)
"""The job to which the disk is to be announced, once."""

FORGET = delete_some(
    claims,
    sa.and_(
        in_states(claims.c.state, [state for state in ClaimState if state not in HOLDING]),
        claims.c.updated_at < BEFORE,
    ),
)
