"""`gpudev submit`."""

import uuid
from typing import Annotated, Any

import typer

from gpudev.cli import job_options as of
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import open_client
from gpudev.cli.output import AsJson, print_fields, print_json, print_line
from gpudev.cli.waiting import watch
from gpudev.models import Job


def submit(  # noqa: PLR0917 - its parameters are the options of the command line
    image: of.Image = None,
    instance_type: of.InstanceType = None,
    gpu_type: of.GpuType = None,
    duration_hours: of.Hours = None,
    gpu_count: Annotated[int | None, typer.Option("--gpus", "-g", help="Default: the whole instance.")] = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="For /bin/sh; without: it idles.")] = None,
    working_dir: of.WorkingDir = None,
    name: of.Name = None,
    disk_name: of.DiskName = None,
    disk_size_gb: of.DiskSize = None,
    env: of.Env = None,
    github_user: of.GithubUser = None,
    jupyter_enabled: of.Jupyter = None,
    file: of.File = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until the job is active, or over.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key never makes two jobs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a job in the queue. What is given here goes before what the file says.

    A file of several documents (between lines of `---`) is submitted as a whole: all of its jobs, or none.
    """
    options = of.given(
        image=image,
        instance_type=instance_type,
        gpu_type=gpu_type,
        duration_hours=duration_hours,
        gpu_count=gpu_count,
        command=command,
        working_dir=working_dir,
        name=name,
        disk_name=disk_name,
        disk_size_gb=disk_size_gb,
        github_user=github_user,
        jupyter_enabled=jupyter_enabled,
    )
    jobs = [of.check_needed(of.merged(read, options, env)) for read in of.jobs_of_file(file)]
    key = idempotency_key or uuid.uuid4().hex
    if len(jobs) == 1:
        _submit(jobs[0], wait=wait, key=key, as_json=as_json)
    elif wait:
        raise CommandError("--wait is for one job", step="`gpudev list` shows how those of a file get on.")
    else:
        _submit_together(jobs, key=key, as_json=as_json)


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
