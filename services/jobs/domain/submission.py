"""What a submission must be, beyond the form of its single fields, and what it then means."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from services.jobs.domain.image import is_image_reference
from shared.contracts.catalogue import INSTANCE_TYPES
from shared.errors import Problem

DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
GITHUB_NAME = r"(?=.{1,39}$(?!\n))[A-Za-z0-9](?:-?[A-Za-z0-9])*"
MIN_DURATION_SECONDS = 300
MAX_DURATION_HOURS = 72
MAX_ENVIRONMENT_BYTES = 64 * 1024
MAX_COMMAND_BYTES = 16 * 1024
GPU_COUNTS = (1, 2, 4, 8)

Fields = Mapping[str, Any]
"""Fields of a body whose form is good, by name."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A valid submission with its defaults filled in."""

    requested_id: UUID | None
    """Id that the client chose; None: one is made."""
    image: str
    instance_type: str
    gpu_type: str
    gpu_count: int
    duration_seconds: int
    disk_name: str | None
    disk_size_gb: int | None
    env_vars: dict[str, str]
    command: str | None
    name: str | None
    github_user: str | None
    jupyter_enabled: bool

    def canonical(self) -> bytes:
        """The same bytes for the same request; holds the values of the environment."""
        return msgspec.json.encode(self, order="deterministic")


def find_problems(fields: Fields) -> list[Problem]:
    """Every problem of a body that its form does not show; fields that are absent are not judged."""
    return [problem for rule in _RULES for problem in rule(fields)]


def read_submission(fields: Fields) -> Submission:
    """The submission in fields without problems; first-class fields win over the client's env_vars."""
    env: dict[str, str] = fields.get("env_vars") or {}
    instance = INSTANCE_TYPES[fields["instance_type"]]
    gpu_count = fields.get("gpu_count") or (int(env["GPU_COUNT"]) if "GPU_COUNT" in env else instance.gpus_per_node)
    jupyter = fields.get("jupyter_enabled")
    return Submission(
        requested_id=UUID(env["RESERVATION_ID"]) if "RESERVATION_ID" in env else None,
        image=fields["image"],
        instance_type=instance.name,
        gpu_type=instance.gpu_type,
        gpu_count=gpu_count,
        duration_seconds=round(fields.get("duration_hours", 1) * 3600),
        disk_name=fields.get("disk_name"),
        disk_size_gb=fields.get("disk_size_gb"),
        env_vars=env,
        command=fields.get("command"),
        name=fields.get("name") or env.get("POD_NAME"),
        github_user=fields.get("github_user") or env.get("GITHUB_USER"),
        jupyter_enabled=env.get("JUPYTER_ENABLED", "").lower() == "true" if jupyter is None else jupyter,
    )


def _image(fields: Fields) -> list[Problem]:
    if "image" not in fields or is_image_reference(fields["image"]):
        return []
    return [Problem("value_error", ("body", "image"), "Must be an image reference: registry/name:tag@digest")]


def _instance_type(fields: Fields) -> list[Problem]:
    if "instance_type" not in fields or fields["instance_type"] in INSTANCE_TYPES:
        return []
    return [Problem("literal_error", ("body", "instance_type"), f"Must be one of {', '.join(INSTANCE_TYPES)}")]


def _duration(fields: Fields) -> list[Problem]:
    hours = fields.get("duration_hours")
    if hours is None or round(hours * 3600) >= MIN_DURATION_SECONDS:
        return []
    return [Problem("greater_than_equal", ("body", "duration_hours"), "Must be at least 5 minutes (0.0834 hours)")]


def _gpu_count(fields: Fields) -> list[Problem]:
    count = fields.get("gpu_count")
    return [] if count is None else _count_problems(count, fields, ("body", "gpu_count"))


def _count_problems(count: int, fields: Fields, loc: tuple[str, ...]) -> list[Problem]:
    instance = INSTANCE_TYPES.get(fields.get("instance_type", ""))
    allowed = [n for n in GPU_COUNTS if instance is None or n <= instance.gpus_per_node]
    if count in allowed:
        return []
    of_type = f" on {instance.name}" if instance else ""
    return [Problem("literal_error", loc, f"Must be one of {', '.join(map(str, allowed))}{of_type}")]


def _disk_size(fields: Fields) -> list[Problem]:
    if fields.get("disk_size_gb") is None or fields.get("disk_name") is not None:
        return []
    return [Problem("value_error", ("body", "disk_size_gb"), "Only together with disk_name")]


def _command(fields: Fields) -> list[Problem]:
    command = fields.get("command")
    if command is None or len(command.encode()) <= MAX_COMMAND_BYTES:
        return []
    return [Problem("too_long", ("body", "command"), f"Must be at most {MAX_COMMAND_BYTES} bytes")]


def _environment(fields: Fields) -> list[Problem]:
    env = fields.get("env_vars") or {}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in env.items())
    if size <= MAX_ENVIRONMENT_BYTES:
        return []
    return [Problem("too_long", ("body", "env_vars"), f"Must be at most {MAX_ENVIRONMENT_BYTES} bytes in all")]


def _client_fields(fields: Fields) -> list[Problem]:
    """What the existing client passes inside env_vars is judged like the fields that it stands for."""
    env = fields.get("env_vars") or {}
    problems = _client_gpus(env, fields)
    for name, (pattern, text) in _CLIENT_FORMS.items():
        if name in env and not pattern.fullmatch(env[name]):
            problems.append(Problem("value_error", ("body", "env_vars", name), text))
    return problems


def _client_gpus(env: Mapping[str, str], fields: Fields) -> list[Problem]:
    problems: list[Problem] = []
    instance = INSTANCE_TYPES.get(fields.get("instance_type", ""))
    if "GPU_TYPE" in env and instance is not None and env["GPU_TYPE"].lower() != instance.gpu_type:
        text = f"Contradicts instance_type {instance.name}, whose GPUs are {instance.gpu_type}"
        problems.append(Problem("value_error", ("body", "env_vars", "GPU_TYPE"), text))
    if "GPU_COUNT" in env:
        count = int(env["GPU_COUNT"]) if re.fullmatch(r"[0-9]{1,2}", env["GPU_COUNT"], re.ASCII) else 0
        problems += _count_problems(count, fields, ("body", "env_vars", "GPU_COUNT"))
    return problems


_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_CLIENT_FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    "RESERVATION_ID": (re.compile(_UUID), "Must be a UUID"),
    "POD_NAME": (re.compile(DNS_LABEL), "Must be a DNS label: lower-case letters, digits and inner hyphens"),
    "GITHUB_USER": (re.compile(GITHUB_NAME), "Must be a GitHub user name"),
    "JUPYTER_ENABLED": (re.compile("true|false", re.IGNORECASE), "Must be true or false"),
}
_RULES: tuple[Callable[[Fields], list[Problem]], ...] = (
    _image,
    _instance_type,
    _duration,
    _gpu_count,
    _disk_size,
    _command,
    _environment,
    _client_fields,
)
