"""Job ids in paths: a whole UUID, or a prefix of one."""

import re
from uuid import UUID

MIN_PREFIX_LENGTH = 8
_PATTERN = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh"
_WHOLE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IdRange = tuple[UUID, UUID]
"""The first and the last id that may be meant."""
_HEX = re.compile(r"[0-9a-f]*")


def id_range(text: str) -> IdRange | None:
    """The first and the last UUID that begin with `text`; None when it is no beginning of one, or too short.

    A range in place of LIKE: the primary key answers it, and no character is a wildcard.
    """
    text = text.lower()
    if _WHOLE.fullmatch(text):  # by far the most frequent, and answered at half the cost
        whole = UUID(text)
        return whole, whole
    if not MIN_PREFIX_LENGTH <= len(text) <= len(_PATTERN):
        return None
    if any((char == "-") != (expected == "-") for char, expected in zip(text, _PATTERN, strict=False)):
        return None
    digits = text.replace("-", "")
    if not _HEX.fullmatch(digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
