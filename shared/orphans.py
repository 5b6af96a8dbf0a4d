"""What is left over outside, as each service finds it and operators see it."""

from datetime import datetime

import msgspec


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """An object outside that no row of ours explains, or a row whose object is not there."""

    kind: str
    """Of the object, as in the metrics: pods, volume, node ..."""
    name: str
    """The object's: in the cluster its name, in AWS its id."""
    finding: str
    """What is wrong, in a word for tools."""
    message: str
    """What is wrong, and what becomes of it."""
    job_id: str | None = None
    """Whose it says that it is."""
    since: datetime | None = None
    """When it was made, or when this was first seen; None: not known."""


LOOK_FOR_ORPHANS = "look for orphans"
"""What only operators may."""
