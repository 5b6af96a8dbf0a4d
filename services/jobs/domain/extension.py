"""Whether a job may have more time."""

import math
from datetime import datetime, timedelta

from services.jobs.domain.job import Job

_STEP = 10_000
"""Hours are told with four decimals: a third of a second."""


def extension_refusal(job: Job, *, seconds: int, longest_seconds: int, now: datetime) -> str | None:
    """Why an active job may not be extended, for its owner; None when it may.

    Args:
        job: Active.
        seconds: Asked for, more than 0.
        longest_seconds: No job is longer from its start, extensions included.
        now: Time of the request.
    """
    assert job.expires_at is not None  # noqa: S101 - every active job has an end
    assert job.launched_at is not None  # noqa: S101 - every active job has a start
    left = (job.launched_at + timedelta(seconds=longest_seconds) - job.expires_at).total_seconds()
    if seconds > left:
        longest, rest = _hours(longest_seconds), _hours(max(left, 0))
        return f"A job may last {longest} hours from its start at most: it can be extended by {rest} hours more"
    if job.expires_at + timedelta(seconds=seconds) <= now:
        return f"The job is expiring: its time was up at {job.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    return None


def _hours(seconds: float) -> str:
    """Rounded down, so that as much may be had as is told."""
    return f"{math.floor(seconds / 3600 * _STEP) / _STEP:.4f}".rstrip("0").rstrip(".")
