"""Commands about jobs that there are."""

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, Any

import msgspec
import typer

from gpudev import Client
from gpudev.cli.browser import await_page, open_page
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import open_client
from gpudev.cli.output import AsJson, print_fields, print_json, print_line, print_table, tell
from gpudev.cli.picking import LIVE, Named, pick
from gpudev.models import ActionAnswer, Job
from gpudev.operations import LONGEST_WAIT

users = typer.Typer(help="Who may enter a job.", no_args_is_help=True)
jupyter = typer.Typer(help="JupyterLab in a job.", no_args_is_help=True)
JOB_HEADS = ("JOB", "NAME", "STATUS", "GPUS", "CREATED", "EXPIRES")
_LISTED = 50


def list_jobs(
    every: Annotated[bool, typer.Option("--all", "-a", help="Those that are over, too.")] = False,
    status: Annotated[str | None, typer.Option(help="Of these statuses only, separated by commas.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Jobs at most.")] = _LISTED,
    as_json: AsJson = False,
) -> None:
    """List your jobs, newest first: those that are not over, unless more is asked for."""
    wanted = status or (None if every else LIVE)
    with open_client() as client:
        jobs = list(islice(client.iter_jobs(status=wanted), limit))
    if as_json:
        print_json(jobs)
        return
    print_table(JOB_HEADS, map(job_row, jobs))


def job_row(job: Job) -> tuple[Any, ...]:
    """A job below JOB_HEADS."""
    return (job.job_id[:8], job.name, job.status, f"{job.gpu_count} {job.gpu_type}", job.created_at, job.expires_at)


def show(job: Named = None, as_json: AsJson = False) -> None:
    """Show everything about a job; the token of its Jupyter is in `jupyter_url`."""
    with open_client() as client:
        found = client.get_job(pick(client, job))
    if as_json:
        print_json(found)
    else:
        hidden = {"reservation_id", "jupyter_token"}
        print_fields((name, getattr(found, name)) for name in Job.__struct_fields__ if name not in hidden)


def explain(job: Named = None, as_json: AsJson = False) -> None:
    """Tell what a job waits for, when it will start, and what would start sooner."""
    with open_client() as client:
        found = client.explain_job(pick(client, job))
    if as_json:
        print_json(found)
        return
    if not found.waiting:
        print_line(f"It does not wait: it is {found.status}.")
        return
    print_fields(
        [
            ("waits for", found.reason),
            ("place", found.queue_position),
            ("ahead", f"{found.jobs_ahead} jobs with {found.gpus_ahead} GPUs"),
            ("priority", found.priority or None),
            ("starts about", found.estimated_start_time),
            ("and by (p90)", found.estimated_start_time_p90),
            ("sooner", [one.text for one in found.would_start_sooner]),
        ]
    )


