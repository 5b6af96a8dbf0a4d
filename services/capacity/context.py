"""What everything in capacity works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from services.capacity.domain.fleet import Fleet
from services.capacity.domain.placement import SchedulingPolicy
from services.capacity.settings import CapacitySettings
from shared.database import Database
from shared.messaging.outbox import Wakes


class WakeUp:
    """Wakes a loop that is made later than whoever wakes it."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` with each wake-up."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """Wake the loop soon; nothing is lost when nobody listens, since every loop also turns by itself."""
        for listener in self._listeners:
            listener()


class KnownFleet:
    """The fleet as this replica has read it last."""

    def __init__(self) -> None:
        self.fleet: Fleet | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    database: Database
    outbox: Wakes
    """Woken when an event was committed."""
    settings: CapacitySettings
    policy: SchedulingPolicy
    """From the settings."""
    clock: Callable[[], datetime]
    scheduler: Wakes
    """Woken when jobs, nodes or pods have changed."""
    announcer: Wakes
    """Woken when the queue was scheduled."""
    known_fleet: KnownFleet = field(default_factory=KnownFleet)
    """What answers need not read again while it is the same."""
