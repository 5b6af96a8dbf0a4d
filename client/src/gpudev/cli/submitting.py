"""`gpudev submit`."""

import os
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import open_client
from gpudev.cli.output import AsJson, print_fields, print_json, print_line
from gpudev.cli.waiting import watch
from gpudev.models import Job

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
_NEEDED = {"image": "--image", "instance_type": "--instance-type"}


def submit(  # noqa: PLR0917 - its parameters are the options of the command line
    image: Annotated[str | None, typer.Option("--image", "-i", help="registry/name:tag")] = None,
    instance_type: Annotated[str | None, typer.Option("--instance-type", "-t", help="Such as p5.48xlarge.")] = None,
    duration_hours: Annotated[float | None, typer.Option("--hours", "-d", help="Fractions allowed; default 1.")] = None,
    gpu_count: Annotated[int | None, typer.Option("--gpus", "-g", help="Default: the whole instance.")] = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="For /bin/sh; without: it idles.")] = None,
    working_dir: Annotated[str | None, typer.Option(help="Where the command starts.")] = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Lower-case letters, digits, hyphens.")] = None,
    disk_name: Annotated[str | None, typer.Option("--disk", help="It is made if there is none of that name.")] = None,
    disk_size_gb: Annotated[int | None, typer.Option("--disk-size", help="In GB, of a disk that is made.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, or NAME: with its value here. Repeatable.")
    ] = None,
    github_user: Annotated[str | None, typer.Option(help="Whose SSH keys open the job.")] = None,
    jupyter_enabled: Annotated[bool | None, typer.Option("--jupyter/--no-jupyter", help="JupyterLab at once.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="YAML with the API's field names; each document is a job."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until the job is active, or over.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key never makes two jobs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a job in the queue. What is given here goes before what the file says.

    A file of several documents (between lines of `---`) is submitted as a whole: all of its jobs, or none.
    """
    given = {
        "image": image,
        "instance_type": instance_type,
        "duration_hours": duration_hours,
        "gpu_count": gpu_count,
        "command": command,
        "working_dir": working_dir,
        "name": name,
        "disk_name": disk_name,
        "disk_size_gb": disk_size_gb,
        "github_user": github_user,
        "jupyter_enabled": jupyter_enabled,
    }
    options = {field: value for field, value in given.items() if value is not None}
    jobs = [_merged(read, options, env or []) for read in _from_file(file)]
    key = idempotency_key or uuid.uuid4().hex
    if len(jobs) == 1:
        _submit(jobs[0], wait=wait, key=key, as_json=as_json)
    elif wait:
        raise CommandError("--wait is for one job", step="`gpudev list` shows how those of a file get on.")
    else:
        _submit_together(jobs, key=key, as_json=as_json)


def _merged(read: dict[str, Any], options: dict[str, Any], env: list[str]) -> dict[str, Any]:
    """A job as the file and the options say."""
    fields = read | options
    if env:
        fields["env_vars"] = {**(fields.get("env_vars") or {}), **dict(map(_variable, env))}
    missing = [option for field, option in _NEEDED.items() if not fields.get(field)]
    if missing:
        raise CommandError(
            f"{' and '.join(missing)} must be given", step="As options, or in a file: `--file job.yaml`."
        )
    return fields


def _submit_together(jobs: list[dict[str, Any]], *, key: str, as_json: bool) -> None:
    with open_client() as client:
        answer = client.submit_jobs(jobs=jobs, idempotency_key=key)
    if as_json:
        print_json(answer)
        return
    for job in answer.jobs:
        print_line(job.job_id)


def _submit(fields: dict[str, Any], *, wait: bool, key: str, as_json: bool) -> None:
    with open_client() as client:
        answer = client.submit_job(**fields, idempotency_key=key)
        if not wait:
            if as_json:
                print_json(answer)
            else:
                print_line(answer.job_id)
            return
        try:
            job = watch(client, client.launch_job(**fields, idempotency_key=key))
        except KeyboardInterrupt:
            goes_on = f"The job {answer.job_id[:8]} goes on"
            step = f"`gpudev show {answer.job_id[:8]}` shows it, `gpudev cancel {answer.job_id[:8]}` ends it."
            raise CommandError(goes_on, ExitCode.INTERRUPTED, step) from None
    if as_json:
        print_json(job)
    else:
        _print_outcome(job)
    if job.ended and job.status != "completed":
        step = f"`gpudev logs {job.job_id[:8]}` and `gpudev show {job.job_id[:8]}` tell more."
        raise CommandError(f"The job {job.status}", ExitCode.REFUSED, step)


def _print_outcome(job: Job) -> None:
    print_line(job.job_id)
    print_fields(
        [
            ("status", job.status),
            ("reason", job.failure_reason or job.status_reason),
            ("expires", job.expires_at),
            ("ssh", job.ssh_command),
            ("jupyter", job.jupyter_url),
        ]
    )


def _from_file(path: Path | None) -> list[dict[str, Any]]:
    """The jobs of a file: one for each of its documents; without a file, one of which nothing is said."""
    if path is None:
        return [{}]
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from None
    return [_fields(path, document) for document in documents] or [{}]


def _fields(path: Path, read: Any) -> dict[str, Any]:
    if not isinstance(read, dict):
        raise CommandError(f"{path} holds no fields", step="It begins like `image: debian:12`.")
    unknown = sorted(str(field) for field in read if field not in FIELDS)
    if unknown:
        raise CommandError(f"{path}: no such field: {', '.join(unknown)}", step=f"There are {', '.join(FIELDS)}.")
    if isinstance(read.get("env_vars"), dict):
        # YAML makes numbers and booleans of what environments have as text
        read["env_vars"] = {str(name): _plain(value) for name, value in read["env_vars"].items()}
    return read


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        if name not in os.environ:
            raise CommandError(
                f"--env {name}: there is no such variable here", step=f"Give its value: --env {name}=VALUE."
            )
        value = os.environ[name]
    return name, value
