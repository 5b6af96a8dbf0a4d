"""What a fact makes of a job."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from services.jobs.domain.job import Job
from shared.contracts.jobs import JobEvent


class Transition(msgspec.Struct, frozen=True):
    job: Job
    """After the change; its version has risen by the number of events."""
    events: tuple[JobEvent, ...] = ()
    """In order; the last one carries the job's new version."""


Rule: TypeAlias = Callable[[Job, Any, datetime], Transition]
"""The job, the fact and now: to the change; one that leaves the job as it was is none."""


def owner_of(job: Job) -> dict[str, Any]:
    """What every event of the job says."""
    return {"job_id": job.id, "user_id": job.user_id, "username": job.username, "status": job.status}
