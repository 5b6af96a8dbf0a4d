"""The tables of the disks service, and every SQL statement that it runs.

Locks are taken in one order: the disk's row, then claims, then operations.
"""

from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.disks.domain.claim import ClaimState
from services.disks.domain.disk import DiskState, OperationStatus
from shared.database import Statement

metadata = sa.MetaData()

disks = sa.Table(
    "disks",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size_gb", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("availability_zone", sa.Text, nullable=False),
    sa.Column("volume_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("last_used", sa.DateTime(timezone=True)),
    sa.Column("deleted_at", sa.DateTime(timezone=True)),
    sa.Column("delete_date", sa.Date),
    sa.UniqueConstraint("volume_id", name="disks_volume_id"),
    # the rule itself: a name is taken by one disk that is neither deleted nor failed
    sa.Index(
        "disks_name",
        "user_id",
        "name",
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL AND state <> 'failed'"),
    ),
    sa.Index("disks_listed", "user_id", "created_at", "id"),
    sa.CheckConstraint("state IN ('creating', 'available', 'failed')", name="disks_state"),
    sa.CheckConstraint("(state = 'available') = (volume_id IS NOT NULL)", name="disks_volume"),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("disk_name", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    # the job whose claim made the disk; NULL when a user asked for it
    sa.Column("job_id", sa.Uuid),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    # the lease: nobody else works it before this moment; also the end of a rest between attempts
    sa.Column("worked_until", sa.DateTime(timezone=True), nullable=False),
    # rises with each lease: what an earlier holder brings back is refused
    sa.Column("lease", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Index("operations_disk_id", "disk_id"),
    sa.Index("operations_open", "worked_until", postgresql_where=sa.text("status IN ('queued', 'running')")),
    sa.Index("operations_updated_at", "updated_at"),
    sa.CheckConstraint("status IN ('queued', 'running', 'completed', 'failed')", name="operations_status"),
)

claims = sa.Table(
    "claims",
    metadata,
    # one disk per job
    sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("announced_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    # the rule itself: one job per disk
    sa.Index("claims_disk", "disk_id", unique=True, postgresql_where=sa.text("state IN ('provisional', 'confirmed')")),
    sa.Index("claims_expiring", "expires_at", postgresql_where=sa.text("state = 'provisional'")),
    sa.Index("claims_updated_at", "updated_at"),
    sa.CheckConstraint("state IN ('provisional', 'confirmed', 'dropped', 'released')", name="claims_state"),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    # our id, the tag on the snapshot
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("disk_id", sa.Uuid, sa.ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("snapshot_id", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("snapshot_id", name="snapshots_snapshot_id"),
    sa.Index("snapshots_disk_id", "disk_id"),
    sa.CheckConstraint("status IN ('pending', 'completed', 'failed')", name="snapshots_status"),
)


def _word(state: StrEnum) -> sa.ColumnElement[str]:
    """The state as text of the statement: PostgreSQL matches no partial index with a parameter."""
    return sa.literal_column(f"'{state}'", sa.Text)


_holding = claims.c.state.in_([_word(ClaimState.PROVISIONAL), _word(ClaimState.CONFIRMED)])
_alive = sa.and_(disks.c.deleted_at.is_(None), disks.c.state != _word(DiskState.FAILED))
_open = operations.c.status.in_([_word(OperationStatus.QUEUED), _word(OperationStatus.RUNNING)])
_NOW = sa.bindparam("now", type_=sa.DateTime(timezone=True))

_facts = (
    sa.select(claims.c.job_id).where(claims.c.disk_id == disks.c.id, _holding).scalar_subquery().label("job_id"),
    sa.exists().where(snapshots.c.disk_id == disks.c.id, snapshots.c.status == "pending").label("backing_up"),
    sa.select(sa.func.count())
    .where(snapshots.c.disk_id == disks.c.id, snapshots.c.status == "completed")
    .scalar_subquery()
    .label("snapshot_count"),
)

INSERT_DISK = Statement(
    insert(disks)
    .values(
        **{
            name: sa.bindparam(name)
            for name in ("id", "user_id", "username", "name", "size_gb", "availability_zone", "state", "version")
        },
        created_at=_NOW,
        updated_at=_NOW,
    )
    .on_conflict_do_nothing()
)
"""Affects no row when the name is taken."""

INSERT_OPERATION = Statement(
    insert(operations).values(
        **{name: sa.bindparam(name) for name in ("id", "disk_id", "disk_name", "action", "job_id", "status")},
        created_at=_NOW,
        updated_at=_NOW,
        worked_until=_NOW,
    )
)

_page = (
    sa.select(disks, *_facts)
    .where(
        disks.c.user_id == sa.bindparam("user_id"),
        disks.c.state != _word(DiskState.FAILED),
        sa.or_(disks.c.deleted_at.is_(None), sa.bindparam("include_deleted", type_=sa.Boolean)),
    )
    .order_by(disks.c.created_at.desc(), disks.c.id)
    .limit(sa.bindparam("limit", type_=sa.BigInteger))
    .offset(sa.bindparam("offset", type_=sa.BigInteger))
    .subquery("page")
)
_total = (
    sa.select(sa.func.count().label("total"))
    .select_from(disks)
    .where(
        disks.c.user_id == sa.bindparam("user_id"),
        disks.c.state != _word(DiskState.FAILED),
        sa.or_(disks.c.deleted_at.is_(None), sa.bindparam("include_deleted", type_=sa.Boolean)),
    )
    .subquery("counted")
)
LIST_DISKS = Statement(
    sa.select(_total.c.total, _page)
    .select_from(_total.outerjoin(_page, sa.true()))
    .order_by(_page.c.created_at.desc(), _page.c.id)
)
"""One page and the total of one snapshot; a single row without a disk when the page is empty."""

FIND_DISK = Statement(
    sa.select(disks, *_facts)
    .where(
        disks.c.user_id == sa.bindparam("user_id"),
        disks.c.name == sa.bindparam("name"),
        disks.c.state != _word(DiskState.FAILED),
    )
    .order_by(disks.c.deleted_at.is_not(None), disks.c.created_at.desc(), disks.c.id)
    .limit(1)
)
"""The one that is not deleted, else the newest of those that are."""

FIND_OPERATION = Statement(
    sa.select(operations, disks.c.deleted_at, disks.c.delete_date)
    .join(disks, disks.c.id == operations.c.disk_id)
    .where(
        operations.c.id == sa.bindparam("operation_id"),
        disks.c.user_id == sa.bindparam("user_id"),
        sa.or_(operations.c.disk_name == sa.bindparam("name"), disks.c.name == sa.bindparam("name")),
    )
)

LOCK_DISK_BY_NAME = Statement(
    sa.select(disks.c.id)
    .where(disks.c.user_id == sa.bindparam("user_id"), disks.c.name == sa.bindparam("name"), _alive)
    .with_for_update()
)
LOCK_DISK = Statement(sa.select(disks.c.id).where(disks.c.id == sa.bindparam("disk_id")).with_for_update())
READ_DISK = Statement(sa.select(disks, *_facts).where(disks.c.id == sa.bindparam("disk_id")))
"""Run after the lock, as a statement of its own: only then it sees what the lock waited for."""

NEXT_VERSION = Statement(
    sa.update(disks)
    .where(disks.c.id == sa.bindparam("disk_id"))
    .values(version=disks.c.version + 1, updated_at=_NOW)
    .returning(disks.c.version)
)
SET_AVAILABLE = Statement(
    sa.update(disks)
    .where(disks.c.id == sa.bindparam("disk_id"), disks.c.state == _word(DiskState.CREATING))
    .values(
        state=DiskState.AVAILABLE,
        volume_id=sa.bindparam("volume"),
        availability_zone=sa.bindparam("zone"),
        version=disks.c.version + 1,
        updated_at=_NOW,
    )
    .returning(disks.c.version)
)
SET_FAILED = Statement(
    sa.update(disks)
    .where(disks.c.id == sa.bindparam("disk_id"), disks.c.state == _word(DiskState.CREATING))
    .values(state=DiskState.FAILED, version=disks.c.version + 1, updated_at=_NOW)
    .returning(disks.c.version)
)
SET_LAST_USED = Statement(
    sa.update(disks).where(disks.c.id == sa.bindparam("disk_id")).values(last_used=_NOW, updated_at=_NOW)
)

LEASE_OPERATIONS = Statement(
    sa.update(operations)
    .where(
        disks.c.id == operations.c.disk_id,
        operations.c.id.in_(
            sa.select(operations.c.id)
            .where(_open, operations.c.worked_until <= _NOW)
            .order_by(operations.c.worked_until)
            .limit(sa.bindparam("limit", type_=sa.BigInteger))
            .with_for_update(skip_locked=True)
        ),
    )
    .values(
        worked_until=sa.bindparam("worked_until"),
        lease=operations.c.lease + 1,
        status=OperationStatus.RUNNING,
        updated_at=sa.case((operations.c.status == _word(OperationStatus.QUEUED), _NOW), else_=operations.c.updated_at),
    )
    .returning(
        operations.c.id,
        operations.c.disk_id,
        operations.c.disk_name,
        operations.c.job_id,
        operations.c.lease,
        operations.c.failures,
        disks.c.user_id,
        disks.c.size_gb,
        disks.c.availability_zone,
    )
)
_held = sa.and_(
    operations.c.id == sa.bindparam("operation_id"),
    operations.c.lease == sa.bindparam("held_lease"),
    operations.c.status == _word(OperationStatus.RUNNING),
)
POSTPONE_OPERATION = Statement(
    sa.update(operations)
    .where(_held)
    .values(worked_until=sa.bindparam("worked_until"), failures=sa.bindparam("failures"))
)
END_OPERATION = Statement(
    sa.update(operations)
    .where(_held)
    .values(status=sa.bindparam("status"), error=sa.bindparam("error"), updated_at=_NOW)
)
"""Affects no row when the lease was lost or another worker was first."""

TAKE_CLAIM = Statement(
    insert(claims)
    .from_select(
        ["job_id", "disk_id", "user_id", "state", "expires_at", "created_at", "updated_at"],
        sa.select(
            sa.bindparam("job_id", type_=sa.Uuid),
            disks.c.id,
            disks.c.user_id,
            sa.bindparam("state", type_=sa.Text),
            sa.bindparam("expires_at", type_=sa.DateTime(timezone=True)),
            _NOW,
            _NOW,
        ).where(
            disks.c.id == sa.bindparam("disk_id", type_=sa.Uuid),
            _alive,
            ~sa.exists().where(
                claims.c.disk_id == disks.c.id,
                _holding,
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
            claims.c.state.in_([_word(ClaimState.PROVISIONAL), _word(ClaimState.DROPPED)]),
        ),
    )
)
"""Take a free disk that is there, or take it again. Affects no row when the disk or the job's own state forbids it."""

FIND_CLAIM = Statement(
    sa.select(claims.c.disk_id, claims.c.state, claims.c.user_id).where(claims.c.job_id == sa.bindparam("job_id"))
)
CONFIRM_CLAIM = Statement(
    sa.update(claims)
    .where(
        claims.c.job_id == sa.bindparam("job_id"),
        claims.c.disk_id == sa.bindparam("disk_id"),
        claims.c.state == _word(ClaimState.PROVISIONAL),
    )
    .values(state=ClaimState.CONFIRMED, updated_at=_NOW)
)
ANNOUNCE_CLAIM = Statement(
    sa.update(claims)
    .where(
        claims.c.disk_id == sa.bindparam("disk_id"),
        claims.c.state == _word(ClaimState.CONFIRMED),
        claims.c.announced_at.is_(None),
    )
    .values(announced_at=_NOW, updated_at=_NOW)
    .returning(claims.c.job_id)
)
"""The job that is to be told, once."""

RELEASE_CLAIM = Statement(
    sa.update(claims)
    .where(claims.c.job_id == sa.bindparam("job_id"), _holding)
    .values(state=ClaimState.RELEASED, updated_at=_NOW)
    .returning(claims.c.disk_id)
)
CLOSE_DROPPED_CLAIM = Statement(
    sa.update(claims)
    .where(claims.c.job_id == sa.bindparam("job_id"), claims.c.state == _word(ClaimState.DROPPED))
    .values(state=ClaimState.RELEASED, updated_at=_NOW)
)
DROP_CLAIM_OF_DISK = Statement(
    sa.update(claims)
    .where(claims.c.disk_id == sa.bindparam("disk_id"), _holding)
    .values(state=ClaimState.DROPPED, updated_at=_NOW)
    .returning(claims.c.job_id)
)
DROP_EXPIRED_CLAIMS = Statement(
    sa.update(claims)
    .where(claims.c.state == _word(ClaimState.PROVISIONAL), claims.c.expires_at <= _NOW)
    .values(state=ClaimState.DROPPED, updated_at=_NOW)
)

PURGE_CLAIMS = Statement(
    sa.delete(claims).where(
        claims.c.state.in_([_word(ClaimState.DROPPED), _word(ClaimState.RELEASED)]),
        claims.c.updated_at < sa.bindparam("before"),
    )
)
PURGE_OPERATIONS = Statement(sa.delete(operations).where(~_open, operations.c.updated_at < sa.bindparam("before")))
PURGE_FAILED_DISKS = Statement(
    sa.delete(disks).where(disks.c.state == _word(DiskState.FAILED), disks.c.updated_at < sa.bindparam("before"))
)
