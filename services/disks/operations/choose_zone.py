"""Choose the availability zone of a disk that a job's claim makes: where the job can start soonest."""

import structlog

from services.disks import storage
from services.disks.context import Context
from shared.contracts.capacity import ZONE_SUBJECT, ZoneReply, ZoneRequest
from shared.errors import Unavailable
from shared.messaging import call_rpc

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 1.0
"""Capacity only advises: a submission does not wait longer for it."""


async def choose_zone(
    context: Context,
    *,
    user_id: int,
    disk_name: str,
    gpu_type: str | None,
    gpu_count: int | None,
    duration_seconds: int | None,
) -> str:
    """The zone of the user's disk, if it has to be made; capacity is asked only when there is a choice.

    Args:
        context: Of the service.
        user_id: Owner.
        disk_name: A disk of this name that is there stays where it is.
        gpu_type: That the job asks for; None: not known.
        gpu_count: Likewise.
        duration_seconds: Likewise.
    """
    zones = context.settings.zones()
    if len(zones) == 1 or gpu_type is None or gpu_count is None or duration_seconds is None:
        return zones[0]
    if await context.database.fetch_value(storage.disks.NAME_IS_TAKEN, user_id=user_id, name=disk_name):
        return zones[0]
    request = ZoneRequest(zones=zones, gpu_type=gpu_type, gpu_count=gpu_count, duration_seconds=duration_seconds)
    try:
        reply = await call_rpc(context.broker, ZONE_SUBJECT, request, ZoneReply, timeout_seconds=_ANSWER_SECONDS)
    except Unavailable as error:
        log.warning("zone_not_chosen", error=type(error).__name__)
        return zones[0]
    return reply.zone if reply.zone in zones else zones[0]
