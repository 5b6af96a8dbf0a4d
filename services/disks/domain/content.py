"""What is on a disk: the listing that was taken when its last job ended, as text for a person."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts.disks import Listing, ListingEntry

MAX_ENTRIES = 5000
MAX_PATH_CHARACTERS = 1024
_UNITS = ("B", "KB", "MB", "GB", "TB")
_STEP = 1024
_ENDINGS = {"directory": "/", "link": "@"}


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The newest listing of a disk, and the job that ended without one since."""

    job_id: UUID | None
    """Job after which it was taken; None when there is no listing."""
    taken_at: datetime | None
    listing: Listing | None
    missed_job_id: UUID | None
    """A later job that ended without a listing; None when there is none."""


NO_CONTENT = Content(job_id=None, taken_at=None, listing=None, missed_job_id=None)


def bounded(listing: Listing) -> Listing:
    """The listing with no more entries and no longer paths than are kept."""
    kept = [
        msgspec.structs.replace(entry, path=entry.path[:MAX_PATH_CHARACTERS]) for entry in listing.entries[:MAX_ENTRIES]
    ]
    return Listing(
        size_bytes=listing.size_bytes, entries=kept, truncated=listing.truncated or len(listing.entries) > MAX_ENTRIES
    )


def as_text(listing: Listing) -> str:
    """One line for each entry, its size first; what cannot be printed in a name is escaped."""
    lines = [f"{human_size(listing.size_bytes):>10}  ."]
    lines += [f"{human_size(entry.size_bytes):>10}  {_shown(entry)}" for entry in listing.entries]
    if listing.truncated:
        lines.append("            (more is on the disk than is listed here)")
    return "\n".join(lines) + "\n"


def message_of(content: Content, used_by: UUID | None) -> str | None:
    """Why there is no listing; None when there is one, as clients take any message for that there is none.

    Args:
        content: What is known.
        used_by: The job that has the disk now; None: none has it.
    """
    if content.listing is not None:
        return None
    if content.missed_job_id is not None:
        return f"No listing could be taken when job {content.missed_job_id} ended"
    if used_by is not None:
        return f"Job {used_by} is the first to use this disk: what is on it is listed when the job ends"
    return "No job has used this disk yet"


def human_size(size_bytes: int) -> str:
    """A size for a person, in powers of 1024."""
    size: Any = size_bytes
    for unit in _UNITS[:-1]:
        if round(size, 1) < _STEP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"


def _shown(entry: ListingEntry) -> str:
    name = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in entry.path
    )
    return name + _ENDINGS.get(entry.type, "")
