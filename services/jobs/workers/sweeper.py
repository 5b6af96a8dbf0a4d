"""Finds pods, services and secrets of ours that no job has, counts them, and deletes them if it may."""

from uuid import UUID

import structlog

from services.jobs import storage
from services.jobs.adapters.kubernetes import CALL_SECONDS, KINDS, Cluster
from services.jobs.context import Context
from services.jobs.domain.pod import Meta
from shared.contracts.labels import EPOCH_LABEL, job_id_of
from shared.errors import Unavailable
from shared.leader_lock import leader_loop
from shared.leased_worker import Budget
from shared.metrics import ORPHANS

log = structlog.get_logger(__name__)

_LEADER_LOCK = "orph"
_LIST_SECONDS = 20.0
_KIND_SECONDS = 50.0
_SWEEP_SECONDS = len(KINDS) * _KIND_SECONDS
_DELETION_SECONDS = 2 * CALL_SECONDS
"""A live look, and the deletion."""
_SHOWN = 20
"""Names in a log line."""


class Sweeper:
    """Deletes what is left over; one replica does.

    Args:
        context: The service's.
        cluster: Where to look.
    """

    def __init__(self, context: Context, cluster: Cluster) -> None:
        self._context = context
        self._cluster = cluster
        period = context.settings.sweep_seconds
        self.loop = leader_loop(
            "sweeper",
            self.sweep,
            database=context.database,
            lock=_LEADER_LOCK,
            period_seconds=period,
            turn_seconds=_SWEEP_SECONDS,
            stale_seconds=5 * period + _SWEEP_SECONDS,
        )

    async def sweep(self) -> None:
        """One search over all kinds; what cannot be deleted now is found again.

        Each kind has its own time: one whose deletions hang leaves the others theirs.
        """
        for kind in KINDS:
            budget = Budget(_KIND_SECONDS)
            async with budget.call(_LIST_SECONDS):
                objects, _ = await self._cluster.list_objects(kind)
            orphans = [meta for meta in await self._without_job(objects) if meta.deletion_timestamp is None]
            ORPHANS.labels(kind).set(len(orphans))
            if self._context.settings.sweep == "report":
                _report(kind, orphans)
                continue
            for meta in orphans:
                if budget.left_seconds < _DELETION_SECONDS:
                    log.warning("orphans_left_for_later", kind=kind)
                    break
                await self._delete(kind, meta)

    async def _without_job(self, objects: list[Meta]) -> list[Meta]:
        # objects are listed before rows are read: an object's row is committed before it is made, so a row that is
        # not there now was never going to be
        jobs = {job_id for meta in objects if (job_id := job_id_of(meta.labels)) is not None}
        rows = await self._context.database.fetch_all(storage.leases.LEASES, ids=list(jobs))
        leases: dict[UUID, int] = {row["id"]: row["epoch"] for row in rows if row["live"]}
        return [meta for meta in objects if not _has_lease(meta, leases)]

    async def _delete(self, kind: str, meta: Meta) -> None:
        try:
            live = await self._cluster.find_object(kind, meta.name)
            if live is None or live.uid != meta.uid or not await self._without_job([live]):
                return
            log.warning("orphan_deleted", kind=kind, name=meta.name, job_id=str(job_id_of(meta.labels)))
            await self._cluster.delete_object(kind, meta.name, meta.uid)
        except Unavailable as error:
            log.warning("orphan_not_deleted", kind=kind, name=meta.name, error=type(error).__name__)


def _report(kind: str, orphans: list[Meta]) -> None:
    if orphans:
        log.warning("orphans_left_alone", kind=kind, count=len(orphans), names=[meta.name for meta in orphans[:_SHOWN]])


def _has_lease(meta: Meta, leases: dict[UUID, int]) -> bool:
    job_id = job_id_of(meta.labels)
    return job_id in leases and meta.labels.get(EPOCH_LABEL) == str(leases[job_id])
