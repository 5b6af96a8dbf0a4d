"""What comes from NATS: the claim RPC, and the life of the jobs that have claims."""

from datetime import timedelta
from uuid import uuid4

from services.disks.context import Context
from services.disks.domain.claim import NewClaim
from services.disks.domain.disk import Disk
from services.disks.operations.choose_zone import choose_zone
from services.disks.operations.claim import claim_disk, confirm_claim, release_claim
from services.disks.operations.store_content import store_content
from shared.contracts.disks import (
    CLAIM_SUBJECT,
    CONTENT_SUBJECT,
    Claim,
    ClaimRefusal,
    ClaimReply,
    ClaimRequest,
    ContentReply,
    ContentReport,
)
from shared.contracts.events import CloudEvent
from shared.contracts.jobs import JobEnded, JobSubmitted
from shared.database import Transaction
from shared.errors import Conflict, InvalidInput
from shared.messaging import RpcEndpoint, Subscription


def claim_endpoint(context: Context) -> RpcEndpoint[ClaimRequest, ClaimReply]:
    """`disks.claim`: a job's provisional lease on a disk."""

    async def claim(request: ClaimRequest) -> ClaimReply:
        zone = await choose_zone(
            context,
            user_id=request.user_id,
            disk_name=request.disk_name,
            gpu_type=request.gpu_type,
            gpu_count=request.gpu_count,
            duration_seconds=request.duration_seconds,
        )
        wanted = NewClaim(
            job_id=request.job_id,
            user_id=request.user_id,
            username=request.username,
            disk_name=request.disk_name,
            size_gb=request.size_gb,
            at=context.clock(),
            provisional_for=timedelta(seconds=context.settings.claim_seconds),
            availability_zone=zone,
        )
        try:
            disk = await claim_disk(context, wanted=wanted)
        except InvalidInput as error:
            return ClaimReply(refusal=ClaimRefusal(kind="invalid", text=error.problems[0].msg))
        except Conflict as error:
            return ClaimReply(refusal=ClaimRefusal(kind="conflict", text=error.text))
        return ClaimReply(claim=_claim(disk))

    return RpcEndpoint(CLAIM_SUBJECT, ClaimRequest, claim)


def content_endpoint(context: Context) -> RpcEndpoint[ContentReport, ContentReply]:
    """`disks.content`: what was on a disk when its job ended."""

    async def content(report: ContentReport) -> ContentReply:
        return ContentReply(stored=await store_content(context, report=report))

    return RpcEndpoint(CONTENT_SUBJECT, ContentReport, content)


def job_subscriptions(context: Context) -> list[Subscription[JobSubmitted] | Subscription[JobEnded]]:
    """A claim holds from its job's `submitted` to its `ended`."""

    async def on_submitted(tx: Transaction, data: JobSubmitted, _: CloudEvent) -> None:
        if data.disk_id is not None:
            await confirm_claim(tx, context, job_id=data.job_id, disk_id=data.disk_id, now=context.clock())

    async def on_ended(tx: Transaction, data: JobEnded, _: CloudEvent) -> None:
        # without a lease of GPUs there never was a pod that could write on it
        used = data.epoch > 0
        await release_claim(tx, context, job_id=data.job_id, used=used, snapshot_id=uuid4(), now=context.clock())

    return [Subscription(JobSubmitted, on_submitted, concerns=_names_disk), Subscription(JobEnded, on_ended)]


def _names_disk(data: JobSubmitted) -> bool:
    return data.disk_id is not None


def _claim(disk: Disk) -> Claim:
    return Claim(
        disk_id=disk.id,
        disk_name=disk.name,
        size_gb=disk.size_gb,
        ready=disk.ready,
        volume_id=disk.volume_id,
        availability_zone=disk.availability_zone,
    )
