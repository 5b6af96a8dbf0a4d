"""What somebody who looks at the cluster is shown: the fleet, the queue, and what could be submitted."""

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta

import msgspec

from services.capacity.context import Context
from services.capacity.domain.choices import Choice, find_choices
from services.capacity.domain.estimates import MOST_JOBS
from services.capacity.domain.fleet import Node
from services.capacity.domain.gpu_states import Holder, ShownGpu, gpus_of
from services.capacity.domain.queue_entry import ShownEntry, ShownQueue
from services.capacity.operations.read import read_nodes, read_queue_snapshot, read_snapshot
from services.capacity.storage.leases import HOLDERS
from services.capacity.storage.queue import SHOWN_QUEUE
from shared.contracts.auth import Identity
from shared.database import to_struct


class ShownFleet(msgspec.Struct, frozen=True, kw_only=True):
    nodes: list[tuple[Node, list[ShownGpu]]]
    """Those of a known GPU type that are not gone, by name."""
    as_of: datetime | None


async def show_fleet(context: Context, *, asker: Identity) -> ShownFleet:
    """Every node and GPU of one instant; whose jobs others' are is told to operators alone."""
    async with context.database.snapshot() as snapshot:
        nodes = await read_nodes(snapshot)
        rows = await snapshot.fetch_all(HOLDERS)
        as_of = (await read_snapshot(snapshot)).as_of
    holders: dict[str, list[Holder]] = defaultdict(list)
    for row in rows:
        holders[row["node"]].append(to_struct(row, Holder))
    shown = [
        (node, gpus_of(node, holders[node.name], asker=asker.user_id, sees_all=asker.is_operator)) for node in nodes
    ]
    return ShownFleet(nodes=shown, as_of=as_of)


async def show_queue(context: Context) -> list[ShownQueue]:
    """The beginning of each type's queue, as far as starts are estimated, with the estimates that were told last."""
    queues: dict[str, ShownQueue] = {}
    for row in await context.database.fetch_all(SHOWN_QUEUE, depth=MOST_JOBS):
        empty = ShownQueue(gpu_type=row["gpu_type"], jobs=row["jobs"], gpus=row["gpus"], entries=[])
        queues.setdefault(row["gpu_type"], empty).entries.append(to_struct(row, ShownEntry))
    return list(queues.values())


async def show_choices(context: Context, *, asker: Identity, duration: timedelta, now: datetime) -> list[Choice]:
    """What the asker could submit, and when it would start, from the facts of this moment."""
    async with context.database.transaction() as tx:
        snapshot = await read_queue_snapshot(tx, context.known_fleet)
    return await asyncio.to_thread(
        find_choices,
        snapshot.facts,
        snapshot.queue,
        user_id=asker.user_id,
        duration=duration,
        now=now,
        policy=context.policy,
    )
