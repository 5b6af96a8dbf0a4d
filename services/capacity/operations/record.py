"""What the watches saw goes into the tables: facts about nodes and about pods that hold GPUs.

Both replicas watch and both write. A fact that is older than the one in the table (by Kubernetes's resourceVersion) is
dropped, so that a replica that lags behind undoes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.capacity.domain.fleet import GpuPod, NodeFacts
from services.capacity.domain.queue_entry import Place, PlaceState
from services.capacity.operations.apply import place_of, save_place
from services.capacity.storage.nodes import (
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
from services.capacity.storage.queue import DELETE_LEASES, END_LEASE, LOCK_PLACES_ON_NODE
from shared.contracts.capacity import LeaseRevoked, NodeChanged
from shared.database import Database, Row, Transaction
from shared.messaging.outbox import Draft, Wakes, record_event

FORGET = timedelta(minutes=5)
"""After so long without a sight, a fact is replaced whatever its resourceVersion: another cluster counts anew."""
_FRESH = timedelta(minutes=1)
"""So long a sight of an unchanged node is not worth a write."""
_PUBLIC = ("gpu_type", "gpus", "ready", "schedulable")
_FACTS = (*_PUBLIC, "uid", "instance_type", "zone", "cpu_worth", "memory_worth")


class PodListing(msgspec.Struct, frozen=True, kw_only=True):
    """Every pod that holds GPUs, at one resourceVersion."""

    pods: tuple[GpuPod, ...]
    resource_version: int


async def record_nodes(
    database: Database, facts: Sequence[NodeFacts], *, complete: bool, now: datetime, relay: Wakes, placer: Wakes
) -> int:
    """Write what Kubernetes says of these nodes; how many changed. Says nothing of nodes that are not among them.

    Args:
        database: Capacity's.
        facts: One for each node.
        complete: They are a full list, so the table is now known to be up to date.
        now: Time of the sight.
        relay: Woken when an event was recorded.
        placer: Woken when something changed.
    """
    async with database.transaction() as tx:
        rows = await tx.fetch_all(LOCK_NODES, names=[fact.name for fact in facts])
        known = {row["name"]: row for row in rows}
        changed = 0
        for fact in sorted(facts, key=lambda one: one.name):
            changed += await _record_node(tx, fact, known.get(fact.name), now, relay)
        if complete:
            await tx.execute(CONFIRM_WATCH, kind="nodes", now=now)
        if changed:
            tx.after_commit(placer.wake)
    return changed


async def list_present_nodes(database: Database) -> dict[str, str]:
    """Uid of each node that is not known to be gone, by name."""
    return {row["name"]: row["uid"] for row in await database.fetch_all(PRESENT_NODES)}


async def confirm_node_gone(
    database: Database, *, name: str, uid: str, now: datetime, relay: Wakes, placer: Wakes
) -> int:
    """Take a node out and take back its leases; how many jobs lost theirs.

    Only for a node of which a live GET has said 404: never because a list lacked it or a watch broke.
    """
    async with database.transaction() as tx:
        row = await tx.fetch_one(MARK_NODE_GONE, node_name=name, uid=uid, now=now)
        if row is None:
            return 0  # the other replica was faster, or the node has joined anew
        await record_event(tx, Draft(data=_node_changed(row), version=row["version"], occurred_at=now), relay)
        places = [place_of(place) for place in await tx.fetch_all(LOCK_PLACES_ON_NODE, node=name)]
        for place in places:
            await _revoke(tx, place, f"Node {name} is gone", now, relay)
        tx.after_commit(placer.wake)
    return len(places)


async def record_pods(database: Database, pods: Sequence[GpuPod], *, now: datetime, placer: Wakes) -> None:
    """Write pods that hold GPUs."""
    async with database.transaction() as tx:
        await _upsert_pods(tx, pods, now)
        tx.after_commit(placer.wake)


async def forget_pod(database: Database, *, uid: str, resource_version: int, placer: Wakes) -> None:
    """Delete a pod that holds nothing any more; no-op when a newer fact is known."""
    async with database.transaction() as tx:
        if await tx.execute(DELETE_POD, uid=uid, version=resource_version):
            tx.after_commit(placer.wake)


async def record_pod_listing(database: Database, listing: PodListing, *, now: datetime, placer: Wakes) -> None:
    """Make the table equal to a full list: what is not in it and not newer than it is deleted."""
    async with database.transaction() as tx:
        await tx.execute(
            DELETE_MISSING_PODS,
            uids=[pod.uid for pod in listing.pods],
            version=listing.resource_version,
            forgotten_before=now - FORGET,
        )
        await _upsert_pods(tx, listing.pods, now)
        await tx.execute(CONFIRM_WATCH, kind="pods", now=now)
        tx.after_commit(placer.wake)


async def _record_node(tx: Transaction, fact: NodeFacts, known: Row | None, now: datetime, relay: Wakes) -> bool:
    columns = msgspec.structs.asdict(fact) | {"seen_at": now}
    if known is None:
        if not fact.relevant or not await tx.execute(INSERT_NODE, **columns):
            return False
        await record_event(tx, Draft(data=_node_changed(columns), version=1, occurred_at=now), relay)
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
        change = _node_changed(columns | {"name": name})
        await record_event(tx, Draft(data=change, version=version, occurred_at=now), relay)
    return changed


def _newer(fact: NodeFacts, known: Row, now: datetime) -> bool:
    if now - known["seen_at"] >= FORGET:
        return True
    if fact.uid == known["uid"]:
        # a uid is one life of a node: once gone, whatever a lagging watch still tells of it is past
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


async def _revoke(tx: Transaction, place: Place, reason: str, now: datetime, relay: Wakes) -> None:
    await save_place(tx, msgspec.structs.replace(place, state=PlaceState.REVOKED, node=None))
    await tx.execute(DELETE_LEASES, job_id=place.job_id)
    version = await tx.fetch_value(END_LEASE, the_job_id=place.job_id)
    revoked = LeaseRevoked(job_id=place.job_id, epoch=place.epoch, reason=reason)
    await record_event(tx, Draft(data=revoked, version=version, occurred_at=now), relay)


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
            cpu_worths=[pod.cpu_worth for pod in pods],
            memory_worths=[pod.memory_worth for pod in pods],
        )
