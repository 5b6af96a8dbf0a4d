"""Brings what owners ask of running jobs into their pods: the SSH keys of GitHub users, and JupyterLab on or off.

Apart from the reconciler, under a lease of its own: starting Jupyter takes long, and a job must expire meanwhile. Each
call into a pod may be repeated and says all that is wanted, so that the last one is right whatever came before.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from services.jobs import storage
from services.jobs.adapters.github import GitHub
from services.jobs.adapters.kubernetes import Cluster, ClusterRefused, ClusterUnavailable
from services.jobs.adapters.kubernetes.exec_channel import ExecResult
from services.jobs.context import Context
from services.jobs.domain.access import entry_asked_at, next_try, users_to_apply, users_to_fetch
from services.jobs.domain.facts import (
    Fact,
    HostKeysRead,
    JupyterFailed,
    JupyterSwitched,
    KeysApplied,
    UserRefused,
)
from services.jobs.domain.job import Job
from services.jobs.domain.manifests import TOOL, object_name
from services.jobs.operations.access import fetch_user, is_overdue, stored_keys
from services.jobs.operations.read import find_jobs
from services.jobs.operations.seal import unseal_jupyter_token
from services.jobs.operations.transition import apply_to_newest
from shared.background import cancel_all
from shared.errors import Unavailable
from shared.leased_worker import Budget, LeasedWorker

log = structlog.get_logger(__name__)

_HOST_KEYS_SECONDS = 8.0
_KEYS_SECONDS = 8.0
_JUPYTER_SECONDS = 70.0
"""The program itself waits for 60 s until JupyterLab answers."""
_FETCHING_SECONDS = 40.0
"""For pages of keys; whom it is too short for is fetched in the next pass."""
_WRITING_SECONDS = 10.0
PASS_SECONDS = _HOST_KEYS_SECONDS + _FETCHING_SECONDS + _KEYS_SECONDS + _JUPYTER_SECONDS + _WRITING_SECONDS
_LOOK_SECONDS = 2.0
_AT_ONCE = 16
_RETRY = timedelta(seconds=1)
_HOST_KEY = re.compile(r"^((?:ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/]+=*)(?: .*)?$", re.MULTILINE)
"""A public key as sshd has it (sshd(8), AUTHORIZED_KEYS FILE FORMAT), and a comment."""


class Brought(msgspec.Struct, frozen=True):
    """What a pass came to."""

    job: Job
    """As it was last read or written."""
    next_at: datetime | None
    """When to try the rest; None: there is none."""


class AccessKeeper:
    """The running jobs whose pods lack keys or Jupyter, as rows of a leased worker.

    Args:
        context: The service's.
        cluster: Where pods live.
        github: Where keys come from.
    """

    def __init__(self, context: Context, cluster: Cluster, github: GitHub) -> None:
        self._context = context
        self._cluster = cluster
        self._github = github
        self.worker = LeasedWorker("access", self, at_once=_AT_ONCE, budget_seconds=PASS_SECONDS)
        context.hints.on_access_due(self.worker.wake)

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[Job]:
        """Jobs whose access is due."""
        rows = await self._context.database.fetch_all(
            storage.access.CLAIM_ACCESS, now=self._context.clock(), lease=lease, worker=worker, limit=limit
        )
        # only now: what a statement reads beside the rows that it claims may be older than they are
        return await find_jobs(job_ids=[row["job_id"] for row in rows], context=self._context)

    async def renew(self, job: Job, worker: UUID, lease: timedelta) -> bool:
        """Hold the job's access longer."""
        held = await self._context.database.fetch_value(
            storage.access.RENEW_ACCESS, job_id=job.id, worker=worker, lease=lease
        )
        return held is not None

    async def work(self, job: Job, budget: Budget) -> Brought:
        """Bring one job as far as it gets now."""
        job = await self._bring_keys(job, budget, leaving_seconds=_JUPYTER_SECONDS if job.awaits_jupyter else 0.0)
        job = await self._read_host_keys(job, budget)
        if job.wants_access_work and job.awaits_jupyter:
            job = await self._follow_wishes(job, budget)
        return Brought(job, _open_work(job, self._context.clock()))

    async def give_back(self, job: Job, worker: UUID, result: Brought) -> None:
        """Due again when the pass says, or at once when the job changed meanwhile."""
        await self._context.database.execute(
            storage.access.FINISH_ACCESS,
            job_id=job.id,
            worker=worker,
            known_revision=result.job.revision,
            next_try_at=result.next_at,
        )

    async def retry(self, job: Job, worker: UUID) -> None:
        """What could not even be tried is tried again soon."""
        await self.give_back(job, worker, Brought(job, self._context.clock() + _RETRY))

    async def hand_over(self, job: Job, worker: UUID) -> None:
        """Due now."""
        await self.give_back(job, worker, Brought(job, self._context.clock()))

    async def _read_host_keys(self, job: Job, budget: Budget) -> Job:
        if not job.awaits_host_keys or not job.wants_access_work:
            return job
        keys: tuple[str, ...] = ()
        if self._context.settings.tools_image is not None:
            result = await self._run(job, ["host-keys"], None, _HOST_KEYS_SECONDS, budget)
            if isinstance(result, ExecResult):
                keys = tuple(_HOST_KEY.findall(result.stdout.decode(errors="replace")))
            if not keys and not is_overdue(entry_asked_at(job), self._context.clock(), self._context):
                return job
        return await self._record(job, HostKeysRead(job.epoch, keys))

    async def _bring_keys(self, job: Job, budget: Budget, *, leaving_seconds: float = 0.0) -> Job:
        page_seconds = self._context.settings.github_seconds + _WRITING_SECONDS
        for user in users_to_fetch(job):
            if budget.left_seconds < page_seconds + _KEYS_SECONDS + leaving_seconds:
                break
            async with budget.call(page_seconds):
                fact = await fetch_user(job=job, user=user, github=self._github, context=self._context)
            job = await self._record(job, fact)
        return await self._apply_keys(job, budget) if users_to_apply(job) else job

    async def _follow_wishes(self, job: Job, budget: Budget) -> Job:
        """Have Jupyter as its owner wants it, until the last wish was tried: another may come while it starts."""
        tried = -1
        async with self._context.wake_ups.of(job.id) as changed:
            while job.wants_access_work and job.awaits_jupyter and job.jupyter_revision != tried:
                if budget.left_seconds < _JUPYTER_SECONDS:
                    break  # the next pass goes on
                tried = job.jupyter_revision
                job = await self._try_wish(job, changed, budget)
        return job

    async def _try_wish(self, job: Job, changed: asyncio.Event, budget: Budget) -> Job:
        """The job as last written; the call is let go when the wish is not the last one any more.

        JupyterLab takes long to start: users who are asked for meanwhile do not wait for it.
        """
        call = asyncio.create_task(self._switch_jupyter(job, budget))
        newest = job
        try:
            while not call.done():
                changed.clear()
                seen, newest = newest, await self._look(job)
                if newest.jupyter_revision != job.jupyter_revision or not newest.wants_access_work:
                    return newest
                if newest.users != seen.users:
                    newest = await self._bring_keys(newest, budget)
                await _first_of(call, changed)
            return await call
        finally:
            await cancel_all([call])

    async def _look(self, job: Job) -> Job:
        try:
            row = await self._context.database.fetch_one(storage.jobs.FIND, job_id=job.id)
        except Unavailable:
            return job  # the call's own outcome tells
        return storage.jobs.to_job(row) if row is not None else job

    async def _record(self, job: Job, *facts: Fact) -> Job:
        for fact in facts:
            job = await apply_to_newest(job=job, fact=fact, now=self._context.clock(), context=self._context)
            log.info("job_access", job_id=str(job.id), fact=type(fact).__name__)
        return job

    async def _apply_keys(self, job: Job, budget: Budget) -> Job:
        users = users_to_apply(job)
        stdin = (await stored_keys(job=job, context=self._context)).encode()
        problem = _problem_of(await self._run(job, ["keys"], stdin, _KEYS_SECONDS, budget))
        if problem is None:
            return await self._record(job, KeysApplied(job.epoch, tuple(user.name for user in users)))
        now = self._context.clock()
        overdue = [user for user in users if is_overdue(user.requested_at, now, self._context)]
        return await self._record(job, *(UserRefused(job.epoch, user.name, problem) for user in overdue))

    async def _switch_jupyter(self, job: Job, budget: Budget) -> Job:
        # the number tells a call that arrives late, or goes on after it was let go, from the last one
        wish: dict[str, Any] = {"wish": job.jupyter_revision}
        token = ""
        if job.jupyter_wanted:
            token = unseal_jupyter_token(job, self._context)
            stdin = msgspec.json.encode({"token": token, **wish})
            result = await self._run(job, ["jupyter", "start"], stdin, _JUPYTER_SECONDS, budget)
        else:
            result = await self._run(job, ["jupyter", "stop"], msgspec.json.encode(wish), _KEYS_SECONDS, budget)
        problem = _problem_of(result, secret=token)
        if problem is None:
            return await self._record(job, JupyterSwitched(job.epoch, job.jupyter_revision))
        told = isinstance(result, ExecResult)  # by the program itself: asking it again changes nothing
        asked_at = job.jupyter_requested_at or job.created_at
        if told or is_overdue(asked_at, self._context.clock(), self._context):
            return await self._record(job, JupyterFailed(job.epoch, job.jupyter_revision, problem))
        return job

    async def _run(
        self, job: Job, call: list[str], stdin: bytes | None, seconds: float, budget: Budget
    ) -> ExecResult | str:
        """The program's result in the pod; a text when it could not be run or nobody knows."""
        seconds = min(seconds, budget.left_seconds)
        try:
            return await self._cluster.exec_in_pod(object_name(job), [TOOL, *call], stdin=stdin, seconds=seconds)
        except (ClusterRefused, ClusterUnavailable) as error:
            log.warning("exec_failed", job_id=str(job.id), call=call, error=type(error).__name__, **error.context)
            return "The job's pod could not be reached"


async def _first_of(call: "asyncio.Task[Job]", changed: asyncio.Event) -> None:
    """Wait until the call is over, or the job has changed, or a wake-up may have been lost."""
    woken = asyncio.create_task(changed.wait())
    try:
        await asyncio.wait([call, woken], timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_all([woken])


def _problem_of(result: ExecResult | str, *, secret: str = "") -> str | None:
    if isinstance(result, str):
        return result
    if result.exit_code == 0:
        return None
    return result.last_error_line(secret=secret) or f"It ended with exit code {result.exit_code}"


def _open_work(job: Job, now: datetime) -> datetime | None:
    if not job.wants_access_work:
        return None
    asked = [entry_asked_at(job)] if job.awaits_host_keys else []
    asked += [user.requested_at for user in (*users_to_fetch(job), *users_to_apply(job))]
    if job.awaits_jupyter:
        asked.append(job.jupyter_requested_at or job.created_at)
    return next_try(max(asked), now)
