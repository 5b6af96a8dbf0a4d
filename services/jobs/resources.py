"""What operations, queries and loops work with."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from services.jobs.changes import Changes
from services.jobs.settings import JobsSettings
from shared.database import Database
from shared.encryption import Cipher
from shared.messaging import Broker, Relay


class Hints:
    """Jobs that are worth a look now. Only a hint: losing one costs time, never truth."""

    def __init__(self) -> None:
        self.waiting: set[UUID] = set()
        self._listeners: list[Callable[[], None]] = []

    def on_hint(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each hint."""
        self._listeners.append(listener)

    def add(self, job_id: UUID) -> None:
        """Look at this job soon."""
        self.waiting.add(job_id)
        for listener in self._listeners:
            listener()


@dataclass(frozen=True, kw_only=True)
class Resources:
    database: Database
    broker: Broker
    relay: Relay
    cipher: Cipher
    settings: JobsSettings
    changes: Changes
    hints: Hints = field(default_factory=Hints)

    def request_mac(self, request: bytes) -> bytes:
        """Keyed hash by which equal requests are recognised; tells nothing about the secrets in them."""
        key = hashlib.sha256(b"gpudev request\0" + self.settings.secret_keys.rpartition(",")[2].encode()).digest()
        return hmac.digest(key, request, "sha256")
