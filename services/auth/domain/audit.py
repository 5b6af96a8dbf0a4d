"""The entries of all services as one list, newest first, a page at a time."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from shared.contracts.audit import AuditEntry, AuditPosition

_CURSOR = re.compile(r"([0-9]{1,18})-([a-z]{1,20})-([0-9]{1,18})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BEYOND = (1 << 63) - 1
"""Higher than any id."""


class Cursor(msgspec.Struct, frozen=True):
    """The last entry that was told; the next page begins after it."""

    at: datetime
    service: str
    id: int

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """From its text; None when it is none."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            return None
        try:
            return cls(_EPOCH + int(found[1]) * _MICROSECOND, found[2], int(found[3]))
        except OverflowError:
            return None

    def __str__(self) -> str:
        return f"{(self.at - _EPOCH) // _MICROSECOND}-{self.service}-{self.id}"

    def position_in(self, service: str) -> AuditPosition:
        """After what entries of a service the next page begins; of one moment the services go by their names."""
        if service == self.service:
            return AuditPosition(self.at, self.id)
        return AuditPosition(self.at, _BEYOND if service < self.service else 0)


class ServiceEntry(msgspec.Struct, frozen=True):
    service: str
    entry: AuditEntry

    @property
    def cursor(self) -> Cursor:
        """Of the page that ends with it."""
        return Cursor(self.entry.at, self.service, self.entry.id)


class AuditPage(msgspec.Struct, frozen=True):
    entries: Sequence[ServiceEntry]
    """Newest first."""
    next: Cursor | None
    """None: these are the oldest."""


def merge(found: Mapping[str, Iterable[AuditEntry]], limit: int) -> AuditPage:
    """The newest entries of all services.

    Args:
        found: The newest of each, at most `limit + 1`, after the same cursor.
        limit: Of the page.
    """
    entries = [ServiceEntry(service, entry) for service, of_service in found.items() for entry in of_service]
    entries.sort(key=lambda one: (one.entry.at, one.service, one.entry.id), reverse=True)
    page = entries[:limit]
    return AuditPage(page, page[-1].cursor if len(entries) > limit else None)
