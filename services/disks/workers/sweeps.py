"""Compares AWS with the tables, over all pages.

Adopts what is ours, deletes only what our own row says is to be gone, and reports the rest. The tables are read after
AWS was listed: whatever AWS showed had its row before it was made.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec
import structlog
from prometheus_client import Gauge

from services.disks import storage
from services.disks.adapters.ec2 import AwsRefused, AwsUnavailable, Ec2
from services.disks.domain.ledger import Findings, Ledger, LedgerDisk, LedgerSnapshot
from services.disks.operations.adoptions import adopt_snapshot, note_name
from shared.background import Loop
from shared.database import Database
from shared.leader_lock import LeaderLock
from shared.messaging.outbox import Wakes
from shared.metrics import ORPHANS

log = structlog.get_logger(__name__)

_LEADER_LOCK = "swep"
_SETTLING = timedelta(minutes=5)
"""EC2 is eventually consistent: a row that changed later than this says nothing about what a listing shows."""
_missing = Gauge("gpudev_missing", "What rows say is in AWS and the last sweep did not find", ["kind"])


class Sweeper:
    """One replica sweeps.

    Args:
        database: Where the ledger is.
        relay: Woken for events.
        ec2: AWS.
        period_seconds: Between two sweeps.
        clock: The time.
    """

    def __init__(
        self, *, database: Database, relay: Wakes, ec2: Ec2, period_seconds: float, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._relay = relay
        self._ec2 = ec2
        self._clock = clock
        self._leader_lock = LeaderLock(database, _LEADER_LOCK, silence_seconds=2 * period_seconds + 10)
        self.loop = Loop(
            "ebs_sweeper", self.turn, period_seconds=period_seconds, turn_seconds=120.0,
            stale_seconds=5 * period_seconds + 300, at_end=self._leader_lock.release,
        )  # fmt: skip

    async def turn(self) -> None:
        """Sweep, if no other replica does; an outage of AWS is not a fault of ours."""
        if not await self._leader_lock.held():
            return
        try:
            await self.sweep()
        except AwsUnavailable as error:
            log.warning("sweep_put_off", context=error.context)

    async def sweep(self) -> Findings:
        """One sweep, whoever else sweeps."""
        now = self._clock()
        volumes, snapshots = await self._ec2.list_volumes(), await self._ec2.list_snapshots()
        ledger = Ledger(
            [msgspec.convert(dict(row), LedgerDisk) for row in await self._database.fetch_all(storage.ledger.DISKS)],
            [
                msgspec.convert(dict(row), LedgerSnapshot)
                for row in await self._database.fetch_all(storage.ledger.SNAPSHOTS)
            ],
            settled_before=now - _SETTLING,
        )
        findings = ledger.compare(volumes, snapshots)
        _report(findings)
        await self._act(findings, now)
        return findings

    async def _act(self, findings: Findings, now: datetime) -> None:
        for adoption in findings.adoptions:
            await adopt_snapshot(self._database, self._relay, adoption=adoption, now=now)
        for aws_id, name in findings.names.items():
            await note_name(self._database, aws_id=aws_id, name=name, now=now)
        for volume_id in findings.leftover_volumes:
            await self._delete(volume_id, self._ec2.delete_volume)
        for snapshot_id in findings.leftover_snapshots:
            await self._delete(snapshot_id, self._ec2.delete_snapshot)

    async def _delete(self, aws_id: str, delete: Callable[[str], Awaitable[None]]) -> None:
        log.warning("leftover_deleted", aws_id=aws_id)
        try:
            await delete(aws_id)
        except AwsRefused as refusal:
            log.warning("leftover_refused", aws_id=aws_id, error=str(refusal))


def _report(findings: Findings) -> None:
    ORPHANS.labels("volume").set(len(findings.orphan_volumes))
    ORPHANS.labels("snapshot").set(len(findings.orphan_snapshots))
    _missing.labels("volume").set(len(findings.missing_volumes))
    _missing.labels("snapshot").set(len(findings.missing_snapshots))
    told = msgspec.structs.asdict(findings)
    found = {kind: ids[:20] for kind, ids in told.items() if ids and kind.startswith(("orphan", "missing"))}
    if found:
        log.warning("ledger_differs", **found)
