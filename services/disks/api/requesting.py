"""Requests about a disk that take effect later: the answer names the operation that tells how it went."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

from litestar import Response

from services.disks.context import Context
from services.disks.domain.disk import check_name
from services.disks.domain.operation import Operation
from services.disks.schemas import NAME_LOC, OperationRequested, requested
from shared.idempotency import IdempotencyKey, Outcome
from shared.web.authentication import AuthenticatedRequest
from shared.web.idempotency import idempotency_key, replayable


class Begin(Protocol):
    """Records an operation on a user's disk of this name."""

    def __call__(
        self,
        context: Context,
        /,
        *,
        user_id: int,
        name: str,
        operation_id: UUID,
        key: IdempotencyKey | None,
        now: datetime,
    ) -> Awaitable[Outcome[Operation]]:
        """The operation; a repeated request gets the first one."""


async def begin_operation(
    begin: Begin, request: AuthenticatedRequest, disk_name: str, context: Context
) -> Response[OperationRequested]:
    """The answer to a request that begins an operation and needs nothing but the disk's name."""
    outcome = await begin(
        context,
        user_id=request.user.user_id,
        name=check_name(disk_name, NAME_LOC),
        operation_id=uuid4(),
        key=await idempotency_key(request),
        now=context.clock(),
    )
    return replayable(Outcome(requested(outcome.answer), outcome.replayed))
