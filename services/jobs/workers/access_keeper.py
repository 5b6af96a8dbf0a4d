"""Brings what owners ask of running jobs into their pods: the SSH keys of GitHub users, and JupyterLab on or off.

Apart from the reconciler, under a lease of its own: starting Jupyter takes long, and a job must expire meanwhile. Each
call into a pod may be repeated and says all that is wanted, so that the last one is right whatever came before.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog

from services.jobs import storage
from services.jobs.adapters.exec_channel import ExecResult
from services.jobs.adapters.github import GitHub
from services.jobs.adapters.kubernetes import Cluster, ClusterRefused, ClusterUnavailable
from services.jobs.context import Context
from services.jobs.domain.access import next_try, users_to_apply, users_to_fetch
from services.jobs.domain.facts import Fact, JupyterFailed, JupyterSwitched, KeysApplied, UserRefused
from services.jobs.domain.job import Job
from services.jobs.domain.manifests import TOOL, object_name
from services.jobs.operations.access import fetch_user, is_overdue, stored_keys
from services.jobs.operations.seal import unseal_jupyter_token
from services.jobs.operations.transition import apply_to_newest
from shared.background import Loop, cancel_all
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=8)
_RENEWAL_SECONDS = 2.5
_KEYS_SECONDS = 8.0
_JUPYTER_SECONDS = 70.0
"""The program itself waits for 60 s until JupyterLab answers."""
_LOOK_SECONDS = 2.0
_CONCURRENCY = 16
_RETRY = timedelta(seconds=1)


class AccessKeeper:
    """Works the running jobs whose pods lack keys or Jupyter.

    Args:
        context: The service's.
        cluster: Where pods live.
        github: Where keys come from.
    """

    def __init__(self, context: Context, cluster: Cluster, github: GitHub) -> None:
        self._context = context
        self._cluster = cluster
        self._github = github
        self._working: dict[UUID, asyncio.Task[None]] = {}
        self.loop = Loop("access", self._turn, period_seconds=1.0, turn_seconds=15.0)
        context.hints.on_hint(self.loop.wake)

    async def close(self) -> None:
        """Stop working; what was begun is begun again by the next worker."""
        await cancel_all(self._working.values())

    async def _turn(self) -> None:
        room = _CONCURRENCY - len(self._working)
        if room <= 0:
            return
        worker = uuid4()
        rows = await self._context.database.fetch_all(
            storage.access.CLAIM_ACCESS, now=datetime.now(UTC), lease=_LEASE, worker=worker, limit=room
        )
        for row in rows:
            job = storage.jobs.to_job(row)
            task = asyncio.create_task(self._work(job, worker))
            self._working[job.id] = task
            task.add_done_callback(partial(self._done, job.id))

    def _done(self, job_id: UUID, _: object) -> None:
        self._working.pop(job_id, None)
        self.loop.wake()

    async def _work(self, job: Job, worker: UUID) -> None:
        known = job
        next_try_at: datetime | None = datetime.now(UTC) + _RETRY
        work = asyncio.create_task(self.run_pass(job))
        renewal = asyncio.create_task(self._renew(job.id, worker, work))
        try:
            known, next_try_at = await work
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            log.warning("access_lease_lost", job_id=str(job.id))
        except Exception as error:
            expected = isinstance(error, Unavailable)
            log.warning(
                "access_pass_failed", job_id=str(job.id), error=type(error).__name__,
                exc_info=None if expected else error,
            )  # fmt: skip
        finally:
            await cancel_all([renewal, work])
            await self._finish(known, worker, next_try_at)

    async def _renew(self, job_id: UUID, worker: UUID, work: asyncio.Task[object]) -> None:
        """Hold the lease while the work goes on; the work ends when another has it."""
        held_until = asyncio.get_running_loop().time() + _LEASE.total_seconds()
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            now = asyncio.get_running_loop().time()
            try:
                held = await self._context.database.fetch_value(
                    storage.access.RENEW_ACCESS, job_id=job_id, worker=worker, lease=_LEASE
                )
                held_until = now + _LEASE.total_seconds() if held else now
            except Unavailable:
                log.warning("access_lease_not_renewed", job_id=str(job_id))
            if asyncio.get_running_loop().time() + _RENEWAL_SECONDS > held_until:
                work.cancel()
                return

    async def _finish(self, job: Job, worker: UUID, next_try_at: datetime | None) -> None:
        try:
            await self._context.database.execute(
                storage.access.FINISH_ACCESS, job_id=job.id, worker=worker, known_revision=job.revision,
                next_try_at=next_try_at,
            )  # fmt: skip
        except Unavailable:
            log.warning("access_lease_not_returned", job_id=str(job.id))  # it ends by itself

    async def run_pass(self, job: Job) -> tuple[Job, datetime | None]:
        """Bring one job as far as it gets now; the job as last written, and when to try the rest, None for never."""
        job = await self._bring_keys(job)
        if job.wants_access_work and job.awaits_jupyter:
            job = await self._follow_wishes(job)
        return job, _open_work(job, datetime.now(UTC))

    async def _bring_keys(self, job: Job) -> Job:
        for user in users_to_fetch(job):
            fact = await fetch_user(job=job, user=user, github=self._github, context=self._context)
            job = await self._record(job, fact)
        return await self._apply_keys(job) if users_to_apply(job) else job

    async def _follow_wishes(self, job: Job) -> Job:
        """Have Jupyter as its owner wants it, until the last wish was tried: another may come while it starts."""
        tried = -1
        async with self._context.wake_ups.of(job.id) as changed:
            while job.wants_access_work and job.awaits_jupyter and job.jupyter_revision != tried:
                tried = job.jupyter_revision
                job = await self._try_wish(job, changed)
        return job

    async def _try_wish(self, job: Job, changed: asyncio.Event) -> Job:
        """The job as last written; the call is let go when the wish is not the last one any more.

        JupyterLab takes long to start: users who are asked for meanwhile do not wait for it.
        """
        call = asyncio.create_task(self._switch_jupyter(job))
        newest = job
        try:
            while not call.done():
                changed.clear()
                seen, newest = newest, await self._look(job)
                if newest.jupyter_revision != job.jupyter_revision or not newest.wants_access_work:
                    return newest
                if newest.users != seen.users:
                    newest = await self._bring_keys(newest)
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
            job = await apply_to_newest(job=job, fact=fact, now=datetime.now(UTC), context=self._context)
            log.info("job_access", job_id=str(job.id), fact=type(fact).__name__)
        return job

    async def _apply_keys(self, job: Job) -> Job:
        users = users_to_apply(job)
        stdin = (await stored_keys(job=job, context=self._context)).encode()
        problem = _problem_of(await self._run(job, ["keys"], stdin, _KEYS_SECONDS))
        if problem is None:
            return await self._record(job, KeysApplied(job.epoch, tuple(user.name for user in users)))
        now = datetime.now(UTC)
        overdue = [user for user in users if is_overdue(user.requested_at, now, self._context)]
        return await self._record(job, *(UserRefused(job.epoch, user.name, problem) for user in overdue))

    async def _switch_jupyter(self, job: Job) -> Job:
        # the number tells a call that arrives late, or goes on after it was let go, from the last one
        wish: dict[str, Any] = {"wish": job.jupyter_revision}
        token = ""
        if job.jupyter_wanted:
            token = unseal_jupyter_token(job, self._context)
            stdin = msgspec.json.encode({"token": token, **wish})
            result = await self._run(job, ["jupyter", "start"], stdin, _JUPYTER_SECONDS)
        else:
            result = await self._run(job, ["jupyter", "stop"], msgspec.json.encode(wish), _KEYS_SECONDS)
        problem = _problem_of(result, secret=token)
        if problem is None:
            return await self._record(job, JupyterSwitched(job.epoch, job.jupyter_revision))
        told = isinstance(result, ExecResult)  # by the program itself: asking it again changes nothing
        asked_at = job.jupyter_requested_at or job.created_at
        if told or is_overdue(asked_at, datetime.now(UTC), self._context):
            return await self._record(job, JupyterFailed(job.epoch, job.jupyter_revision, problem))
        return job

    async def _run(self, job: Job, call: list[str], stdin: bytes | None, seconds: float) -> ExecResult | str:
        """The program's result in the pod; a text when it could not be run or nobody knows."""
        try:
            return await self._cluster.exec_in_pod(object_name(job), [TOOL, *call], stdin=stdin, seconds=seconds)
        except (ClusterRefused, ClusterUnavailable) as error:
            log.warning("exec_failed", job_id=str(job.id), call=call, error=type(error).__name__, **error.context)
            return "The job's pod could not be reached"


async def _first_of(call: "asyncio.Task[Job]", changed: asyncio.Event) -> None:
    """Wait until the call is over, or the job has changed, or for as long as news may be lost."""
    news = asyncio.create_task(changed.wait())
    try:
        await asyncio.wait([call, news], timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_all([news])


def _problem_of(result: ExecResult | str, *, secret: str = "") -> str | None:
    if isinstance(result, str):
        return result
    if result.exit_code == 0:
        return None
    return result.last_words(secret=secret) or f"It ended with exit code {result.exit_code}"


def _open_work(job: Job, now: datetime) -> datetime | None:
    if not job.wants_access_work:
        return None
    asked = [user.requested_at for user in (*users_to_fetch(job), *users_to_apply(job))]
    if job.awaits_jupyter:
        asked.append(job.jupyter_requested_at or job.created_at)
    return next_try(max(asked), now)
