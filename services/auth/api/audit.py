"""Who did what."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from services.auth.domain.audit import Cursor
from services.auth.operations.audit import read_audit
from services.auth.schemas import Audit, audit_page
from shared.contracts.audit import AuditQuery
from shared.contracts.auth import Identity
from shared.errors import InvalidInput, Problem
from shared.messaging import Broker
from shared.web.errors import error_responses

_USER = "Only what the user of this name did"
_ACTION = "Only this action: an operation id of this document, or a command of `gpudev-admin` such as `disable_user`"
_OBJECT = "Only what was done to this: a job's, webhook's or user's id, a disk's name or id, a key's prefix"
_SINCE = "Only from this moment on, such as `2026-01-20T18:30:00Z`"
_UNTIL = "Only before this moment"
_BEFORE = "`next` of the page before"


class AuditController(Controller):
    path = "/v1/audit"
    tags = ["Audit"]  # noqa: RUF012 - Litestar's class attribute

    @get(operation_id="get_audit", summary="See who did what", responses=error_responses(403))
    async def audit(
        self,
        *,
        request: Request[Identity, Any, Any],
        broker: NamedDependency[Broker],
        user: FromQuery[Annotated[str | None, QueryParameter(description=_USER, max_length=64)]] = None,
        action: FromQuery[Annotated[str | None, QueryParameter(description=_ACTION, max_length=64)]] = None,
        object_: FromQuery[
            Annotated[str | None, QueryParameter(name="object", description=_OBJECT, max_length=128)]
        ] = None,
        since: FromQuery[Annotated[str | None, QueryParameter(description=_SINCE, max_length=64)]] = None,
        until: FromQuery[Annotated[str | None, QueryParameter(description=_UNTIL, max_length=64)]] = None,
        limit: FromQuery[
            Annotated[int, QueryParameter(ge=1, le=200, description="Entries in the answer, at most")]
        ] = 50,
        before: FromQuery[Annotated[str | None, QueryParameter(description=_BEFORE, max_length=64)]] = None,
    ) -> Audit:
        """For operators: every change that somebody asked for, and every SSH session, newest first, for a year.

        An entry is written in the transaction of its change. What was refused, and a repetition that changed nothing,
        is none.
        """
        query = AuditQuery(
            limit=limit,
            since=_moment("since", since),
            until=_moment("until", until),
            username=user,
            action=action,
            object=object_,
        )
        return audit_page(await read_audit(broker, request.user, query, after=_cursor(before)))


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        message = "Must be a moment with its time zone, such as 2026-01-20T18:30:00Z"
        raise InvalidInput([Problem("value_error", ("query", name), message)]) from None
    return moment


def _cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    cursor = Cursor.parse(text)
    if cursor is None:
        raise InvalidInput([Problem("value_error", ("query", "before"), "Must be the `next` of an earlier answer")])
    return cursor
