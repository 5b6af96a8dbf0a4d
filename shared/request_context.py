"""The id of the request being served: logged, answered, and carried into the events that it causes."""

import os
import re
from contextvars import ContextVar

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def current_request_id() -> str | None:
    """Id of the request being served; None outside of any."""
    return _request_id.get()


def begin_request(given: str | None) -> str:
    """Take the caller's id if it is 1 to 128 plain characters, else make one; it becomes the current one."""
    request_id = given if given and _ACCEPTED.fullmatch(given) else os.urandom(16).hex()
    _request_id.set(request_id)
    return request_id
