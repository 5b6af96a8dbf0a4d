"""What the existing client says inside env_vars: free text, which becomes fields of a submission.

It is read generously where that harms nobody; what cannot be meant is refused. An empty value says nothing.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from shared.errors import Problem

DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
GITHUB_NAME = r"(?=.{1,39}$(?!\n))[A-Za-z0-9](?:-?[A-Za-z0-9])*"
_LABEL_LENGTH = 63
_MARK = "---"
"""Between the readable part of a made label and its hash: no name that is taken as it is has it."""
_HASH_LENGTH = 8
_UUID = r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}"
_YES = frozenset({"true", "1", "yes", "on"})
_NO = frozenset({"false", "0", "no", "off"})


class ClientFields(msgspec.Struct, frozen=True, kw_only=True):
    """What env_vars say; None: nothing, or nothing that can be read."""

    job_id: UUID | None = None
    gpu_type: str | None = None
    gpu_count: int | None = None
    github_user: str | None = None
    jupyter_enabled: bool | None = None
    name: str | None = None


def read_client_fields(environment: Mapping[str, str]) -> tuple[ClientFields, list[Problem]]:
    """The fields in env_vars, and a problem for each that cannot be read."""
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for variable, (field, read, must_be) in _READERS.items():
        text = environment.get(variable, "")
        if text.strip():
            found[field] = read(text)
            if found[field] is None:
                problems.append(Problem("value_error", ("body", "env_vars", variable), must_be))
    return ClientFields(**found), problems


def label_of(text: str) -> str:
    """A DNS label for any text: the text itself where it is one, else its readable part and a hash of all of it.

    Different texts have different labels, as in JupyterHub's kubespawner (`slugs.py`).
    """
    if re.fullmatch(DNS_LABEL, text) and _MARK not in text:
        return text
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower())
    readable = readable[: _LABEL_LENGTH - len(_MARK) - _HASH_LENGTH].strip("-") or "job"
    return f"{readable}{_MARK}{sha256(text.encode()).hexdigest()[:_HASH_LENGTH]}"


def _job_id(text: str) -> UUID | None:
    return UUID(text.strip()) if re.fullmatch(_UUID, text.strip()) else None


def _gpu_type(text: str) -> str:
    return text.strip().lower()


def _gpu_count(text: str) -> int | None:
    found = re.fullmatch(r"([0-9]{1,3})(?:\.0+)?", text.strip(), re.ASCII)
    return int(found[1]) if found else None


def _github_user(text: str) -> str | None:
    name = text.strip().removeprefix("@")
    return name if re.fullmatch(GITHUB_NAME, name) else None


def _jupyter_enabled(text: str) -> bool | None:
    word = text.strip().lower()
    return True if word in _YES else False if word in _NO else None


_READERS: Mapping[str, tuple[str, Callable[[str], object], str]] = {
    "RESERVATION_ID": ("job_id", _job_id, "Must be a UUID"),
    "GPU_TYPE": ("gpu_type", _gpu_type, ""),
    "GPU_COUNT": ("gpu_count", _gpu_count, "Must be a number"),
    "GITHUB_USER": ("github_user", _github_user, "Must be a GitHub user name"),
    "JUPYTER_ENABLED": ("jupyter_enabled", _jupyter_enabled, "Must be true or false"),
    "POD_NAME": ("name", label_of, ""),
}
"""Of each variable: its field, what reads it, and what it must be where that is None."""
