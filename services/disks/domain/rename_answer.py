"""What a rename is answered."""

from uuid import UUID

import msgspec


class Renamed(msgspec.Struct, frozen=True, kw_only=True):
    """A disk has its new name; `operation_id` brings the tags after it."""

    operation_id: UUID
    old_name: str
    new_name: str


class TagReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far the tags of a disk's snapshots had come when the request was answered."""

    updated: int
    total: int
    errors: list[str]
    """What AWS did not take, for a person; the background tries it again."""


class RenameAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """A rename, and how far its tags had come."""

    renamed: Renamed
    report: TagReport
