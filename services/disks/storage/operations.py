"""Statements about operations: the requests of users, and the work that workers lease."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from services.disks.domain.operation import OPERATION_TABLE, Action, OperationEvent, OperationStatus
from services.disks.storage.conditions import BEFORE, LIMIT, NOW, still_open
from services.disks.storage.tables import disks, operations, snapshots
from shared.database import Statement, in_states, word
from shared.database.purge import delete_some

_ID = sa.bindparam("operation_id", type_=sa.Uuid)
_UNTIL = sa.bindparam("worked_until", type_=sa.DateTime(timezone=True))
_DISK_ID = sa.bindparam("disk_id", type_=sa.Uuid)

INSERT = Statement(
    sa.insert(operations).values(
        **{name: sa.bindparam(name) for name in ("id", "disk_id", "disk_name", "action", "job_id", "status")},
        new_name=sa.bindparam("new_name", type_=sa.Text),
        traceparent=sa.bindparam("traceparent", type_=sa.Text),
        worked_until=_UNTIL,
        lease=sa.bindparam("lease", type_=sa.BigInteger),
        created_at=NOW,
        updated_at=NOW,
    )
)

_NAME = sa.bindparam("name", type_=sa.Text)
_others = operations.alias("others")
FIND = Statement(
    sa.select(operations, disks.c.deleted_at, disks.c.delete_date)
    .join(disks, disks.c.id == operations.c.disk_id)
    .where(
        operations.c.id == _ID,
        disks.c.user_id == sa.bindparam("user_id"),
        sa.or_(
            disks.c.name == _NAME,
            sa.exists().where(
                _others.c.disk_id == disks.c.id, sa.or_(_others.c.disk_name == _NAME, _others.c.new_name == _NAME)
            ),
        ),
    )
)
"""By any name that the disk has or had, as far back as its operations are remembered."""

_source = snapshots.alias("source")
_due = (
    sa.select(operations.c.id)
    .where(still_open, operations.c.worked_until <= NOW)
    .order_by(operations.c.worked_until)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
)


def _move(event: OperationEvent, *conditions: sa.ColumnElement[bool]) -> sa.Update:
    transition = OPERATION_TABLE[event]
    return (
        sa.update(operations)
        .where(*conditions, in_states(operations.c.status, transition.sources))
        .values(status=transition.target)
    )


def _lease(condition: sa.ColumnElement[bool]) -> Statement:
    return Statement(
        _move(OperationEvent.LEASED, disks.c.id == operations.c.disk_id, condition)
        .values(
            worked_until=_UNTIL,
            lease=operations.c.lease + 1,
            updated_at=sa.case(
                (operations.c.status == word(OperationStatus.QUEUED), NOW), else_=operations.c.updated_at
            ),
        )
        .returning(
            operations.c.id,
            operations.c.disk_id,
            operations.c.disk_name,
            operations.c.action,
            operations.c.job_id,
            operations.c.lease,
            operations.c.failures,
            operations.c.created_at,
            operations.c.traceparent,
            disks.c.user_id,
            disks.c.size_gb,
            disks.c.availability_zone,
            disks.c.volume_id,
            disks.c.name.label("name_now"),
            sa.select(_source.c.snapshot_id)
            .where(_source.c.id == disks.c.source_snapshot)
            .scalar_subquery()
            .label("source_snapshot_id"),
        )
    )


LEASE = _lease(operations.c.id.in_(_due))
LEASE_ONE = _lease(sa.and_(operations.c.id == _ID, operations.c.worked_until <= NOW))

_held = (operations.c.id == _ID, operations.c.lease == sa.bindparam("held_lease", type_=sa.BigInteger))
POSTPONE = Statement(
    _move(OperationEvent.POSTPONED, *_held).values(
        worked_until=_UNTIL, failures=sa.bindparam("failures", type_=sa.Integer)
    )
)
COMPLETE = Statement(_move(OperationEvent.DONE, *_held).values(updated_at=NOW))
"""Affects no row when the lease was lost or another worker was first."""
FAIL = Statement(
    _move(OperationEvent.REFUSED, *_held).values(error=sa.bindparam("error", type_=sa.Text), updated_at=NOW)
)
"""Likewise."""

LOCK_HELD = Statement(
    sa.select(operations.c.id).where(*_held, operations.c.status == word(OperationStatus.RUNNING)).with_for_update()
)
"""The operation, if it is still this worker's."""

REPORT = Statement(
    sa.update(operations).where(operations.c.id == _ID).values(report=sa.bindparam("report", type_=JSONB))
)
READ = Statement(sa.select(operations).where(operations.c.id == _ID))

_tagging = operations.c.action.in_([word(Action.RENAME), word(Action.TAG)])
SUPERSEDE_TAGGING = Statement(
    _move(OperationEvent.SUPERSEDED, operations.c.disk_id == _DISK_ID, _tagging)
    .values(updated_at=NOW)
    .returning(operations.c.worked_until, operations.c.lease)
)
"""A newer rename does what the older ones had left to do; their workers are refused from here on."""

HAS_OPEN = Statement(
    sa.select(
        sa.exists().where(
            operations.c.disk_id == _DISK_ID,
            operations.c.action.in_([sa.bindparam("action", type_=sa.Text), sa.bindparam("or_action", type_=sa.Text)]),
            still_open,
        )
    )
)

FORGET = delete_some(operations, sa.and_(~still_open, operations.c.updated_at < BEFORE))
