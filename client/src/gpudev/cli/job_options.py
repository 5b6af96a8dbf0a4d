"""What a job is to be, as the command line, a file and the user's own defaults say it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gpudev import Client
from gpudev.cli.ending import CommandError
from gpudev.cli.keyfile import config_folder

FIELDS = (
    "image",
    "instance_type",
    "duration_hours",
    "gpu_count",
    "command",
    "working_dir",
    "name",
    "disk_name",
    "disk_size_gb",
    "env_vars",
    "github_user",
    "jupyter_enabled",
)
INSTANCE_TYPES = {
    "h100": "p5.48xlarge",
    "h200": "p5en.48xlarge",
    "b200": "p6-b200.48xlarge",
    "a100": "p4d.24xlarge",
    "l4": "g6.12xlarge",
    "a10g": "g5.12xlarge",
    "t4": "g4dn.12xlarge",
}
"""By GPU type."""
Image = Annotated[str | None, typer.Option("--image", "-i", help="registry/name:tag")]
InstanceType = Annotated[str | None, typer.Option("--instance-type", "-t", help="Such as p5.48xlarge.")]
GpuType = Annotated[
    str | None, typer.Option("--gpu-type", help=f"In place of an instance type: {', '.join(INSTANCE_TYPES)}.")
]
Hours = Annotated[float | None, typer.Option("--hours", "-d", help="Fractions allowed; default 1.")]
WorkingDir = Annotated[str | None, typer.Option(help="Where the command starts.")]
Name = Annotated[str | None, typer.Option("--name", "-n", help="Lower-case letters, digits, hyphens.")]
DiskName = Annotated[str | None, typer.Option("--disk", help="It is made if there is none of that name.")]
DiskSize = Annotated[int | None, typer.Option("--disk-size", help="In GB, of a disk that is made.")]
Env = Annotated[
    list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, or NAME: with its value here. Repeatable.")
]
GithubUser = Annotated[str | None, typer.Option(help="Whose SSH keys open the job.")]
Jupyter = Annotated[bool | None, typer.Option("--jupyter/--no-jupyter", help="JupyterLab at once.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", exists=True, dir_okay=False, help="YAML with the API's field names; a job for each document."
    ),
]
_NEEDED = {"image": "--image", "instance_type": "--gpu-type or --instance-type"}
_DEFAULTS = "defaults.yaml"
_TEXTS = frozenset({"image", "instance_type", "command", "working_dir", "name", "disk_name", "github_user"})
_TAG = "tag:yaml.org,2002:"
_READ_FROM_TEXT = frozenset(_TAG + kind for kind in ("int", "float", "bool", "timestamp", "value", "merge"))
_NULL = f"{_TAG}null"


def given(**options: Any) -> dict[str, Any]:
    """What the command line says."""
    return {field: value for field, value in options.items() if value is not None}


def merged(read: dict[str, Any], options: dict[str, Any], env: Sequence[str] | None) -> dict[str, Any]:
    """A job as the options say, else a file, else the user's defaults; `gpu_type` is an option like others."""
    fields = _defaults() | read
    gpu_type = options.get("gpu_type")
    if gpu_type is not None:
        if "instance_type" in options:
            raise CommandError("Give --gpu-type or --instance-type, not both")
        if gpu_type not in INSTANCE_TYPES:
            raise CommandError(f"{gpu_type!r} is no GPU type", step=f"There are {', '.join(INSTANCE_TYPES)}.")
        fields["instance_type"] = INSTANCE_TYPES[gpu_type]
    fields |= {field: value for field, value in options.items() if field != "gpu_type"}
    if env:
        fields["env_vars"] = {**(fields.get("env_vars") or {}), **dict(map(_variable, env))}
    return fields


def check_needed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, when none that every job needs is missing.

    Raises:
        CommandError: One is.
    """
    missing = [option for field, option in _NEEDED.items() if not fields.get(field)]
    if missing:
        where = config_folder() / _DEFAULTS
        raise CommandError(
            f"{' and '.join(missing)} must be given", step=f"As options, in a file (`--file job.yaml`), or in {where}."
        )
    return fields


def freest_instance_type(client: Client, gpus: int) -> str | None:
    """Of the GPU type of which the most are free where so many fit together; None: of none that is known here."""
    types = [one for one in client.gpu_availability().availability.values() if one.gpu_type in INSTANCE_TYPES]
    fitting = [one for one in types if one.max_per_node >= gpus]
    best = max(fitting, key=lambda one: ((one.max_placeable or 0) >= gpus, one.available, one.total), default=None)
    return INSTANCE_TYPES[best.gpu_type] if best else None


def jobs_of_file(path: Path | None) -> list[dict[str, Any]]:
    """The jobs of a file: one for each of its documents; without a file, one of which nothing is said."""
    if path is None:
        return [{}]
    try:
        documents = [one for one in _documents(path.read_text(encoding="utf-8")) if one is not None]
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from None
    return [_fields(path, document) for document in documents] or [{}]


def _defaults() -> dict[str, Any]:
    path = config_folder() / _DEFAULTS
    return jobs_of_file(path)[0] if path.exists() else {}


def _fields(path: Path, read: Any) -> dict[str, Any]:
    if not isinstance(read, dict):
        raise CommandError(f"{path} holds no fields", step="It begins like `image: debian:12`.")
    unknown = sorted(str(field) for field in read if field not in FIELDS)
    if unknown:
        raise CommandError(f"{path}: no such field: {', '.join(unknown)}", step=f"There are {', '.join(FIELDS)}.")
    return read


def _documents(text: str) -> Iterator[Any]:
    """What YAML says, but for its numbers, booleans and times where jobs have text, which stays as it is written.

    Else a commit 0123456 would be 42798, a version 1.10 be 1.1, and a user `no` be false.
    """
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if isinstance(node, yaml.MappingNode):
                loader.flatten_mapping(node)
                node.value = [(field, _typed(loader, field, value)) for field, value in node.value]
            yield loader.construct_document(node)
    finally:
        loader.dispose()


def _typed(loader: yaml.SafeLoader, field: yaml.Node, node: yaml.Node) -> yaml.Node:
    if field.value == "env_vars" and isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        node.value = [(_as_text(name, _NULL), _as_text(value)) for name, value in node.value]
        return node
    return _as_text(node) if isinstance(field, yaml.ScalarNode) and field.value in _TEXTS else node


def _as_text(node: yaml.Node, *more: str) -> yaml.Node:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in {*_READ_FROM_TEXT, *more}:
        return node
    # another node: an alias may stand for this one where it is a number
    return yaml.ScalarNode(f"{_TAG}str", node.value, node.start_mark, node.end_mark)


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        if name not in os.environ:
            raise CommandError(
                f"--env {name}: there is no such variable here", step=f"Give its value: --env {name}=VALUE."
            )
        value = os.environ[name]
    return name, value
