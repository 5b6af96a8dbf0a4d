"""Whether a job may have more time, and when its owner sees it."""

import math
from datetime import datetime, timedelta

from msgspec.structs import replace

from services.jobs.domain.job import Job, UnshownExtension
from shared.contracts.jobs import JobStatus

SHOWN_AFTER = timedelta(seconds=3)
"""Clients read the job after the answer, and then wait for its end to change: it must not have changed by then."""
_KEPT = timedelta(seconds=30)
"""An extension's part in what is shown, past which it is forgotten; far more than replicas' clocks may differ."""
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
    last = job.launched_at + timedelta(seconds=longest_seconds)
    if job.pod_ends_at is not None and job.pod_ends_at < last:  # made when jobs were to be shorter
        last = job.pod_ends_at
    left = (last - job.expires_at).total_seconds()
    if seconds > left:
        longest, rest = _hours((last - job.launched_at).total_seconds()), _hours(max(left, 0))
        return f"A job may last {longest} from its start at most: it can be extended by {rest} more"
    if job.expires_at + timedelta(seconds=seconds) <= now:
        return f"The job is expiring: its time was up at {job.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    return None


def extended(job: Job, *, seconds: int, shown_at: datetime | None, now: datetime) -> Job:
    """An active job with more time; its warnings start anew.

    Args:
        job: As it is.
        seconds: More than 0.
        shown_at: From when on its owner sees it, by the database's clock; None: at once, and all earlier ones too.
        now: Time of the request.
    """
    assert job.expires_at is not None  # noqa: S101 - every active job has an end
    unshown: list[UnshownExtension] = []
    if shown_at is not None:
        before = UnshownExtension(
            until=shown_at, expires_at=job.expires_at, duration_seconds=job.duration_seconds, warning=job.warning
        )
        unshown = [*(one for one in job.unshown_extensions if one.until > now - _KEPT), before]
    return replace(
        job,
        expires_at=job.expires_at + timedelta(seconds=seconds),
        duration_seconds=job.duration_seconds + seconds,
        warning=None,
        warned_minutes=None,
        unshown_extensions=unshown,
    )


def as_shown(job: Job, at: datetime) -> Job:
    """A job as its owner sees it at this time of the database's clock: extensions of the last moment are missing."""
    shown = [one.until for one in job.unshown_extensions if one.until <= at]
    changed_at = max([job.updated_at, *shown])
    unshown = [one for one in job.unshown_extensions if one.until > at]
    if not unshown or job.status is not JobStatus.ACTIVE:
        return replace(job, unshown_extensions=[], updated_at=changed_at)
    first = unshown[0]
    return replace(
        job,
        expires_at=first.expires_at,
        duration_seconds=first.duration_seconds,
        warning=first.warning,
        unshown_extensions=unshown,
        updated_at=changed_at,
    )


def _hours(seconds: float) -> str:
    """'1 hour' or '1.5 hours', rounded down, so that as much may be had as is told."""
    number = f"{math.floor(seconds * _STEP / 3600) / _STEP:.4f}".rstrip("0").rstrip(".")
    return f"{number} hour{'' if number == '1' else 's'}"
