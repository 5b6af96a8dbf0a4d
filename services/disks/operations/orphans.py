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
from shared.audit import record_act
from shared.contracts.audit import AuditObject
from shared.contracts.auth import Identity
from shared.leased_worker import Budget
from shared.metrics import ORPHANS
from shared.operators import check_operator
from shared.orphans import LOOK_FOR_ORPHANS, Orphan

log = structlog.get_logger(__name__)

_ACT_SECONDS = 60.0
"""When AWS was listed: a sweep that does what it can in its time is a good one, the rest is found again."""
_SETTLING = timedelta(minutes=5)
"""EC2 is eventually consistent: a row that changed later than this says nothing about what a listing shows."""
_BATCH = 100
"""Volumes of one call that marks them."""
_SHOWN = 20
"""Ids of one kind in a log line."""
_JUDGE = "It has our tags and no disk has it: judge what it is, since it is never deleted by itself"
_DELETED = "Its row says that it is gone: the next sweep deletes it"
_REPORTED = "Its row says that it is gone; it is left alone, since GPUDEV_SWEEP is report"
_LOST = "A row says that it is there, and AWS does not show it: somebody's data may be gone"
_missing = Gauge("gpudev_missing", "What rows say is in AWS and the last sweep did not find", ["kind"])


async def sweep(context: Context, *, act_seconds: float = _ACT_SECONDS) -> Findings:
    """One sweep, whoever else sweeps.

    Args:
        context: Of the service.
        act_seconds: For what is to be done about the findings.
    """
    now = context.clock()
    findings = await _look(context, now)
    acts = context.settings.sweep == "act"
    _report(findings, of_all=not acts)
    if acts:
        await _act(context, findings, now, Budget(act_seconds))
    return findings


async def list_orphans(context: Context, *, asker: Identity) -> list[Orphan]:
    """What differs between AWS and the tables and is not mended by itself at once, as operators see it.

    Raises:
        OperatorsOnly: The asker is none.
        AwsUnavailable: AWS does not answer.
    """
    check_operator(asker, LOOK_FOR_ORPHANS)
    findings = await _look(context, context.clock())
    leftover = _REPORTED if context.settings.sweep == "report" else _DELETED
    found = (
        ("volume", "missing", _LOST, findings.missing_volumes),
        ("snapshot", "missing", _LOST, findings.missing_snapshots),
        ("volume", "orphan", _JUDGE, findings.orphan_volumes),
        ("snapshot", "orphan", _JUDGE, findings.orphan_snapshots),
        ("volume", "leftover", leftover, findings.leftover_volumes),
        ("snapshot", "leftover", leftover, findings.leftover_snapshots),
    )
    return [
        Orphan(kind=kind, name=aws_id, finding=finding, message=message)
        for kind, finding, message, aws_ids in found
        for aws_id in aws_ids
    ]


async def _look(context: Context, now: datetime) -> Findings:
    """AWS first: whatever it shows had its row before it was made."""
    volumes, snapshots = await context.ec2.list_volumes(), await context.ec2.list_snapshots()
    ledger = Ledger(
        await ledger_disks(context.database),
        await ledger_snapshots(context.database),
        settled_before=now - _SETTLING,
        marks=context.csi_tags,
    )
    return ledger.compare(volumes, snapshots)


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
        yield partial(_delete, context, AuditObject("volume", volume_id), context.ec2.delete_volume)
    for snapshot_id in findings.leftover_snapshots:
        yield partial(_delete, context, AuditObject("snapshot", snapshot_id), context.ec2.delete_snapshot)


# where somebody asked for the sweep, the audit is told before AWS is: better an entry without a change than the reverse


async def _mark(context: Context, volume_ids: list[str]) -> None:
    audited = [AuditObject("volume", volume_id) for volume_id in volume_ids]
    await record_act(context.database, audited, now=context.clock())
    try:
        await context.ec2.set_tags(volume_ids, context.csi_tags)
    except AwsRefused as refusal:
        log.warning("marks_refused", count=len(volume_ids), first=volume_ids[0], error=str(refusal))


async def _delete(context: Context, leftover: AuditObject, delete: Callable[[str], Awaitable[None]]) -> None:
    await record_act(context.database, [leftover], now=context.clock())
    log.warning("leftover_deleted", aws_id=leftover.id)
    try:
        await delete(leftover.id)
    except AwsRefused as refusal:
        log.warning("leftover_refused", aws_id=leftover.id, error=str(refusal))


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
