"""Recording what the watches saw: facts about nodes, and about pods that hold GPUs.

Every replica watches, and every replica writes. A fact that is older than the one in the table, by Kubernetes's
resourceVersion, is dropped, so that a replica that lags behind undoes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.capacity.context import Context
from services.capacity.domain.fleet import GpuPod, NodeFacts
from services.capacity.domain.queue_entry import EntryState, QueueEntry
from services.capacity.operations.apply_job_events import end_leases, save_entries
from services.capacity.storage.cluster import (
    CONFIRM_WATCH,
    DELETE_MISSING_PODS,
    DELETE_POD,
    INSERT_NODE,
    LOCK_NODES,
    MARK_NODE_GONE,
    PRESENT_NODES,
    UPDATE_NODE,
    UPSERT_PODS,
)
from services.capacity.storage.queue import LOCK_ENTRIES_ON_NODE
from shared.contracts.capacity import LeaseRevoked, NodeChanged
from shared.database import Database, Row, Transaction, to_struct
from shared.messaging.outbox import Draft, record_event, record_events

FORGET = timedelta(minutes=5)
"""A fact not seen for so long is replaced whatever its resourceVersion, since a new cluster begins to count anew."""
_FRESH = timedelta(minutes=1)
"""For so long a node that has not changed is not written again."""
_PUBLIC = ("gpu_type", "gpus", "ready", "schedulable")
_FACTS = (*_PUBLIC, "uid", "instance_type", "zone", "gpus_by_cpu", "gpus_by_memory")


class PodListing(msgspec.Struct, frozen=True, kw_only=True):
    """Every pod that holds GPUs, at one resourceVersion."""

    pods: tuple[GpuPod, ...]
    resource_version: int


async def record_nodes(context: Context, facts: Sequence[NodeFacts], *, complete: bool, now: datetime) -> int:
    """Write what Kubernetes says about these nodes, and nothing about any other node; how many changed.

    Args:
        context: The service's.
        facts: One for each node.
        complete: They are a full list, so that the table is up to date now.
        now: When Kubernetes said it.
    """
    async with context.database.transaction() as tx:
        rows = await tx.fetch_all(LOCK_NODES, names=[fact.name for fact in facts])
        known = {row["name"]: row for row in rows}
        changed = 0
        for fact in sorted(facts, key=lambda one: one.name):
            changed += await _record_node(context, tx, fact, known.get(fact.name), now)
        if complete:
            await tx.execute(CONFIRM_WATCH, kind="nodes", now=now)
        if changed:
            tx.after_commit(context.scheduler.wake)
    return changed


async def list_present_nodes(database: Database) -> dict[str, str]:
    """Uid of each node that is not known to be gone, by name."""
    return {row["name"]: row["uid"] for row in await database.fetch_all(PRESENT_NODES)}


async def confirm_node_gone(context: Context, *, name: str, uid: str, now: datetime) -> int:
    """Mark a node as gone and revoke its leases; how many jobs lost theirs.

    Call it only when Kubernetes has answered a live GET with 404, and never because a list lacked the node or a watch
    broke.
    """
    async with context.database.transaction() as tx:
        row = await tx.fetch_one(MARK_NODE_GONE, node_name=name, uid=uid, now=now)
        if row is None:
            return 0  # another replica was faster, or the node has joined anew
        await record_event(tx, Draft(data=_node_changed(row), version=row["version"], occurred_at=now), context.outbox)
        entries = [to_struct(row, QueueEntry) for row in await tx.fetch_all(LOCK_ENTRIES_ON_NODE, node=name)]
        await _revoke(context, tx, entries, f"Node {name} is gone", now)
        tx.after_commit(context.scheduler.wake)
    return len(entries)


async def record_pods(context: Context, pods: Sequence[GpuPod], *, now: datetime) -> None:
    """Write what these pods hold."""
    async with context.database.transaction() as tx:
        await _upsert_pods(tx, pods, now)
        tx.after_commit(context.scheduler.wake)


async def forget_pod(context: Context, *, uid: str, resource_version: int) -> None:
    """Delete a pod that holds nothing any more, unless a newer fact about it is known."""
    async with context.database.transaction() as tx:
        if await tx.execute(DELETE_POD, uid=uid, version=resource_version):
            tx.after_commit(context.scheduler.wake)


async def record_pod_listing(context: Context, listing: PodListing, *, now: datetime) -> None:
    """Make the table equal to a full list: a pod that the list lacks is deleted, unless it is newer than the list."""
    async with context.database.transaction() as tx:
        await tx.execute(
            DELETE_MISSING_PODS,
            uids=[pod.uid for pod in listing.pods],
            version=listing.resource_version,
            forgotten_before=now - FORGET,
        )
        await _upsert_pods(tx, listing.pods, now)
        await tx.execute(CONFIRM_WATCH, kind="pods", now=now)
        tx.after_commit(context.scheduler.wake)


async def _record_node(context: Context, tx: Transaction, fact: NodeFacts, known: Row | None, now: datetime) -> bool:
    columns = msgspec.structs.asdict(fact) | {"seen_at": now}
    if known is None:
        if not fact.relevant or not await tx.execute(INSERT_NODE, **columns):
            return False
        await record_event(tx, Draft(data=_node_changed(columns), version=1, occurred_at=now), context.outbox)
        return True
    if not _newer(fact, known, now):
        return False
    public = known["gone_at"] is not None or any(columns[name] != known[name] for name in _PUBLIC)
    changed = public or any(columns[name] != known[name] for name in _FACTS)
    seen_before = fact.resource_version == known["resource_version"] and now - known["seen_at"] < _FRESH
    if seen_before and not changed:
        return False
    name = columns.pop("name")
    version = await tx.fetch_value(UPDATE_NODE, node_name=name, step=int(public), **columns)
    if public:
        event = _node_changed(columns | {"name": name})
        await record_event(tx, Draft(data=event, version=version, occurred_at=now), context.outbox)
    return changed


def _newer(fact: NodeFacts, known: Row, now: datetime) -> bool:
    if now - known["seen_at"] >= FORGET:
        return True
    if fact.uid == known["uid"]:
        # a node that joins anew has another uid: what a lagging watch still says about one that is gone is past
        return known["gone_at"] is None and bool(fact.resource_version >= known["resource_version"])
    return bool(fact.resource_version > known["resource_version"])


def _node_changed(node: Mapping[str, Any]) -> NodeChanged:
    return NodeChanged(
        node=node["name"],
        gpu_type=node["gpu_type"],
        total=node["gpus"],
        ready=node["ready"],
        schedulable=node["schedulable"],
        removed=node.get("gone_at") is not None,
    )


async def _revoke(context: Context, tx: Transaction, entries: Sequence[QueueEntry], reason: str, now: datetime) -> None:
    await save_entries(tx, [msgspec.structs.replace(entry, state=EntryState.REVOKED, node=None) for entry in entries])
    versions = await end_leases(tx, [entry.job_id for entry in entries])
    drafts = [
        Draft(
            data=LeaseRevoked(job_id=entry.job_id, epoch=entry.epoch, reason=reason),
            version=versions[entry.job_id],
            occurred_at=now,
        )
        for entry in entries
    ]
    await record_events(tx, drafts, context.outbox)


async def _upsert_pods(tx: Transaction, pods: Sequence[GpuPod], now: datetime) -> None:
    if pods:
        await tx.execute(
            UPSERT_PODS,
            now=now,
            uids=[pod.uid for pod in pods],
            resource_versions=[pod.resource_version for pod in pods],
            names=[pod.name for pod in pods],
            nodes=[pod.node for pod in pods],
            gpus=[pod.gpus for pod in pods],
            job_ids=[pod.job_id for pod in pods],
            gpus_by_cpu=[pod.gpus_by_cpu for pod in pods],
            gpus_by_memory=[pod.gpus_by_memory for pod in pods],
        )
