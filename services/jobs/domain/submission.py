"""What a submission must be, beyond the form of its single fields, and what it then means."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import structs

from services.jobs.domain.client_env_vars import ClientFields, read_client_fields
from services.jobs.domain.environment import MAX_PATH_BYTES, is_reserved
from services.jobs.domain.image import is_image_reference
from shared.contracts.catalogue import INSTANCE_TYPES
from shared.errors import InvalidInput, Problem

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
    working_dir: str | None = None

    def canonical(self) -> bytes:
        """The same bytes for the same request; holds the values of the environment.

        A field that is younger than stored requests is not in it when nothing was said.
        """
        fields = msgspec.structs.asdict(self)
        if self.working_dir is None:
            del fields["working_dir"]
        return msgspec.json.encode(fields, order="deterministic")


def find_problems(fields: Fields) -> list[Problem]:
    """Every problem of a body that its form does not show; fields that are absent are not judged."""
    return [problem for rule in _RULES for problem in rule(fields)]


def of_entry(error: InvalidInput, index: int) -> InvalidInput:
    """What is wrong with one of several submissions: the places of its problems name its index."""
    problems = [structs.replace(problem, loc=("body", "jobs", index, *problem.loc[1:])) for problem in error.problems]
    return InvalidInput(problems, error.more)


def clashes(submissions: Sequence[Submission]) -> list[Problem]:
    """Problems of submissions that cannot be accepted together: two with one disk, or one id."""
    return [
        Problem("value_error", ("body", "jobs", index, *place), f"{text}, as entry {first} does")
        for place, text, values in (
            (("disk_name",), "Names a disk that is one job's", [one.disk_name for one in submissions]),
            (
                ("env_vars", "RESERVATION_ID"),
                "Asks for an id that is one job's",
                [one.requested_id for one in submissions],
            ),
        )
        for first, index in _repeated(values)
    ]


def _repeated(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Where each value that is there came first, and where again."""
    first: dict[Any, int] = {}
    return [
        (first[value], index)
        for index, value in enumerate(values)
        if value is not None and first.setdefault(value, index) != index
    ]


def read_submission(fields: Fields) -> Submission:
    """The submission in fields without problems; first-class fields win over the client's env_vars."""
    env: dict[str, str] = fields.get("env_vars") or {}
    said, _ = read_client_fields(env)
    instance = INSTANCE_TYPES[fields["instance_type"]]
    jupyter = fields.get("jupyter_enabled")
    return Submission(
        requested_id=said.job_id,
        image=fields["image"],
        instance_type=instance.name,
        gpu_type=instance.gpu_type,
        gpu_count=fields.get("gpu_count") or said.gpu_count or instance.gpus_per_node,
        duration_seconds=round(fields.get("duration_hours", 1) * 3600),
        disk_name=fields.get("disk_name"),
        disk_size_gb=fields.get("disk_size_gb"),
        env_vars=env,
        command=fields.get("command"),
        name=fields.get("name") or said.name,
        github_user=fields.get("github_user") or said.github_user,
        jupyter_enabled=bool(said.jupyter_enabled) if jupyter is None else jupyter,
        working_dir=fields.get("working_dir"),
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
    # compared before it is rounded: the product of a number beyond all bounds is an infinity, which has no whole number
    if hours is None or hours * 3600 >= MIN_DURATION_SECONDS - 0.5:
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
    return [Problem("value_error", ("body", "disk_size_gb"), "Allowed only together with disk_name")]


def _command(fields: Fields) -> list[Problem]:
    command = fields.get("command")
    if command is None:
        return []
    if len(command.encode()) > MAX_COMMAND_BYTES:
        return [Problem("too_long", ("body", "command"), f"Must be at most {MAX_COMMAND_BYTES} bytes")]
    line = command.partition("\r")[0].count("\n") + 1
    return [Problem("value_error", ("body", "command"), _CARRIAGE_RETURN.format(line))] if "\r" in command else []


def _working_dir(fields: Fields) -> list[Problem]:
    path = fields.get("working_dir")
    if path is None:
        return []
    if len(path.encode()) > MAX_PATH_BYTES:
        return [Problem("too_long", ("body", "working_dir"), f"Must be at most {MAX_PATH_BYTES} bytes")]
    if path.startswith("/") and ".." not in path.split("/"):
        return []
    return [Problem("value_error", ("body", "working_dir"), "Must be an absolute path without ..")]


def _environment(fields: Fields) -> list[Problem]:
    env = fields.get("env_vars") or {}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in env.items())
    reserved = [Problem("value_error", ("body", "env_vars", name), _RESERVED) for name in env if is_reserved(name)]
    if size <= MAX_ENVIRONMENT_BYTES:
        return reserved
    too_long = Problem("too_long", ("body", "env_vars"), f"Must be at most {MAX_ENVIRONMENT_BYTES} bytes in all")
    return [too_long, *reserved]


def _client_fields(fields: Fields) -> list[Problem]:
    """What the existing client passes inside env_vars means what the fields that it stands for mean."""
    said, problems = read_client_fields(fields.get("env_vars") or {})
    return [*problems, *_client_gpus(said, fields)]


def _client_gpus(said: ClientFields, fields: Fields) -> list[Problem]:
    problems: list[Problem] = []
    instance = INSTANCE_TYPES.get(fields.get("instance_type", ""))
    if said.gpu_type is not None and instance is not None and said.gpu_type != instance.gpu_type:
        text = f"Contradicts instance_type {instance.name}, whose GPUs are {instance.gpu_type}"
        problems.append(Problem("value_error", ("body", "env_vars", "GPU_TYPE"), text))
    if said.gpu_count is not None:
        problems += _count_problems(said.gpu_count, fields, ("body", "env_vars", "GPU_COUNT"))
    return problems


_RESERVED = "Belongs to the platform: the container runtime, Kubernetes or GPU Dev sets it"
# a shell takes it for a part of the word before it: `cd /data\r` finds no such directory
_CARRIAGE_RETURN = "Line {} has a carriage return, as editors on Windows write at line ends: use line feeds alone"
_RULES: tuple[Callable[[Fields], list[Problem]], ...] = (
    _image,
    _instance_type,
    _duration,
    _gpu_count,
    _disk_size,
    _command,
    _working_dir,
    _environment,
    _client_fields,
)
