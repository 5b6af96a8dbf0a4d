"""What the service works with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.disks.domain.limits import Limits
from services.disks.operations.renames import Renaming
from services.disks.settings import DisksSettings
from shared.database import Database
from shared.encryption import Cipher
from shared.messaging.outbox import Wakes


@dataclass(frozen=True)
class Context:
    """What the handlers work with."""

    database: Database
    relay: Wakes
    """Woken for events."""
    reconciler: Wakes
    """Woken when there is something to make."""
    renaming: Renaming
    cipher: Cipher
    settings: DisksSettings
    limits: Limits
    clock: Callable[[], datetime]
