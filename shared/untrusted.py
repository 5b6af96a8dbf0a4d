"""Reading JSON that someone else wrote, such as whoever runs a pod: it is what it should be, or nothing."""

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode_untrusted(data: bytes | str, kind: type[T], *, max_bytes: int) -> T | None:
    """The value; None when the text is longer than `max_bytes`, is no JSON, nests too deep or is of another form."""
    if len(data) > max_bytes:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError):  # ValueError: what is no UTF-8
        return None
