"""Claiming the disk of a job that is being submitted."""

from uuid import UUID

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from services.jobs.context import Context
from services.jobs.domain.submission import Submission
from shared.contracts.auth import Identity
from shared.contracts.disks import CLAIM_SUBJECT, Claim, ClaimRefusal, ClaimReply, ClaimRequest
from shared.errors import Conflict, GpuDevError, InvalidInput, Problem, Unavailable
from shared.messaging import call_rpc

_CLAIM_SECONDS = 5.0
_CLAIM_PATIENCE_SECONDS = 2.0
_CLAIM_PAUSE_SECONDS = 0.1


async def claim_disk(job_id: UUID, owner: Identity, submission: Submission, context: Context) -> Claim | None:
    """Have the disks service keep the disk that a submission names for its job; None when it names none.

    Idempotent: the same job's claim has the same answer.

    Raises:
        Conflict: The disk is in use, or cannot be had by this job.
        InvalidInput: It exists with another size.
        Unavailable: The disks service cannot answer now.
    """
    if submission.disk_name is None:
        return None
    request = ClaimRequest(
        job_id=job_id,
        user_id=owner.user_id,
        username=owner.username,
        disk_name=submission.disk_name,
        size_gb=submission.disk_size_gb,
        gpu_type=submission.gpu_type,
        gpu_count=submission.gpu_count,
        duration_seconds=submission.duration_seconds,
    )
    # asked again through a restart of the disks service or a reconnect
    ask = retry(
        retry=retry_if_exception_type(Unavailable),
        stop=stop_after_delay(_CLAIM_PATIENCE_SECONDS),
        wait=wait_fixed(_CLAIM_PAUSE_SECONDS),
        reraise=True,
    )(call_rpc)
    reply = await ask(context.broker, CLAIM_SUBJECT, request, ClaimReply, timeout_seconds=_CLAIM_SECONDS)
    if reply.claim is None:
        raise _refusal(reply.refusal)
    return reply.claim


def _refusal(refusal: ClaimRefusal | None) -> GpuDevError:
    if refusal is None or refusal.kind == "unavailable":
        return Unavailable(refusal.text if refusal else "The disks service cannot answer now", retry_after_seconds=5)
    if refusal.kind == "invalid":
        return InvalidInput([Problem("value_error", ("body", "disk_size_gb"), refusal.text)])
    return Conflict(refusal.text)
