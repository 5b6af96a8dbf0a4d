"""The Prefer header (RFC 7240), of which `wait` is honoured: hold the answer until the outcome is known."""

import re
from typing import Any

from litestar import Request

MAX_WAIT_SECONDS = 30
PREFER_WAIT = "prefer_wait"
"""Name in the `opt` of handlers that honour it."""
_PREFERENCES = re.compile(r'(?:[^,;"]|"(?:[^"\\]|\\.)*(?:"|\Z)|;)+')
_WAIT = re.compile(r"\s*wait\s*=\s*([0-9]{1,9})\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_IS_WAIT = re.compile(r"\s*wait\s*(?:[=;]|\Z)", re.IGNORECASE)


def preferred_wait(request: Request[Any, Any, Any]) -> int | None:
    """Seconds that the client would wait for the outcome, at most 30; None when it does not say.

    What is not understood is ignored, and of several only the first counts (RFC 7240, section 2).
    """
    return read_wait(", ".join(request.headers.getall("prefer", [])))


def read_wait(prefer: str) -> int | None:
    """The same from the header's text; `wait` is section 4.3."""
    first = next((item for item in _PREFERENCES.findall(prefer) if _IS_WAIT.match(item)), None)
    found = _WAIT.fullmatch(first) if first is not None else None
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else None


def applied_wait(seconds: int | None) -> dict[str, str]:
    """Header of the answer: the preference that was honoured; none when none was."""
    return {} if seconds is None else {"Preference-Applied": f"wait={seconds}"}