def logs(
    job: Named = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job is over.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="The last lines only.")] = None,
    since: Annotated[str | None, typer.Option(help="Seconds ago, or a time such as 2026-01-20T18:30:00Z.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a job's command has printed. With --json --follow: one JSON object a line."""
    with open_client() as client:
        job_id = pick(client, job)
        if not follow:
            text = client.get_job_logs(job_id, tail=tail, since=since)
            if as_json:
                print_json({"job_id": job_id, "log": text})
            else:
                _write(text.encode())
            return
        try:
            pieces = client.follow_job_logs(job_id, tail=tail, since=since)
            for piece in _json_lines(pieces) if as_json else pieces:
                _write(piece)
        except KeyboardInterrupt:
            raise CommandError("", ExitCode.INTERRUPTED) from None


def history(job: Named = None, as_json: AsJson = False) -> None:
    """Tell the statuses that a job had."""
    with open_client() as client:
        found = client.get_job_history(pick(client, job))
    if as_json:
        print_json(found)
    else:
        print_table(["AT", "STATUS", "REASON"], [(one.at, one.status, one.reason) for one in found.history])


def extend(
    job: Named = None,
    hours: Annotated[float, typer.Option("--hours", "-d", help="More time; fractions allowed.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Give an active job more time."""
    _act(job, lambda client, of: client.extend_job(of, extension_hours=hours, wait=LONGEST_WAIT), as_json=as_json)


def cancel(
    job: Named = None,
    reason: Annotated[str | None, typer.Option(help="Shows on the job.")] = None,
    as_json: AsJson = False,
) -> None:
    """End a job."""
    _act(job, lambda client, of: client.cancel_job(of, reason=reason, wait=LONGEST_WAIT), as_json=as_json)


@users.command("add")
def add_user(
    github_user: Annotated[str, typer.Argument(help="Whose SSH keys are to open the job.")],
    job: Named = None,
    as_json: AsJson = False,
) -> None:
    """Let a GitHub user's SSH keys open an active job."""
    _act(job, lambda client, of: client.add_user(of, github_username=github_user, wait=LONGEST_WAIT), as_json=as_json)


@jupyter.command("on")
def jupyter_on(job: Named = None, as_json: AsJson = False) -> None:
    """Start JupyterLab in an active job, and print its address once that is served."""
    job_id = _act(job, lambda client, of: client.enable_jupyter(of, wait=LONGEST_WAIT), as_json=as_json)
    with open_client() as client:
        url = client.get_job(job_id).jupyter_url
    if url is not None:
        _await_page(url)
    if not as_json:
        print_line(url or f"It starts; `gpudev show {job_id[:8]}` has its address.")


@jupyter.command("open")
def jupyter_open(job: Named = None, as_json: AsJson = False) -> None:
    """Open a job's JupyterLab in this machine's browser; it is started if it does not run."""
    with open_client() as client:
        job_id = pick(client, job)
        found = client.get_job(job_id)
        if not found.jupyter_enabled:
            _check(client.enable_jupyter(job_id, wait=LONGEST_WAIT))
            found = client.get_job(job_id)
    if found.jupyter_url is None:
        raise CommandError("It starts still", ExitCode.UNREACHABLE, f"Try again: `gpudev jupyter open {job_id[:8]}`.")
    _await_page(found.jupyter_url)
    opened = open_page(found.jupyter_url)
    if as_json:
        print_json({"job_id": job_id, "jupyter_url": found.jupyter_url, "opened": opened})
        return
    print_line(found.jupyter_url)
    if not opened:
        tell("There is no browser here: open this address in yours.")


@jupyter.command("off")
def jupyter_off(job: Named = None, as_json: AsJson = False) -> None:
    """Stop JupyterLab in an active job."""
    _act(job, lambda client, of: client.disable_jupyter(of, wait=LONGEST_WAIT), as_json=as_json)


def _act(named: str | None, action: Callable[[Client, str], ActionAnswer], *, as_json: bool) -> str:
    """Ask for something, and tell its outcome; the job's id."""
    with open_client() as client:
        answer = action(client, pick(client, named))
    if as_json:
        print_json(answer)
    _check(answer)
    if not as_json:
        print_line(f"{answer.job_id[:8]}: {answer.action.replace('_', ' ')} {answer.status}")
    return answer.job_id


def _await_page(url: str) -> None:
    """Which others may reach that this machine does not: so it is no error."""
    if why := await_page(url):
        tell(f"JupyterLab runs, but its address is not served from here yet ({why}): reload it in a while.")


def _check(answer: ActionAnswer) -> None:
    if answer.status == "refused":
        raise CommandError(answer.message, ExitCode.REFUSED, f"`gpudev show {answer.job_id[:8]}` tells more.")


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _json_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(_json_line, lines)
    if rest:
        yield _json_line(rest)


def _json_line(line: bytes) -> bytes:
    told: dict[str, Any] = {"line": line.decode(errors="replace")}
    return msgspec.json.encode(told) + b"\n"
