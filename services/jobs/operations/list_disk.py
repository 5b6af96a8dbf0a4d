"""What was on a job's disk when the job ended: listed before its pod is deleted, reported to the disks service."""

from datetime import datetime
from uuid import UUID

import structlog

from services.jobs.adapters.kubernetes import Cluster, ClusterRefused, ClusterUnavailable
from services.jobs.context import Context
from services.jobs.domain.disk_manifests import has_disk
from services.jobs.domain.environment import HOME
from services.jobs.domain.job import Job
from services.jobs.domain.listing import read_listing
from services.jobs.domain.manifests import TOOL, object_name
from shared.contracts.disks import CONTENT_SUBJECT, ContentReply, ContentReport, Listing
from shared.errors import Unavailable
from shared.messaging import call_rpc

log = structlog.get_logger(__name__)

_LISTING_SECONDS = 2.0
_TELLING_SECONDS = 1.0
_CLOSING_SECONDS = 1.0
"""Until a connection to a program that hangs is let go."""
CONTENT_SECONDS = _LISTING_SECONDS + _CLOSING_SECONDS + _TELLING_SECONDS
"""For all of it."""


async def report_content(
    *, job: Job, last_message: str | None, cluster: Cluster, now: datetime, context: Context
) -> None:
    """Report what is on the disk of a job whose pod is about to be deleted.

    As well as can be in `CONTENT_SECONDS`: a listing is no reason to hold up a job's end, and the disks service says
    when there is none. Idempotent: killed after it, the next pass does it again.

    Args:
        job: Whose pod it is.
        last_message: What its container left at its end; None while it runs, and can be asked.
        cluster: Where the pod is.
        now: The time.
        context: The service's.
    """
    if job.disk_id is None or job.launched_at is None or not has_disk(job):
        return
    text = await _ask_pod(job, cluster) if last_message is None else last_message.encode()
    listing = read_listing(text)
    if listing is None:
        log.info("content_not_listed", job_id=str(job.id), asked=last_message is None)
        return
    await _report(job, job.disk_id, listing, now, context)


async def _ask_pod(job: Job, cluster: Cluster) -> bytes:
    """Empty when it does not answer."""
    try:
        result = await cluster.exec_in_pod(
            object_name(job), [TOOL, "listing", HOME], stdin=None, seconds=_LISTING_SECONDS
        )
    except (ClusterRefused, ClusterUnavailable):
        return b""
    return result.stdout if result.exit_code == 0 else b""


async def _report(job: Job, disk_id: UUID, listing: Listing, now: datetime, context: Context) -> None:
    report = ContentReport(job_id=job.id, disk_id=disk_id, epoch=job.epoch, taken_at=now, listing=listing)
    try:
        reply = await call_rpc(context.broker, CONTENT_SUBJECT, report, ContentReply, timeout_seconds=_TELLING_SECONDS)
    except Unavailable as error:
        log.info("content_not_told", job_id=str(job.id), error=type(error).__name__)
    else:
        log.info("content_told", job_id=str(job.id), stored=reply.stored)
