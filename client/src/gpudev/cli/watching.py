"""`gpudev watch`: what happens to one's jobs and disks, as it happens."""

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from gpudev import Client
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.jobs import JOB_HEADS, job_row
from gpudev.cli.keyfile import open_client
from gpudev.cli.output import AsJson, shown, table
from gpudev.cli.picking import LIVE, pick
from gpudev.models import Event, Job

_QUIET_SECONDS = 15.0
"""After which the state is read again, since the first events may have come before the answer did."""
_GONE_QUIET_SECONDS = 2.0
"""The same, where the first events are not kept any more: the last may be among them."""
_SHORT = 8
_DETAILS = (
    ("node", "on {}"),
    ("position", "place {}"),
    ("estimated_start_at", "starts about {}"),
    ("github_username", "{}"),
    ("minutes_left", "{} minutes left"),
    ("expires_at", "until {}"),
    ("exit_code", "exit code {}"),
    ("old_name", "it was {}"),
    ("failure_reason", "{}"),
    ("reason", "{}"),
    ("error", "{}"),
)
"""What is told of an event's data, in this order."""


def watch(
    job: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="One job only, from its first event until it is over; else all of yours."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happens to your jobs and disks, as it happens. With --json: one event a line.

    On a terminal the jobs that are not over stand below.
    """
    with open_client() as client:
        job_id = pick(client, job) if job is not None else None
        watching = _Watching(client, job_id)
        try:
            _print_json(watching) if as_json else _show(watching)
        except KeyboardInterrupt:
            raise CommandError("", ExitCode.INTERRUPTED) from None


class _Watching:
    """Events as they come, of all of one's own or until a job is over."""

    def __init__(self, client: Client, job_id: str | None) -> None:
        self._client, self._job_id = client, job_id
        self._heard: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._names: dict[str, str] = {}
        threading.Thread(target=self._hear, daemon=True).start()

    def rounds(self) -> Iterator[list[Event]]:
        """Events that came at once; none: it is quiet."""
        over, quiet_seconds = False, _QUIET_SECONDS
        while not over:
            events = self._next(quiet_seconds)
            yield events
            if any(event.name == "resync" for event in events):
                quiet_seconds = _GONE_QUIET_SECONDS
            if self._job_id is not None:
                over = any(event.name == "jobs.ended" for event in events)
                over = over or (not events and self._client.get_job(self._job_id).ended)

    def jobs(self) -> list[Job]:
        """As they are now: those that are not over, or the one."""
        if self._job_id is not None:
            found = [self._client.get_job(self._job_id)]
        else:
            found = list(self._client.iter_jobs(status=LIVE))
        self._names |= {job.job_id: job.name for job in found if job.name}
        return found

    def line(self, event: Event) -> str:
        """An event for people."""
        clock = f"{event.time.astimezone():%H:%M:%S}" if event.time else "-"
        if event.name == "resync":
            return f"{clock}  earlier events are not kept any more"
        called = event.data.get("disk_name") or self._names.get(event.subject) or event.subject[:_SHORT]
        domain, _, what = event.name.replace("_", " ").partition(".")
        if event.name == "jobs.ended":
            what = str(event.data.get("status", what))
        elif domain == "capacity" and what != "queued":
            what = f"GPUs {what}"
        told = [form.format(_text(event.data[key])) for key, form in _DETAILS if event.data.get(key) is not None]
        return f"{clock}  {called}  {' · '.join([what, *told])}"

    def _next(self, quiet_seconds: float) -> list[Event]:
        events: list[Event] = []
        with suppress(queue.Empty):
            events.append(_event(self._heard.get(timeout=quiet_seconds)))
            while True:
                events.append(_event(self._heard.get_nowait()))
        return events

    def _hear(self) -> None:
        try:
            one, every = self._client.follow_job_events, self._client.follow_events
            for event in every() if self._job_id is None else one(self._job_id):
                self._heard.put(event)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._heard.put(error)


def _print_json(watching: _Watching) -> None:
    for events in watching.rounds():
        for event in events:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()


def _show(watching: _Watching) -> None:
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        live = None
        if console.is_terminal:
            live = stack.enter_context(Live(_table(watching.jobs()), console=console, auto_refresh=False))
        for events in watching.rounds():
            jobs = watching.jobs()
            for event in events:
                console.print(Text(watching.line(event)))
            if live is not None:
                live.update(_table(jobs), refresh=True)


def _table(jobs: list[Job]) -> Any:
    return table(JOB_HEADS, map(job_row, jobs))


def _event(heard: Event | BaseException) -> Event:
    if isinstance(heard, BaseException):
        raise heard
    return heard


def _text(value: Any) -> str:
    """Times as people read them."""
    if isinstance(value, str):
        try:
            return shown(msgspec.convert(value, datetime))
        except msgspec.ValidationError:
            return value
    return shown(value)
