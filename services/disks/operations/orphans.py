"""Compares AWS with the tables, over all pages.

Adopts what is ours, deletes only what our own row says is to be gone, and reports the rest. The tables are read after
AWS was listed: whatever AWS showed had its row before it was made.
"""

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

import structlog
from prometheus_client import Gauge

from services.disks.adapters.ec2 import CALL_SECONDS, AwsRefused
from services.disks.context import Context
from services.disks.domain.ledger import FOR_PEOPLE, Findings, Ledger
from services.disks.operations.adopt import adopt_snapshot, note_name
from services.disks.operations.read import ledger_disks, ledger_snapshots
from shared.leased_worker import Budget
from shared.metrics import ORPHANS

log = structlog.get_logger(__name__)

_ACT_SECONDS = 60.0
"""When AWS was listed: a sweep that does what it can in its time is a good one, the rest is found again."""
_SETTLING = timedelta(minutes=5)
"""EC2 is eventually consistent: a row that changed later than this says nothing about what a listing shows."""
_BATCH = 100
"""Volumes of one call that marks them."""
_SHOWN = 20
"""Ids of one kind in a log line."""
_missing = Gauge("gpudev_missing", "What rows say is in AWS and the last sweep did not find", ["kind"])


async def sweep(context: Context, *, act_seconds: float = _ACT_SECONDS) -> Findings:
    """One sweep, whoever else sweeps.

    Args:
        context: Of the service.
        act_seconds: For what is to be done about the findings.
    """
    now = context.clock()
    volumes, snapshots = await context.ec2.list_volumes(), await context.ec2.list_snapshots()
    ledger = Ledger(
        await ledger_disks(context.database),
        await ledger_snapshots(context.database),
        settled_before=now - _SETTLING,
        marks=context.csi_tags,
    )
    findings = ledger.compare(volumes, snapshots)
    acts = context.settings.sweep == "act"
    _report(findings, of_all=not acts)
    if acts:
        await _act(context, findings, now, Budget(act_seconds))
    return findings


async def _act(context: Context, findings: Findings, now: datetime, budget: Budget) -> None:
    """Do what is to be done, as much as there is time for; the rest is found again."""
    for action in _actions(context, findings, now):
        if budget.left_seconds < CALL_SECONDS:
            log.warning("sweep_goes_on_next_time")
            return
        await action()


def _actions(context: Context, findings: Findings, now: datetime) -> Iterator[Callable[[], Awaitable[object]]]:
    for adoption in findings.adoptions:
        yield partial(adopt_snapshot, context, adoption=adoption, now=now)
    for aws_id, name in findings.names.items():
        yield partial(note_name, context, aws_id=aws_id, name=name, now=now)
    for start in range(0, len(findings.unmarked_volumes), _BATCH):
        yield partial(_mark, context, findings.unmarked_volumes[start : start + _BATCH])
    for volume_id in findings.leftover_volumes:
        yield partial(_delete, volume_id, context.ec2.delete_volume)
    for snapshot_id in findings.leftover_snapshots:
        yield partial(_delete, snapshot_id, context.ec2.delete_snapshot)


async def _mark(context: Context, volume_ids: list[str]) -> None:
    try:
        await context.ec2.set_tags(volume_ids, context.csi_tags)
    except AwsRefused as refusal:
        log.warning("marks_refused", count=len(volume_ids), first=volume_ids[0], error=str(refusal))


async def _delete(aws_id: str, delete: Callable[[str], Awaitable[None]]) -> None:
    log.warning("leftover_deleted", aws_id=aws_id)
    try:
        await delete(aws_id)
    except AwsRefused as refusal:
        log.warning("leftover_refused", aws_id=aws_id, error=str(refusal))


def forget_findings() -> None:
    """Another replica sweeps: what this one has found and told is old."""
    ORPHANS.clear()
    _missing.clear()


def _report(findings: Findings, *, of_all: bool) -> None:
    """Count and log what is for people to judge; of all, when nothing is done about the rest."""
    ORPHANS.labels("volume").set(len(findings.orphan_volumes))
    ORPHANS.labels("snapshot").set(len(findings.orphan_snapshots))
    _missing.labels("volume").set(len(findings.missing_volumes))
    _missing.labels("snapshot").set(len(findings.missing_snapshots))
    found = {kind: ids[:_SHOWN] for kind, ids in findings.aws_ids().items() if ids and (of_all or kind in FOR_PEOPLE)}
    if found:
        log.warning("ledger_differs", **found)
