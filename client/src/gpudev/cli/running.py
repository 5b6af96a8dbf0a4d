"""`gpudev run`: this folder and one command, in a job of their own, as if it ran here."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from gpudev import Client, errors
from gpudev.cli import job_options as of
from gpudev.cli.carrying import LineLost, bring_back, finish, send
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.folder import Entry, entries_of
from gpudev.cli.keyfile import open_client
from gpudev.cli.output import tell
from gpudev.cli.picking import pick
from gpudev.cli.pod import Run, job_command, new_run_id, run_of
from gpudev.cli.ssh import HOME
from gpudev.cli.streaming import Cancelled, End, Following, has_input, write_output
from gpudev.cli.waiting import watch
from gpudev.models import Job
from gpudev.operations import LONGEST_WAIT

T = TypeVar("T")
RUN_ARGUMENTS = {"allow_interspersed_args": False}
_LOOK_SECONDS = 5.0
_PAUSE_SECONDS = 2.0
_TRIES = 5


def run(  # noqa: PLR0917 - its parameters are the options of the command line
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="A single word is given to the shell."),
    ] = None,
    attach: Annotated[str | None, typer.Option(metavar="JOB", help="Find a run again, by its job.")] = None,
    outs: Annotated[
        list[str] | None, typer.Option("--out", "-o", help="File or folder to bring back at the end. Repeatable.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Let the job live on when the command has ended.")] = False,
    sends: Annotated[bool, typer.Option("--send/--no-send", help="This folder, without what git ignores.")] = True,
    image: of.Image = None,
    instance_type: of.InstanceType = None,
    gpu_type: of.GpuType = None,
    duration_hours: of.Hours = None,
    gpu_count: Annotated[int | None, typer.Option("--gpus", "-g", help="Default: 1.")] = None,
    working_dir: Annotated[str | None, typer.Option(help="Where this folder goes; default: into the home.")] = None,
    name: of.Name = None,
    disk_name: of.DiskName = None,
    disk_size_gb: of.DiskSize = None,
    env: of.Env = None,
    github_user: of.GithubUser = None,
    jupyter_enabled: of.Jupyter = None,
    file: of.File = None,
) -> None:
    """Send this folder into a new job, run a command there as if it ran here, and end as it ends.

    Ctrl-C interrupts the command, twice cancels the job. A cut line does not end it: `gpudev run --attach JOB`.
    """
    if attach is not None:
        _attach(attach)
    if not command:
        raise CommandError("There is nothing to run", step="`gpudev run -- python train.py`, or `--attach JOB`.")
    options = of.given(
        image=image,
        instance_type=instance_type,
        gpu_type=gpu_type,
        duration_hours=duration_hours,
        gpu_count=gpu_count,
        working_dir=working_dir,
        name=name,
        disk_name=disk_name,
        disk_size_gb=disk_size_gb,
        github_user=github_user,
        jupyter_enabled=jupyter_enabled,
    )
    documents = of.jobs_of_file(file)
    if len(documents) > 1:
        raise CommandError("A run is one job", step="Give a file with one document.")
    fields = of.merged(documents[0], options, env)
    if not fields.get("github_user"):
        raise CommandError("--github-user must be given", step="SSH keys of this GitHub user are to open the job.")
    folder = Path.cwd()
    entries = _entries(folder) if sends else []
    with open_client() as client:
        _begin(client, fields, folder, entries, argv=command, outs=[_out(path) for path in outs or ()], keep=keep)


def _begin(
    client: Client,
    fields: dict[str, Any],
    folder: Path,
    entries: Sequence[Entry],
    *,
    argv: list[str],
    outs: list[str],
    keep: bool,
) -> NoReturn:
    run_id = new_run_id()
    fields = {"gpu_count": 1, "working_dir": _pod_folder(folder), **fields, "command": job_command(run_id, argv)}
    if not fields.get("instance_type"):
        fields["instance_type"] = of.freest_instance_type(client, fields["gpu_count"])
    of.check_needed(fields)
    job_id = client.submit_job(**fields, idempotency_key=run_id).job_id
    try:
        job = watch(client, client.launch_job(**fields, idempotency_key=run_id))
        if job.ended:
            raise _over(job)
        found = Run(job_id, run_id, fields["working_dir"])
        reads = has_input()
        _tried(_Look(job_id), lambda: send(found, folder, entries, argv=argv, outs=outs, keep=keep, reads=reads))
    except (KeyboardInterrupt, CommandError, errors.GpuDevError) as error:
        _cancel(client, job_id)
        if isinstance(error, KeyboardInterrupt):
            raise CommandError(f"The job {job_id[:8]} is cancelled", ExitCode.INTERRUPTED) from None
        raise
    tell(f"Runs in the job {job_id[:8]}; `gpudev run --attach {job_id[:8]}` finds it again.")
    _follow(client, found, folder)


def _attach(named: str) -> NoReturn:
    with open_client() as client:
        job = client.get_job(pick(client, named))
        found = run_of(job)
        if found is None:
            step = f"`gpudev logs -f {job.job_id[:8]}` follows its own command."
            raise CommandError(f"{job.job_id[:8]} was not begun by `gpudev run`", ExitCode.STATE, step)
        if job.waits or job.status == "preparing":
            raise CommandError(f"{job.job_id[:8]} is {job.status}: its files were not sent", ExitCode.STATE)
        _follow(client, found, Path.cwd())


def _follow(client: Client, found: Run, folder: Path) -> NoReturn:
    """To the command's end, and what comes then."""
    look = _Look(found.job_id)

    async def ended() -> tuple[End, int]:
        following = Following(found, lambda: asyncio.to_thread(look))
        return await following.end(), following.received

    try:
        end, received = asyncio.run(ended())
    except Cancelled:
        _cancel(client, found.job_id)
        raise CommandError(f"The job {found.job_id[:8]} is cancelled", ExitCode.INTERRUPTED) from None
    if end.job is not None:
        _print_rest(client, found.job_id, received)
        if end.job.status != "completed":
            tell(f"gpudev: The job {end.job.status}: {end.why}")
        raise CommandError("", end.code)
    try:
        _conclude(found, folder, end, look)
    except KeyboardInterrupt:
        step = f"`gpudev run --attach {found.job_id[:8]}` does, within 15 minutes."
        raise CommandError("Not everything was brought back", ExitCode.INTERRUPTED, step) from None


