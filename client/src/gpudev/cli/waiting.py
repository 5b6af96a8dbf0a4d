"""Waiting for a job, and showing it: one line that changes on a terminal, lines of their own in a pipe."""

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime

from rich.console import Console
from rich.text import Text

from gpudev import Client, GpuDevError
from gpudev.cli.output import tell
from gpudev.models import Explanation, Job


class Progress:
    """Shows texts one after another, each only once."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._console = Console(stderr=True, highlight=False)
        self._status = self._stack.enter_context(self._console.status("")) if sys.stderr.isatty() else None
        self._last = ""

    def __enter__(self) -> "Progress":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, text: str) -> None:
        """What is happening now."""
        if text == self._last:
            return
        self._last = text
        if self._status is None:
            tell(text)
        else:
            self._status.update(Text(text))


def watch(client: Client, jobs: Iterable[Job]) -> Job:
    """Show a job that is being launched; the job at last."""
    last: Job | None = None
    with Progress() as progress:
        for job in jobs:
            last = job
            progress.show(_text(job, _explained(client, job)))
    if last is None:
        raise RuntimeError("a job that is launched is told at least once")
    return last


def _explained(client: Client, job: Job) -> Explanation | None:
    """What only makes the waiting easier is no reason to end it."""
    if not job.waits:
        return None
    try:
        return client.explain_job(job.job_id)
    except GpuDevError:
        return None


def _text(job: Job, explained: Explanation | None) -> str:
    parts = [f"{job.job_id[:8]} {job.status}"]
    if explained is not None and explained.queue_position is not None:
        parts.append(f"place {explained.queue_position} in the queue")
    if explained is not None and explained.estimated_start_time is not None:
        by = explained.estimated_start_time_p90
        parts.append(
            f"starts about {_clock(explained.estimated_start_time)}" + (f", by {_clock(by)} (p90)" if by else "")
        )
    reason = job.current_detailed_status or job.status_reason
    if reason:
        parts.append(reason)
    return " · ".join(parts)


def _clock(moment: datetime) -> str:
    local = moment.astimezone()
    same_day = local.date() == datetime.now().astimezone().date()
    return local.strftime("%H:%M" if same_day else "%a %H:%M")
