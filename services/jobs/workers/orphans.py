"""Finds pods, services and secrets of ours that no job has, counts them, and deletes them if it may."""

from functools import partial

import structlog

from services.jobs.adapters.kubernetes import CALL_SECONDS, KINDS, Cluster
from services.jobs.context import Context
from services.jobs.domain.pod import Meta
from services.jobs.operations.orphans import delete_orphan, find_orphans
from shared.background import each_in_turn
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


class OrphanSweeper:
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
            following=ORPHANS.clear,
        )

    async def sweep(self) -> None:
        """One search over all kinds; what cannot be deleted now is found again.

        Each kind has its own time and fails by itself: one whose deletions hang, or that may not be listed, leaves the
        others theirs.
        """
        await each_in_turn(partial(self._sweep_kind, kind) for kind in KINDS)

    async def _sweep_kind(self, kind: str) -> None:
        budget = Budget(_KIND_SECONDS)
        async with budget.call(_LIST_SECONDS):
            orphans = await find_orphans(self._context, self._cluster, kind)
        ORPHANS.labels(kind).set(len(orphans))
        if self._context.settings.sweep == "report":
            _report(kind, orphans)
            return
        for meta in orphans:
            if budget.left_seconds < _DELETION_SECONDS:
                log.warning("orphans_left_for_later", kind=kind)
                break
            await delete_orphan(self._context, self._cluster, kind, meta)


def _report(kind: str, orphans: list[Meta]) -> None:
    if orphans:
        log.warning("orphans_left_alone", kind=kind, count=len(orphans), names=[meta.name for meta in orphans[:_SHOWN]])