def _conclude(found: Run, folder: Path, end: End, look: Callable[[], Job | None]) -> NoReturn:
    """Bring back what was asked for, let the job end, and end as the command did."""
    missing = _tried(look, lambda: bring_back(found, folder))
    for path in missing:
        tell(f"gpudev: {path}: there is nothing to bring back")
    if end.why:
        tell(f"gpudev: {end.why}")
    if _tried(look, lambda: finish(found)):
        short = found.job_id[:8]
        tell(f"The job {short} lives on: `gpudev ssh {short}` enters it, `gpudev cancel {short}` ends it.")
    raise CommandError("", end.code or (ExitCode.REFUSED if missing else ExitCode.DONE))


def _print_rest(client: Client, job_id: str, received: int) -> None:
    """Of a job that is over: what of its log has not been seen here."""
    with suppress(errors.GpuDevError):
        position = 0
        for piece in client.follow_job_logs(job_id):
            fresh = piece[max(0, received - position) :]
            position += len(piece)
            if fresh:
                write_output(fresh)


class _Look:
    """The job as it is now; None while it cannot be asked for."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._told = False

    def __call__(self) -> Job | None:
        try:
            with open_client(retry_seconds=_LOOK_SECONDS) as client:
                return client.get_job(self._job_id)
        except (errors.Unavailable, errors.ConnectionFailed, errors.RateLimited):
            return None
        except (errors.Unauthenticated, CommandError):
            if not self._told:
                self._told = True
                tell("Your key has ended. Log in from another terminal (`gpudev login`): the command and this go on.")
            return None


def _tried(look: Callable[[], Job | None], carry: Callable[[], T]) -> T:
    """Do it again while only the line is at fault."""
    tries = 0
    while True:
        try:
            return carry()
        except LineLost as lost:
            tries += 1
            job = look()
            if job is not None and job.ended:
                raise _over(job) from None
            if tries == _TRIES or "Permission denied" in str(lost):
                raise CommandError(str(lost), ExitCode.UNREACHABLE, "Try again in a while.") from None
        tell("The connection to the job is lost; it is tried again.")
        time.sleep(_PAUSE_SECONDS)


def _over(job: Job) -> CommandError:
    text = f"The job {job.status}: {job.failure_reason or job.status_reason}"
    return CommandError(text, ExitCode.REFUSED, f"`gpudev show {job.job_id[:8]}` tells more.")


def _cancel(client: Client, job_id: str) -> None:
    try:
        client.cancel_job(job_id, reason="gpudev run", wait=LONGEST_WAIT)
    except errors.Conflict:
        pass  # it is over
    except errors.GpuDevError as error:
        tell(f"gpudev: the job {job_id[:8]} was not cancelled: {error.detail}")


def _entries(folder: Path) -> list[Entry]:
    if folder in {Path.home(), Path(folder.anchor)}:
        raise CommandError(f"{folder} is not sent whole", step="Go into your project's folder, or say --no-send.")
    entries = list(entries_of(folder))
    files = sum(1 for entry in entries if entry.is_file)
    size = shown_size(sum(entry.size for entry in entries))
    tell(f"Sends {files:,} {'file' if files == 1 else 'files'}, {size}, of {folder}")
    return entries


def shown_size(size: float) -> str:
    """A number of bytes for a person."""
    for unit in ("B", "kB", "MB"):
        if round(size) < 1000:  # noqa: PLR2004
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _pod_folder(folder: Path) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name).lstrip(".-")
    return f"{HOME}/{plain or 'run'}"


def _out(path: str) -> str:
    if path.startswith("/") or ".." in Path(path).parts or "\n" in path:
        raise CommandError(f"--out {path}: it lies outside the folder", step="`gpudev cp JOB:PATH .` copies anything.")
    return path
