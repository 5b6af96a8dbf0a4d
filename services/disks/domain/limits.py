"""What one user may have."""

import msgspec

from shared.errors import Conflict


class LimitReached(Conflict):
    """The user may have no more disks, or no more GB."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may have in disks that are not deleted."""

    disks: int
    gb: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one user has in disks that are not deleted."""

    disks: int
    gb: int


def check_limits(usage: Usage, size_gb: int, limits: Limits) -> None:
    """Refuse one more disk of `size_gb`.

    Raises:
        LimitReached: With the limit and what there is.
    """
    if usage.disks + 1 > limits.disks:
        raise LimitReached(f"You have {usage.disks} disks; {limits.disks} is the limit")
    if usage.gb + size_gb > limits.gb:
        raise LimitReached(
            f"You have disks of {usage.gb} GB in all; {size_gb} GB more would exceed the limit of {limits.gb} GB"
        )
