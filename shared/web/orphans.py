"""How each service answers operators who look for orphans."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.orphans import Orphan
from shared.web.response import Answer

MOST = 500
"""Orphans of one answer."""


class OrphanItem(Answer, frozen=True, kw_only=True):
    kind: str
    """Of the object, as in the metrics: `pods`, `volume`, `node` and others."""
    name: str
    """In the cluster its name, in AWS its id."""
    finding: str
    """What is wrong, in a word."""
    message: str
    """What is wrong, and what becomes of it."""
    job_id: str | None
    """Whose it says that it is."""
    since: datetime | None
    """When it was made, or when this was first seen; null when that is not known."""


class OrphanList(Answer, frozen=True, kw_only=True):
    orphans: list[OrphanItem]
    """The first 500."""
    total: int
    looked_at: datetime

    @classmethod
    def of(cls, found: Sequence[Orphan], looked_at: datetime) -> "OrphanList":
        """Answer of a look."""
        items = [OrphanItem(**msgspec.structs.asdict(orphan)) for orphan in found[:MOST]]
        return cls(orphans=items, total=len(found), looked_at=looked_at)
