"""Jobs of users who were disabled: they end, after the grace that is configured, whatever they do."""

from datetime import UTC, datetime, timedelta

import structlog

from services.jobs import storage
from services.jobs.domain.facts import Cancel
from services.jobs.domain.table import change
from services.jobs.operations import write_change
from services.jobs.resources import Resources
from shared.background import Loop
from shared.database import Transaction

log = structlog.get_logger(__name__)

REASON = "Cancelled because its user was disabled"
_BATCH = 50
_PERIOD_SECONDS = 1.0


async def note_disabled(
    *, transaction: Transaction, user_id: int, disabled_at: datetime | None, sequence: int, resources: Resources
) -> None:
    """Write down that a user was disabled, or, with None, enabled again.

    Args:
        transaction: The consumer's.
        user_id: Auth's.
        disabled_at: When; the grace counts from then.
        sequence: Auth's number of the change; what is older than what is known changes nothing.
        resources: The service's.
    """
    grace = timedelta(seconds=resources.settings.disabled_user_grace_seconds)
    jobs_end_at = None if disabled_at is None else disabled_at + grace
    await transaction.execute(storage.NOTE_DISABLED, user_id=user_id, sequence=sequence, jobs_end_at=jobs_end_at)


class DisabledUsers:
    """Cancels the jobs of users who are disabled, as their owners would.

    Args:
        resources: The service's.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self.loop = Loop("disabled_users", self._turn, period_seconds=_PERIOD_SECONDS)

    async def _turn(self) -> bool:
        now = datetime.now(UTC)
        async with self._resources.database.transaction() as transaction:
            rows = await transaction.fetch_all(storage.LOCK_JOBS_OF_DISABLED, now=now, limit=_BATCH)
            for row in rows:
                job = storage.to_job(row)
                changed = change(job, Cancel(REASON), now)
                if changed is not None:
                    log.info("job_of_disabled_user_cancelled", job_id=str(job.id), user_id=job.user_id)
                    await write_change(
                        transaction=transaction, before=job, changed=changed, now=now, resources=self._resources
                    )
        return len(rows) == _BATCH
