"""What operators ask about who did what."""

import asyncio

from msgspec.structs import replace

from services.auth.domain.audit import AuditPage, Cursor, merge
from shared.contracts.audit import AuditQuery, AuditReply, audit_subject
from shared.contracts.auth import Identity
from shared.messaging import Broker, call_rpc
from shared.operators import check_operator
from shared.routes import SERVICES

_SECONDS = 5.0


async def read_audit(broker: Broker, asker: Identity, query: AuditQuery, *, after: Cursor | None) -> AuditPage:
    """A page of the entries of all services, each of which is asked for its own.

    Args:
        broker: By which they are asked.
        asker: Who wants to know.
        query: Which entries; `before` is filled in here.
        after: The cursor of the page before; None: the newest.

    Raises:
        OperatorsOnly: The asker is none.
        Unavailable: A service does not answer: a page that lacks its entries would not be the truth.
    """
    check_operator(asker, "read the audit")

    async def ask(service: str) -> AuditReply:
        before = None if after is None else after.position_in(service)
        asked = replace(query, before=before, limit=query.limit + 1)
        return await call_rpc(broker, audit_subject(service), asked, AuditReply, timeout_seconds=_SECONDS)

    replies = await asyncio.gather(*map(ask, SERVICES))
    return merge({service: reply.entries for service, reply in zip(SERVICES, replies, strict=True)}, query.limit)
