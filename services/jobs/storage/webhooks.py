"""Webhooks, and the messages that they are to be sent."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.jobs.storage.tables import TIME, disabled_users, jobs, webhook_deliveries, webhooks
from shared.database import Statement, word
from shared.database.purge import delete_some
from shared.database.rows import given_rows

_COLUMNS = ("id", "user_id", "types", "job_id", "format", "sealed", "created_at")
_SHOWN = [webhooks.c[name] for name in _COLUMNS]
_OWN = sa.and_(webhooks.c.user_id == bindparam("user_id"), webhooks.c.id == bindparam("webhook_id"))
COUNT_OF_USER = Statement(
    sa.select(sa.func.count()).select_from(webhooks).where(webhooks.c.user_id == bindparam("user_id"))
)
ANY = Statement(sa.select(sa.exists(sa.select(webhooks.c.id))))
"""Whether there is one, of whomever."""
INSERT = Statement(
    sa.insert(webhooks).values({name: bindparam(name, type_=webhooks.c[name].type) for name in _COLUMNS})
)
LIST_OWN = Statement(
    sa.select(*_SHOWN).where(webhooks.c.user_id == bindparam("user_id")).order_by(webhooks.c.created_at, webhooks.c.id)
)
FIND_OWN = Statement(sa.select(*_SHOWN).where(_OWN))
DELETE_OWN = Statement(sa.delete(webhooks).where(_OWN))

GIVEN = {
    "user_ids": sa.BigInteger(),
    "job_ids": sa.Uuid(),
    "message_ids": sa.Uuid(),
    "types": sa.Text(),
    "entities": sa.Text(),
    "bodies": sa.LargeBinary(),
}
"""Columns of the messages that `RECORD` is given. One without a user is its job's owner's."""
_given = given_rows("given", GIVEN)
_owner = sa.func.coalesce(
    _given.c.user_ids, sa.select(jobs.c.user_id).where(jobs.c.id == _given.c.job_ids).scalar_subquery()
)
_disabled = sa.exists().where(disabled_users.c.user_id == webhooks.c.user_id, disabled_users.c.jobs_end_at.is_not(None))
_NEW = ("webhook_id", "message_id", "type", "entity", "body", "created_at", "due_at")
_now = bindparam("now", type_=TIME)
RECORD = Statement(
    insert(webhook_deliveries)
    .from_select(
        _NEW,
        sa.select(
            webhooks.c.id,
            _given.c.message_ids,
            _given.c.types,
            _given.c.entities,
            _given.c.bodies,
            sa.cast(_now, TIME),
            sa.cast(_now, TIME),
        )
        .select_from(
            _given.join(
                webhooks,
                sa.and_(
                    webhooks.c.user_id == _owner,
                    _given.c.types == sa.any_(webhooks.c.types),
                    sa.or_(webhooks.c.job_id.is_(None), webhooks.c.job_id == _given.c.job_ids),
                ),
            )
        )
        .where(~_disabled)
        .order_by(_given.c.turn, webhooks.c.id),
    )
    .on_conflict_do_nothing(index_elements=[webhook_deliveries.c.webhook_id, webhook_deliveries.c.message_id])
)
"""A message for each webhook that wants the event, in the order of the events; none is recorded twice."""
RECORD_TEST = Statement(
    sa.insert(webhook_deliveries).values(
        {name: bindparam(name, type_=webhook_deliveries.c[name].type) for name in _NEW}
    )
)

_earlier = webhook_deliveries.alias("earlier")
_blocked = sa.exists().where(
    _earlier.c.webhook_id == webhook_deliveries.c.webhook_id,
    _earlier.c.entity == webhook_deliveries.c.entity,
    _earlier.c.status == word("pending"),
    _earlier.c.id < webhook_deliveries.c.id,
)
DUE = sa.and_(webhook_deliveries.c.status == word("pending"), webhook_deliveries.c.due_at <= _now, ~_blocked)
_waiting = (
    sa.select(webhooks.c.id)
    .where(
        sa.or_(webhooks.c.worked_until.is_(None), webhooks.c.worked_until < sa.func.clock_timestamp()),
        sa.exists().where(webhook_deliveries.c.webhook_id == webhooks.c.id, DUE),
    )
    .order_by(webhooks.c.worked_until.asc().nulls_first())
    .limit(bindparam("limit", type_=sa.BigInteger))
    .with_for_update(skip_locked=True)
    .cte("waiting")
)
_lease_end = sa.func.clock_timestamp() + bindparam("lease", type_=sa.Interval)
CLAIM = Statement(
    sa.update(webhooks)
    .where(webhooks.c.id.in_(sa.select(_waiting.c.id)))
    .values(worked_until=_lease_end, worked_by=bindparam("worker", type_=sa.Uuid))
    .returning(*_SHOWN)
)
"""Webhooks that have a message that is due, and that nobody works on."""
_HELD = sa.and_(webhooks.c.id == bindparam("webhook_id"), webhooks.c.worked_by == bindparam("worker"))
RENEW = Statement(sa.update(webhooks).where(_HELD).values(worked_until=_lease_end).returning(webhooks.c.id))
FINISH = Statement(sa.update(webhooks).where(_HELD).values(worked_until=_lease_end, worked_by=None))
"""The lease: for how long nobody shall take it up."""
NEXT_DUE = Statement(
    sa.select(*(webhook_deliveries.c[name] for name in ("id", "message_id", "type", "body", "attempts", "created_at")))
    .where(webhook_deliveries.c.webhook_id == bindparam("webhook_id"), DUE)
    .order_by(webhook_deliveries.c.id)
    .limit(1)
)
"""The next message: of those about one job or disk the first, until it is delivered or given up."""
NOTE_ATTEMPT = Statement(
    sa.update(webhook_deliveries)
    .where(
        webhook_deliveries.c.id == bindparam("delivery_id"),
        webhook_deliveries.c.status == word("pending"),
        sa.exists().where(_HELD),
    )
    .values(
        attempts=webhook_deliveries.c.attempts + 1,
        status=bindparam("status", type_=sa.Text),
        due_at=bindparam("due_at", type_=TIME),
        last_attempt_at=_now,
        last_status=bindparam("last_status", type_=sa.Integer),
        last_error=bindparam("last_error", type_=sa.Text),
    )
)
"""No row: the webhook is another worker's, or gone."""
STATES = Statement(
    sa.select(
        webhook_deliveries.c.webhook_id,
        sa.func.count().filter(webhook_deliveries.c.status == word("pending")).label("pending"),
        sa.func.count().filter(webhook_deliveries.c.status == word("parked")).label("parked"),
        sa.func.max(webhook_deliveries.c.last_attempt_at)
        .filter(webhook_deliveries.c.status == word("delivered"))
        .label("delivered_at"),
    )
    .where(
        webhook_deliveries.c.webhook_id == sa.any_(bindparam("webhook_ids", type_=sa.ARRAY(sa.Uuid))),
    )
    .group_by(webhook_deliveries.c.webhook_id)
)
LATEST = Statement(
    sa.select(
        *(
            webhook_deliveries.c[name]
            for name in (
                "message_id",
                "type",
                "status",
                "attempts",
                "created_at",
                "due_at",
                "last_attempt_at",
                "last_status",
                "last_error",
            )
        )
    )
    .where(webhook_deliveries.c.webhook_id == bindparam("webhook_id"))
    # what nobody will try again comes first: it is what somebody has to see to
    .order_by((webhook_deliveries.c.status == word("parked")).desc(), webhook_deliveries.c.id.desc())
    .limit(bindparam("limit", type_=sa.BigInteger))
)
PURGE = delete_some(
    webhook_deliveries,
    sa.and_(
        webhook_deliveries.c.status != "pending", webhook_deliveries.c.created_at < bindparam("before", type_=TIME)
    ),
)
