"""News for those who wait: position, estimate and reason; and what is free, when it has changed."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.capacity.domain.availability import TypeAvailability, count_availability
from services.capacity.domain.estimates import MOST_JOBS, Estimate, Facts, estimate_each, estimate_starts
from services.capacity.domain.placement import Hold, Terms, Waiting
from services.capacity.domain.reasons import BEHIND, NEAR, QUIET, reasons
from services.capacity.operations.read import (
    read_corrections,
    read_leases,
    read_line_with_unready,
    read_nodes,
    read_runs,
    read_snapshot,
)
from services.capacity.storage.announcements import ANNOUNCE, ANNOUNCED, TELL
from services.capacity.storage.leases import TRY_TELLER_LOCK
from services.capacity.storage.snapshot import FOLD_COUNTS
from shared.contracts.capacity import AvailabilityChanged, JobQueued
from shared.database import Database, Row, Transaction
from shared.messaging.outbox import Draft, Wakes, record_event, record_events

MOST_NOTICES = 500
"""In one round, so that its transaction stays short."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What those who wait are told from."""

    facts: Facts
    line: list[Waiting]
    """The beginning of each type's line."""

    def estimates(self, now: datetime, terms: Terms) -> dict[UUID, Estimate | None]:
        """The start of each job of the line."""
        return estimate_starts(self.facts, self.line, now=now, terms=terms)

    def estimate_sizes(self, choices: Sequence[Waiting], now: datetime, terms: Terms) -> dict[int, Estimate | None]:
        """By number of GPUs, when one job of the line would start with it; nothing when too many are ahead.

        Args:
            choices: The job with each number of GPUs.
            now: Time of the estimate.
            terms: The operators'.
        """
        job = choices[0]
        if all(other.job_id != job.job_id for other in self.line):
            return {}
        ahead = [other for other in self.line if other.gpu_type == job.gpu_type and other.order < job.order]
        found = estimate_each(self.facts, ahead, choices, now=now, terms=terms)
        return {choice.gpu_count: estimate for choice, estimate in zip(choices, found, strict=True)}

    def holds(self, now: datetime, terms: Terms) -> list[Hold]:
        """What runs, as the placer sees it."""
        return [lease.hold(now, terms) for lease in self.facts.leases]

    def reasons(self, now: datetime, terms: Terms) -> dict[UUID, str]:
        """Why each waits."""
        return reasons(self.facts.nodes, self.line, self.holds(now, terms), terms)


async def read_outlook(tx: Transaction) -> Outlook:
    """Everything that those who wait are told from."""
    facts = Facts(
        nodes=await read_nodes(tx),
        leases=await read_leases(tx),
        runs=await read_runs(tx),
        corrections=await read_corrections(tx),
    )
    return Outlook(facts=facts, line=await read_line_with_unready(tx, depth=MOST_JOBS))


async def tell_line(database: Database, *, now: datetime, relay: Wakes, terms: Terms) -> bool:
    """Tell waiting jobs what has changed for them, and everybody what is free; whether there was more to tell.

    The estimates are made between two transactions and beside the event loop: they may take a while on a large
    cluster, and are as old then as the facts that they were made from. Positions are counted when they are written.
    """
    async with database.transaction() as tx:
        outlook = await read_outlook(tx)
    estimates = await asyncio.to_thread(outlook.estimates, now, terms)
    why = outlook.reasons(now, terms)
    async with database.transaction() as tx:
        if not await tx.fetch_value(TRY_TELLER_LOCK):
            return False
        told = await _tell(tx, estimates, why, now, relay)
        await tx.execute(FOLD_COUNTS)
        await _tell_availability(tx, now, relay)
    return told == MOST_NOTICES


async def _tell(
    tx: Transaction, estimates: dict[UUID, Estimate | None], why: dict[UUID, str], now: datetime, relay: Wakes
) -> int:
    jobs = list(why)
    known = [estimates.get(job_id) for job_id in jobs]
    rows = await tx.fetch_all(
        TELL,
        job_ids=jobs,
        p50s=[estimate and estimate.p50 for estimate in known],
        p90s=[estimate and estimate.p90 for estimate in known],
        reasons=[why[job_id] for job_id in jobs],
        behind=BEHIND,
        now=now,
        quiet=QUIET.total_seconds(),
        near=float(NEAR),
        most=MOST_NOTICES,
    )
    await record_events(tx, _notices(rows, now), relay)
    return len(rows)


def _notices(rows: Sequence[Row], now: datetime) -> list[Draft]:
    names = ("job_id", "gpu_type", "position", "estimated_start_at", "estimated_start_p90_at", "reason")
    ordered = sorted(rows, key=lambda row: (row["gpu_type"], row["position"]))
    return [
        Draft(data=JobQueued(**{name: row[name] for name in names}), version=row["version"], occurred_at=now)
        for row in ordered
    ]


async def _tell_availability(tx: Transaction, now: datetime, relay: Wakes) -> None:
    known = {row["gpu_type"]: row for row in await tx.fetch_all(ANNOUNCED)}
    entries = {entry.gpu_type: _numbers(entry) for entry in count_availability(await read_snapshot(tx))}
    # a type without nodes and jobs is told of once more: nothing of it is left
    for gpu_type in sorted(entries.keys() | known.keys()):
        numbers = entries.get(gpu_type, _NOTHING)
        row = known.get(gpu_type)
        if row is not None and (now - row["told_at"] < QUIET or all(row[k] == v for k, v in numbers.items())):
            continue
        version = await tx.fetch_value(ANNOUNCE, gpu_type=gpu_type, told_at=now, **numbers)
        changed = AvailabilityChanged(gpu_type=gpu_type, **numbers)
        await record_event(tx, Draft(data=changed, version=version, occurred_at=now), relay)


_NOTHING = {"total": 0, "available": 0, "in_use": 0, "queued": 0}


def _numbers(entry: TypeAvailability) -> dict[str, int]:
    return {name: getattr(entry, name) for name in _NOTHING}
