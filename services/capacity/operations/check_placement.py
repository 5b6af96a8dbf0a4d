"""Looking for jobs that should have been placed."""

from uuid import UUID

from services.capacity.context import Context
from services.capacity.domain.overdue import startable_heads
from services.capacity.domain.placement import gpus_by_user
from services.capacity.operations.read import is_queue_empty, read_leases, read_nodes, read_queue

_DEPTH = 50
"""Of each queue: those before the first that could start are few."""


async def find_startable(context: Context) -> list[UUID]:
    """Jobs that are first in their queue, and that GPUs are free for, in one snapshot."""
    if await is_queue_empty(context.database):
        return []
    async with context.database.transaction() as tx:
        nodes = await read_nodes(tx)
        types = sorted({node.gpu_type for node in nodes if node.placeable})
        queue = await read_queue(tx, gpu_types=types, full_users=[], depth=_DEPTH) if types else []
        if not queue:
            return []
        now = context.clock()
        users = gpus_by_user(lease.allocation(now, context.policy) for lease in await read_leases(tx))
    return startable_heads(nodes, queue, users, context.policy)
