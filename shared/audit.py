"""The audit: who did what to what, from where. An entry is written in the transaction of its change.

What a request does is known as soon as it is known who asks; it is kept beside the request, so that no operation has to
hand it on. What it was done to the operation says.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from shared.contracts.audit import AuditEntry, AuditObject, AuditQuery, AuditReply
from shared.database import Database, Executor, Statement, to_struct
from shared.database.purge import delete_some, purge
from shared.database.rows import by_column, given_rows
from shared.database.tables import audit
from shared.request_context import current_request_id

KEPT = timedelta(days=366)
_WRITTEN = {column.name: column.type for column in audit.c if column.name != "id"}
_given = given_rows("given", _WRITTEN)
_INSERT = Statement(sa.insert(audit).from_select(list(_WRITTEN), sa.select(*(_given.c[name] for name in _WRITTEN))))
_PURGE = delete_some(audit, audit.c.at < sa.bindparam("before"))


def _asked(name: str, column: sa.Column[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=column.type)


_since, _until, _before = (_asked(name, audit.c.at) for name in ("since", "until", "before_at"))
_username, _action = _asked("username", audit.c.username), _asked("action", audit.c.action)
_object, _before_id = _asked("object", audit.c.object_id), _asked("before_id", audit.c.id)
_READ = Statement(
    sa.select(audit)
    .where(
        sa.or_(_since.is_(None), audit.c.at >= _since),
        sa.or_(_until.is_(None), audit.c.at < _until),
        sa.or_(_before.is_(None), sa.tuple_(audit.c.at, audit.c.id) < sa.tuple_(_before, _before_id)),
        sa.or_(_username.is_(None), audit.c.username == _username),
        sa.or_(_action.is_(None), audit.c.action == _action),
        sa.or_(_object.is_(None), audit.c.object_id == _object, audit.c.object_name == _object),
    )
    .order_by(audit.c.at.desc(), audit.c.id.desc())
    .limit(sa.bindparam("limit", type_=sa.BigInteger))
)


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a request, or a command of an administrator, is about to do."""

    action: str
    address: str | None = None
    user_id: int | None = None
    username: str | None = None
    key_prefix: str | None = None


_act: ContextVar[Act | None] = ContextVar("act", default=None)


def begin_act(act: Act) -> None:
    """From now on, in this task and those that it starts, this is what is done."""
    _act.set(act)


def current_act() -> Act | None:
    """What is done now; None: the service does something by itself, which is no entry."""
    return _act.get()


async def record_act(
    executor: Executor,
    objects: Sequence[AuditObject],
    *,
    now: datetime,
    user_id: int | None = None,
    username: str | None = None,
) -> None:
    """Write that what is done now was done to these objects.

    Args:
        executor: The transaction of the change.
        objects: An entry for each.
        now: Time of the change.
        user_id: Who turned out to do it, where the request came without a key.
        username: Likewise.
    """
    act = current_act()
    if act is None or not objects:
        return
    rows = [
        {
            "at": now,
            "action": act.action,
            "user_id": act.user_id if user_id is None else user_id,
            "username": act.username if username is None else username,
            "key_prefix": act.key_prefix,
            "address": act.address,
            "object_kind": one.kind,
            "object_id": one.id,
            "object_name": one.name,
            "request_id": current_request_id(),
        }
        for one in objects
    ]
    await executor.execute(_INSERT, **by_column(rows, _WRITTEN))


def audit_endpoint(database: Database) -> Callable[[AuditQuery], Awaitable[AuditReply]]:
    """Answers auth about a service's own entries."""

    async def read(query: AuditQuery) -> AuditReply:
        asked = msgspec.structs.asdict(query)
        before = asked.pop("before")
        rows = await database.fetch_all(
            _READ,
            **asked,
            before_at=None if before is None else before.at,
            before_id=None if before is None else before.id,
        )
        return AuditReply([to_struct(row, AuditEntry) for row in rows])

    return read


async def purge_audit(database: Database, now: datetime) -> bool:
    """Delete entries that are older than a year; True: there are more."""
    return await purge(database, _PURGE, before=now - KEPT)
