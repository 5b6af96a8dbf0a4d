"""The audit: what each service tells of who changed what, to auth alone, which answers operators."""

from datetime import datetime

import msgspec


def audit_subject(service: str) -> str:
    """RPC subject of a service's audit."""
    return f"gpudev.rpc.{service}.audit"


class AuditObject(msgspec.Struct, frozen=True):
    """What something was done to."""

    kind: str
    """job, disk, key, user or webhook; of `gpudev-admin` also event, volume, snapshot, pods and the like."""
    id: str
    """A key's is its public prefix."""
    name: str | None = None
    """As people know it, at that time; None where it has none."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody did something."""

    id: int
    """Of the service's own entries."""
    at: datetime
    action: str
    """The operation id of the route, or the command of an administrator."""
    user_id: int | None
    """Who; None: an administrator with a shell."""
    username: str | None
    key_prefix: str | None
    """Of the key that they came with; None: none was asked for."""
    address: str | None
    """Where they came from, as the first trusted proxy saw it; None: from inside."""
    object_kind: str
    object_id: str
    object_name: str | None
    request_id: str | None


class AuditPosition(msgspec.Struct, frozen=True):
    """A place among a service's entries, which are newest first; times that are equal are told apart by ids."""

    at: datetime
    id: int


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries; None asks nothing."""

    limit: int
    before: AuditPosition | None = None
    """Only what comes after this, which is older."""
    since: datetime | None = None
    """Included."""
    until: datetime | None = None
    """Excluded."""
    username: str | None = None
    action: str | None = None
    object: str | None = None
    """Its id, or its name at that time."""


class AuditReply(msgspec.Struct, frozen=True):
    entries: list[AuditEntry]
    """Newest first."""
