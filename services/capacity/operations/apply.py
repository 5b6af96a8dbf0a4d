"""Following the jobs service: each of its events changes the job's place."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.capacity.domain.queue_entry import Place, PlaceState, follow, gives_back
from services.capacity.storage.queue import (
    CREATE_PLACE,
    DELETE_LEASES,
    END_LEASE,
    LOCK_PLACE,
    PLACE_COLUMNS,
    PLACED,
    RECORD_RUN,
    SAVE_PLACE,
)
from shared.contracts.capacity import LeaseReleased
from shared.contracts.jobs import JobEvent
from shared.database import Database, Row, Transaction
from shared.messaging.outbox import Draft, Wakes, record_event


async def follow_job(
    tx: Transaction, event: JobEvent, *, sequence: int, now: datetime, relay: Wakes, placer: Wakes
) -> Place:
    """Take one event of a job into its place; a lease that it ends is given back.

    Runs in the consumer's transaction, beside the inbox row. Any order and any repetition of a job's events is fine.

    Args:
        tx: The consumer's.
        event: Of the jobs service.
        sequence: Version of the job after the event.
        now: Time of the change.
        relay: Woken when an event was recorded.
        placer: Woken at commit.
    """
    before = await _lock_place(tx, event.job_id)
    after = follow(before, event, sequence)
    if after == before:
        return after
    await save_place(tx, after)
    if after.state == PlaceState.ENDED and before.state != PlaceState.ENDED:
        await tx.execute(RECORD_RUN, job_id=after.job_id)
    if gives_back(before, after):
        await tx.execute(DELETE_LEASES, job_id=after.job_id)
        version = await tx.fetch_value(END_LEASE, the_job_id=after.job_id)
        released = LeaseReleased(job_id=after.job_id, epoch=before.epoch)
        await record_event(tx, Draft(data=released, version=version, occurred_at=now), relay)
    tx.after_commit(placer.wake)
    return after


async def find_unplaced(database: Database, *, job_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the jobs whose `submitted` made no place here."""
    rows = await database.fetch_all(PLACED, job_ids=list(job_ids))
    placed = {row["job_id"] for row in rows}
    return [job_id for job_id in job_ids if job_id not in placed]


async def save_place(tx: Transaction, place: Place) -> None:
    """Write a locked place back."""
    columns = {name: getattr(place, name) for name in PLACE_COLUMNS if name != "job_id"}
    await tx.execute(SAVE_PLACE, the_job_id=place.job_id, **columns)


def place_of(row: Row) -> Place:
    """A row of PLACE_COLUMNS."""
    return msgspec.convert(dict(row), Place)


async def _lock_place(tx: Transaction, job_id: UUID) -> Place:
    row = await tx.fetch_one(LOCK_PLACE, job_id=job_id)
    if row is None:
        await tx.execute(CREATE_PLACE, job_id=job_id)
        row = await tx.fetch_one(LOCK_PLACE, job_id=job_id)
    return place_of(row)
