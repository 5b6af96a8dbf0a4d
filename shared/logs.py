"""Structured logs (JSON lines on stderr) that can hold no secret.

Two nets: callers log named facts, never bodies or headers; and whatever still looks like a secret, by its field's name
or by its form, is masked before it is written.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import structlog

_SECRET_NAMES = re.compile(r"secret|password|token|api_key|authorization|env_vars|credential|private", re.IGNORECASE)
_SECRET_FORMS = re.compile(
    r"gpudev_[0-9A-Za-z]{6,}_[0-9A-Za-z]{20,}"  # our API keys
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password in a URL
    r"|(?<=[Bb]earer )\S+"
    # the form of an AWS secret access key; in lower case throughout, with a slash, it is a path: of random keys one in
    # 10¹⁰ is so
    r"|(?<![A-Za-z0-9/+])(?![a-z0-9]*/[a-z0-9/]*(?![A-Za-z0-9/+]))[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
)
_MASK = "***"


def configure_logs(*, service: str, replica: str, level: str = "info") -> None:
    """Send structlog and the standard library's logging through one masking JSON pipeline to stderr."""
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_fields({"service": service, "replica": replica}),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer = structlog.processors.JSONRenderer()
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_StandardError,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=processors, processor=renderer))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))


class _StandardError:
    """Writes lines to standard error, and never fails: who reads it may be gone, and the work goes on without them."""

    def __init__(self, *_: Any) -> None:
        pass

    def msg(self, line: str) -> None:
        """Write one line, if it can be written."""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")  # in one piece: threads log, too
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: masks by field name and by the form of the value, however deeply nested."""
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


def mask_text(text: str) -> str:
    """`text` with everything masked that has the form of a secret."""
    return _SECRET_FORMS.sub(_MASK, text)


def _masked(name: str, value: Any) -> Any:
    if value is not None and _SECRET_NAMES.search(name):
        return _MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {key: _masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", item) for item in value]
    return value if isinstance(value, int | float | bool | None) else mask_text(str(value))


def _with_fields(fields: dict[str, str]) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.update(fields)
        return event

    return add
