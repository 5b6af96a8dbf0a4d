"""What everything in disks works with."""

import time
from dataclasses import dataclass, field

from services.disks.adapters.ec2 import Ec2
from services.disks.domain.aws_objects import csi_tags
from services.disks.domain.limits import Limits
from services.disks.domain.snapshot import Retention
from services.disks.settings import DisksSettings
from shared.clock import Clock, Stopwatch
from shared.database import Database
from shared.encryption import Cipher
from shared.messaging import Broker
from shared.messaging.outbox import Wakes


class WakeUp:
    """Wakes loops, which may be added after it was handed on."""

    def __init__(self) -> None:
        self._loops: list[Wakes] = []

    def add(self, loop: Wakes) -> None:
        """Wake this one too."""
        self._loops.append(loop)

    def wake(self) -> None:
        """Wake all that were added."""
        for loop in self._loops:
            loop.wake()


@dataclass(frozen=True, kw_only=True)
class Context:
    database: Database
    broker: Broker
    outbox: Wakes
    """Woken when an event was committed."""
    cipher: Cipher
    clock: Clock
    ec2: Ec2
    settings: DisksSettings
    work: WakeUp = field(default_factory=WakeUp)
    """Woken when there is something to do in AWS."""
    stopwatch: Stopwatch = time.monotonic
    """For how long a rename may have its caller wait."""

    @property
    def limits(self) -> Limits:
        """What one user may have."""
        return Limits(disks=self.settings.max_disks_per_user, gb=self.settings.max_disk_gb_per_user)

    @property
    def csi_tags(self) -> dict[str, str]:
        """What each volume is marked with for the CSI driver."""
        return csi_tags(self.settings.cluster_name)

    @property
    def retention(self) -> Retention:
        """Which snapshots are kept."""
        return Retention(newest=self.settings.snapshots_newest, weeks=self.settings.snapshots_weeks)
