"""Which job is meant: by its id, the beginning of it, its name, or because there is only one."""

import re
from typing import Annotated

import typer

from gpudev import Client, errors
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.models import Job

LIVE = "pending,queued,preparing,active"
_WHOLE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]*")
_SERVED_LENGTH = 8
"""Of a beginning that the service itself takes."""
Named = Annotated[
    str | None,
    typer.Argument(metavar="[JOB]", help="Its id, the beginning of it, or its name; may be left out if there is one."),
]


def pick(client: Client, named: str | None) -> str:
    """The id of the job that is meant.

    Raises:
        CommandError: None is, or it is not clear which.
    """
    if named is not None and _WHOLE_ID.fullmatch(named):
        return named
    live = list(client.iter_jobs(status=LIVE))
    if named is None:
        return _only(live or list(client.iter_jobs()), "You have")
    called = [job for job in live if job.name == named]
    if called:
        return _only(called, f"{named!r} names")
    if _BEGINNING.fullmatch(named) and len(named) >= _SERVED_LENGTH:
        try:
            return client.get_job(named).job_id
        except errors.NotFound:
            pass
    every = list(client.iter_jobs())
    called = [job for job in every if job.name == named]
    if called:
        return called[0].job_id  # of those that are over, the last one
    begun = [job for job in every if job.job_id.startswith(named)]
    return _only(begun, f"{named!r} begins")


def is_called(client: Client, word: str) -> bool:
    """Whether a job that is not over has this name."""
    return any(job.name == word for job in client.iter_jobs(status=LIVE))


def _only(jobs: list[Job], what: str) -> str:
    if not jobs:
        raise CommandError("There is no such job", ExitCode.NOT_FOUND, "`gpudev list` shows your jobs.")
    if len(jobs) > 1:
        told = ", ".join(f"{job.job_id[:8]} ({job.name or 'no name'}, {job.status})" for job in jobs[:5])
        raise CommandError(f"{what} {len(jobs)} jobs: {told}", ExitCode.WRONG, "Name one by its id.")
    return jobs[0].job_id
