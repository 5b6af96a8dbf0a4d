"""Finding objects of ours that no job has, and deleting them."""

from collections.abc import Sequence
from uuid import UUID

import structlog

from services.jobs import storage
from services.jobs.adapters.kubernetes import KINDS, Cluster
from services.jobs.context import Context
from services.jobs.domain.pod import Meta
from shared.audit import record_act
from shared.contracts.audit import AuditObject
from shared.contracts.auth import Identity
from shared.contracts.labels import EPOCH_LABEL, job_id_of
from shared.errors import Unavailable
from shared.operators import check_operator
from shared.orphans import LOOK_FOR_ORPHANS, Orphan

log = structlog.get_logger(__name__)


_DELETED = "No job has it: the next sweep deletes it"
_REPORTED = "No job has it; it is left alone, since GPUDEV_SWEEP is report"


async def list_orphans(context: Context, cluster: Cluster, *, asker: Identity) -> list[Orphan]:
    """The objects of all kinds that no job has, as operators see them.

    Raises:
        OperatorsOnly: The asker is none.
        Unavailable: The cluster does not answer.
    """
    check_operator(asker, LOOK_FOR_ORPHANS)
    message = _REPORTED if context.settings.sweep == "report" else _DELETED
    return [
        Orphan(
            kind=kind,
            name=meta.name,
            finding="orphan",
            message=message,
            job_id=None if (job_id := job_id_of(meta.labels)) is None else str(job_id),
            since=meta.creation_timestamp,
        )
        for kind in KINDS
        for meta in await find_orphans(context, cluster, kind)
    ]


async def find_orphans(context: Context, cluster: Cluster, kind: str) -> list[Meta]:
    """The objects of a kind that no job has, without those that are being deleted."""
    objects, _ = await cluster.list_objects(kind)
    return [meta for meta in await _without_job(context, objects) if meta.deletion_timestamp is None]


async def delete_orphan(context: Context, cluster: Cluster, kind: str, meta: Meta) -> bool:
    """Delete an object if a live look still finds it without a job; whether it was asked to go.

    Where somebody asked for it, the audit is told first: better an entry without a deletion than the reverse.
    """
    try:
        live = await cluster.find_object(kind, meta.name)
        if live is None or live.uid != meta.uid or not await _without_job(context, [live]):
            return False
        await record_act(context.database, [AuditObject(kind, meta.name)], now=context.clock())
        log.warning("orphan_deleted", kind=kind, name=meta.name, job_id=str(job_id_of(meta.labels)))
        await cluster.delete_object(kind, meta.name, meta.uid)
    except Unavailable as error:
        log.warning("orphan_not_deleted", kind=kind, name=meta.name, error=type(error).__name__)
        return False
    return True


async def _without_job(context: Context, objects: Sequence[Meta]) -> list[Meta]:
    # objects are listed before rows are read: an object's row is committed before it is made, so a row that is
    # not there now was never going to be
    jobs = {job_id for meta in objects if (job_id := job_id_of(meta.labels)) is not None}
    rows = await context.database.fetch_all(storage.leases.LEASES, ids=list(jobs))
    leases: dict[UUID, int] = {row["id"]: row["epoch"] for row in rows if row["live"]}
    return [meta for meta in objects if not _has_lease(meta, leases)]


def _has_lease(meta: Meta, leases: dict[UUID, int]) -> bool:
    job_id = job_id_of(meta.labels)
    return job_id in leases and meta.labels.get(EPOCH_LABEL) == str(leases[job_id])
