"""Bodies of requests."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.jobs.domain.client_env_vars import DNS_LABEL, GITHUB_NAME
from services.jobs.domain.environment import MAX_NAME_LENGTH, MAX_PATH_BYTES, RESERVED_NAMES, RESERVED_PREFIXES
from services.jobs.domain.image import MAX_IMAGE_LENGTH
from services.jobs.domain.submission import (
    MAX_COMMAND_BYTES,
    MAX_DURATION_HOURS,
    MAX_ENVIRONMENT_BYTES,
    find_problems,
    of_entry,
)
from shared.contracts.catalogue import INSTANCE_TYPES
from shared.errors import MAX_PROBLEMS, InvalidInput, Problem
from shared.web.validation import MULTILINE_TEXT, PLAIN_TEXT, Body, decode_body

MAX_EXTENSION_HOURS = 8760
"""A year. What a job may really have is decided by its start and the service's settings."""
_END = r"$(?!\n)"
DiskName = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z0-9_-]{{1,63}}{_END}",
        max_length=63,
        description="Must be letters, digits, hyphens and underscores, at most 63",
    ),
]
EnvName = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z_][A-Za-z0-9_]*{_END}",
        max_length=MAX_NAME_LENGTH,
        description=f"Must be letters, digits and underscores, not beginning with a digit, at most {MAX_NAME_LENGTH}",
    ),
]
_RESERVED = ", ".join([*RESERVED_NAMES, *(f"{prefix}*" for prefix in RESERVED_PREFIXES)])
_ENVIRONMENT = f"Set for the command and every session. Names that belong to the platform are refused: {_RESERVED}"
EnvValue = Annotated[str, Meta(max_length=MAX_ENVIRONMENT_BYTES, pattern=MULTILINE_TEXT)]


class SubmitRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    image: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_IMAGE_LENGTH,
            pattern=PLAIN_TEXT,
            description="Image reference: registry/name:tag@digest",
            examples=["pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime"],
        ),
    ]
    instance_type: Annotated[str, Meta(max_length=64, pattern=PLAIN_TEXT, examples=list(INSTANCE_TYPES))]
    duration_hours: Annotated[
        float,
        Meta(le=MAX_DURATION_HOURS, description="5 minutes to 72 hours, fractions allowed", examples=[4]),
    ] = 1.0
    disk_name: DiskName | None = None
    disk_size_gb: Annotated[int, Meta(ge=10, le=10000)] | None = None
    env_vars: Annotated[dict[EnvName, EnvValue], Meta(max_length=100, description=_ENVIRONMENT)] | None = None
    command: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_COMMAND_BYTES,
                pattern=MULTILINE_TEXT,
                description="For /bin/sh -c; must be text without control characters other than tabs and line feeds",
                examples=["python train.py --epochs 100"],
            ),
        ]
        | None
    ) = None
    gpu_count: Annotated[int, Meta(description="1, 2, 4 or 8; default: the whole instance", examples=[4])] | None = None
    name: (
        Annotated[
            str,
            Meta(
                pattern=f"^{DNS_LABEL}{_END}",
                max_length=63,
                description="Must be a DNS label: lower-case letters, digits and inner hyphens",
            ),
        ]
        | None
    ) = None
    github_user: (
        Annotated[str, Meta(pattern=f"^{GITHUB_NAME}{_END}", max_length=39, description="Must be a GitHub user name")]
        | None
    ) = None
    jupyter_enabled: bool | None = None
    working_dir: (
        Annotated[
            str,
            Meta(
                pattern=PLAIN_TEXT,
                max_length=MAX_PATH_BYTES,
                description="Directory in which the command starts: an absolute path, created if it does not exist",
                examples=["/home/dev/project"],
            ),
        ]
        | None
    ) = None


class SubmitBody(Body[SubmitRequest]):
    """Decodes a submission and finds all its problems: those of form and those of meaning."""

    SECRET_FIELDS = frozenset({"env_vars"})

    def decode(self, value: bytes) -> SubmitRequest:
        """The submission.

        Raises:
            InvalidInput: With all problems.
        """
        return read_request(value)


MOST_TOGETHER = 500
_Bounds = Meta(min_length=1, max_length=MOST_TOGETHER, description="1 to 500 submissions, 1 MB in all")


class SubmitBatchRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    jobs: Annotated[list[SubmitRequest], _Bounds]


class _Entries(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    jobs: Annotated[list[msgspec.Raw], _Bounds]


class _Anything(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    jobs: Annotated[list[Any], _Bounds]


class SubmitBatchBody(Body[SubmitBatchRequest]):
    """Decodes submissions and finds the problems of each; their places name its index."""

    SECRET_FIELDS = frozenset({"jobs"})

    def decode(self, value: bytes) -> SubmitBatchRequest:
        """The submissions.

        Raises:
            InvalidInput: With all problems of all of them, as far as they are told.
        """
        try:
            entries = msgspec.json.decode(value, type=_Entries).jobs
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decode_body(value, _Anything)
            raise
        requests: list[SubmitRequest] = []
        problems: list[Problem] = []
        more = 0
        for index, entry in enumerate(entries):
            if len(problems) > MAX_PROBLEMS:  # enough to mend: of the rest it is only counted which are no good
                more += not _is_well_formed(entry)
                continue
            try:
                requests.append(read_request(bytes(entry)))
            except InvalidInput as error:
                problems += of_entry(error, index).problems
                more += error.more
        if problems:
            raise InvalidInput(problems, more)
        return SubmitBatchRequest(jobs=requests)


def _is_well_formed(raw: msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(raw, type=SubmitRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def read_request(raw: bytes) -> SubmitRequest:
    """A submission of which form and meaning are good.

    Raises:
        InvalidInput: With all problems, without inputs.
    """
    try:
        request = decode_body(raw, SubmitRequest)
    except InvalidInput as error:
        if error.more:  # not every bad field is known, and there is enough to mend
            raise
        problems = [*error.problems, *find_problems(_well_formed(raw, error))]
        raise InvalidInput(problems) from None
    problems = find_problems(msgspec.structs.asdict(request))
    if problems:
        raise InvalidInput(problems)
    return request


def _well_formed(raw: bytes, error: InvalidInput) -> dict[str, object]:
    """Fields whose form is good, so that their meaning is judged too although others are not."""
    bad = {problem.loc[1] for problem in error.problems if len(problem.loc) > 1}
    if not bad:
        return {}
    body = msgspec.json.decode(raw)
    return {
        field.name: body[field.name]
        for field in msgspec.structs.fields(SubmitRequest)
        if field.name in body and field.name not in bad
    }


class ExtendRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    extension_hours: Annotated[
        float, Meta(gt=0, le=MAX_EXTENSION_HOURS, description="More than 0, fractions allowed", examples=[2])
    ]


class AddUserRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    github_username: Annotated[
        str,
        Meta(
            pattern=f"^{GITHUB_NAME}{_END}",
            max_length=39,
            description="Must be a GitHub user name",
            examples=["jeanschmidt"],
        ),
    ]


MOST_PRIORITY = 1000


class PriorityRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    priority: Annotated[
        int,
        Meta(
            ge=-MOST_PRIORITY,
            le=MOST_PRIORITY,
            description="Jobs with a higher priority go first; the default is 0",
            examples=[10],
        ),
    ]
