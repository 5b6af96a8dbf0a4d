"""Makes the cluster match the jobs: looks at each job that has a lease of GPUs, decides, acts, writes down.

A pass looks at reality first and acts outside any transaction; what it writes is guarded by the row's revision. Killed
at any point, the next pass finds what is there and goes on. A step is begun only while the pass has time for the
longest one: so no step is cut off and begun anew for ever, however slow each answer is.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import structlog

from services.jobs import storage
from services.jobs.adapters.github import GitHub
from services.jobs.adapters.kubernetes import CALL_SECONDS, Cluster
from services.jobs.context import Context
from services.jobs.domain.facts import Fact, PodFailed, PodGone
from services.jobs.domain.job import Job, KeptLog, Phase
from services.jobs.domain.manifests import object_name
from services.jobs.domain.next_step import (
    AskNode,
    Clear,
    Delete,
    FetchKeys,
    Keep,
    Limits,
    Make,
    Record,
    Rest,
    Step,
    is_stopping,
    next_step,
)
from services.jobs.domain.pod import Pod
from services.jobs.domain.pod_facts import PodFacts, is_passing, read_pod
from services.jobs.domain.trouble import with_event
from services.jobs.operations.access import fetch_user
from services.jobs.operations.archive_log import WHOLE_SECONDS, find_log_state, keep_log
from services.jobs.operations.collect_final_log import FinalLog
from services.jobs.operations.list_disk import CONTENT_SECONDS, report_content
from services.jobs.operations.make_pod import CALLS_AT_MOST, PodObjects
from services.jobs.operations.read import find_jobs
from services.jobs.operations.transition import apply_fact
from services.jobs.settings import JobsSettings
from shared.leased_worker import Budget, LeasedWorker
from shared.tracing import span

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 2 * CALL_SECONDS
"""The pod, and its newest event."""
_STEP_SECONDS = CALLS_AT_MOST * CALL_SECONDS
PASS_SECONDS = _LOOK_SECONDS + _STEP_SECONDS + 12.0
_CONNECT_SECONDS = 2.5
"""For the connection that hears what a command prints on being ended."""
_MAX_STEPS = 12
_MOUNT_TIME = timedelta(seconds=3)
"""A pod whose volumes take longer is asked for what is wrong."""
_RETRY = timedelta(seconds=1)
_PASSING_SECONDS = 0.5
_LOCKED_SECONDS = 0.05
"""After which a row that another transaction had is free again."""
_LONGEST_RETRY = timedelta(seconds=5)


class Looked(msgspec.Struct, frozen=True):
    """What a pass came to."""

    job: Job
    """As it was last read or written."""
    next_at: datetime
    """When to look again."""


class Reconciler:
    """The jobs that have a lease of GPUs, as rows of a leased worker.

    Args:
        context: The service's.
        cluster: Where pods live.
        github: Where keys come from.
    """

    def __init__(self, context: Context, cluster: Cluster, github: GitHub) -> None:
        self._context = context
        self._github = github
        self._cluster = cluster
        self._limits = limits_of(context.settings)
        self._objects = PodObjects(cluster, context.settings.pod_policy(), self._limits, context)
        self._final_log = FinalLog(cluster, context)
        self._working: set[UUID] = set()
        self._failures: Counter[UUID] = Counter()
        self._between_looks = timedelta(seconds=self._limits.resync_seconds)
        self._later: dict[UUID, asyncio.TimerHandle] = {}
        """Looks that are put off, at pods that are on their way, or at rows that another had."""
        self._asked_again: set[UUID] = set()
        """Jobs that were passed over, and are hinted at once more."""
        self._kept: dict[UUID, datetime] = {}
        """When belongings of pods were last seen or made here, oldest first; nothing about those it was long ago of."""
        self.worker = LeasedWorker(
            "reconciler", self, at_once=context.settings.concurrency, budget_seconds=PASS_SECONDS
        )
        context.hints.on_hint(self.worker.wake)

    async def close(self) -> None:
        """Stop hearing out commands that end, and what was put off."""
        for look in self._later.values():
            look.cancel()
        await self._final_log.close()

    async def watch(self) -> None:
        """Let changes of pods wake it; runs until cancelled."""
        await self._cluster.watch_pods(self.hear)

    def hear(self, job_id: UUID, pod: Pod | None) -> None:
        """Look at a job soon whose pod has changed: at once, or a little later where the pod is only on its way.

        A start is half a dozen changes within a second; each look costs as much as the last one, which alone decides.

        Args:
            job_id: Of the job.
            pod: As it is now; None: it was deleted, or nobody knows what has changed.
        """
        if pod is None or not is_passing(read_pod(pod)):
            if (put_off := self._later.pop(job_id, None)) is not None:
                put_off.cancel()
            self._context.hints.add(job_id)
        elif job_id not in self._later:
            loop = asyncio.get_running_loop()
            self._later[job_id] = loop.call_later(_PASSING_SECONDS, self.hear, job_id, None)

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[Job]:
        """Jobs that are due, or hinted at."""
        hints = self._context.hints.waiting
        hinted, working = set(hints), set(self._working)
        rows = await self._context.database.fetch_all(
            storage.leases.CLAIM,
            now=self._context.clock(),
            hinted=list(hinted),
            lease=lease,
            worker=worker,
            limit=limit,
        )
        claimed = {row["id"] for row in rows}
        # what was being worked on here is looked at again when that pass has ended, which it may have done since: its
        # row was not free for this claim; for the rest the claim was the answer, unless it had no room for all of them
        if len(claimed) < limit:
            passed_over = hinted - claimed - working - self._working
            hints -= passed_over
            self._ask_again(passed_over, claimed)
        hints -= claimed
        # only now: what a statement reads beside the rows that it claims may be older than they are
        jobs = await find_jobs(job_ids=claimed, context=self._context)
        self._working |= claimed
        return jobs

    def _ask_again(self, passed_over: set[UUID], claimed: set[UUID]) -> None:
        """Hint once more at jobs that were not to be had: another transaction may have had the row just then.

        Most of them have ended: so it is only once.
        """
        again = passed_over - self._asked_again
        self._asked_again = (self._asked_again - passed_over - claimed) | again
        loop = asyncio.get_running_loop()
        for job_id in again - self._later.keys():
            self._later[job_id] = loop.call_later(_LOCKED_SECONDS, self.hear, job_id, None)

    async def renew(self, job: Job, worker: UUID, lease: timedelta) -> bool:
        """Hold the job longer."""
        held = await self._context.database.fetch_value(storage.leases.RENEW, job_id=job.id, worker=worker, lease=lease)
        return held is not None

    async def work(self, job: Job, budget: Budget) -> Looked:
        """Bring one job as far as it gets now."""
        seen: PodFacts | None = None
        for _ in range(_MAX_STEPS):
            if budget.left_seconds < _LOOK_SECONDS + _STEP_SECONDS:
                break
            seen = seen or await self._look(job, budget)
            stored = await find_log_state(job_id=job.id, context=self._context) if is_stopping(job) else KeptLog()
            step = next_step(job, seen, self._context.clock(), self._limits, stored)
            if isinstance(step, Rest):
                kept = await self._keep(job, budget) if self._is_to_keep(job, seen) else None
                if kept is None:
                    return Looked(job, self._rests_until(job, step))
                step = Record(kept)
            changed = await self._take(job, step, stored, budget)
            if changed is None or changed.phase is Phase.ENDED or changed.node is None:
                return Looked(changed or job, self._context.clock() + _RETRY)
            if isinstance(step, Make) and changed.pod_uid is not None:
                # as new as it is it can only be on its way: what it comes to is hinted at, or looked at then
                return Looked(changed, self._context.clock() + _RETRY)
            # what was written changes no pod, and what changes it meanwhile is hinted at: one look does for the next
            # step, but for an end, which needs its own
            seen = None if isinstance(step, Make) or is_stopping(changed) else seen
            job = changed
        return Looked(job, self._context.clock())

    async def give_back(self, job: Job, worker: UUID, result: Looked) -> None:
        """Due again when the pass says, or at once when the job changed meanwhile."""
        self._failures.pop(job.id, None)
        await self._finish(job, worker, result)

    async def retry(self, job: Job, worker: UUID) -> None:
        """The more passes failed in a row here, the later."""
        pause = min(_LONGEST_RETRY, _RETRY * 2 ** min(self._failures[job.id], 10))
        self._failures[job.id] += 1
        await self._finish(job, worker, Looked(job, self._context.clock() + pause))

    async def hand_over(self, job: Job, worker: UUID) -> None:
        """Due now."""
        await self._finish(job, worker, Looked(job, self._context.clock()))

    async def _finish(self, job: Job, worker: UUID, looked: Looked) -> None:
        try:
            await self._context.database.execute(
                storage.leases.FINISH,
                job_id=job.id,
                worker=worker,
                known_revision=looked.job.revision,
                next_look_at=looked.next_at,
            )
        finally:
            # only now is the row free for the next claim: a hint that came meanwhile must last until then
            self._working.discard(job.id)

    async def _look(self, job: Job, budget: Budget) -> PodFacts | None:
        async with budget.call(_LOOK_SECONDS):
            pod = await self._cluster.find_pod(object_name(job))
            return await self._read(pod) if pod is not None else None

    async def _read(self, pod: Pod) -> PodFacts:
        facts = read_pod(pod)
        created_at = pod.metadata.creation_timestamp
        if not facts.mounting or created_at is None or self._context.clock() < created_at + _MOUNT_TIME:
            return facts
        return with_event(facts, await self._cluster.find_newest_event(facts.uid))

    async def _keep(self, job: Job, budget: Budget) -> Fact | None:
        """See to the pod's belongings, which must not keep the job beyond its end."""
        end = job.expires_at
        left_seconds = _STEP_SECONDS if end is None else (end - self._context.clock()).total_seconds()
        with suppress(TimeoutError):
            async with budget.call(min(_STEP_SECONDS, left_seconds)):
                fact = await self._objects.keep(job)
                self._note_kept(job)
                return fact
        return None

    def _is_to_keep(self, job: Job, seen: PodFacts | None) -> bool:
        """Whether to see to the belongings of its pod: while it runs, once in the time between two looks.

        Not at each hint: of twenty jobs that start at once that would be half of all calls.
        """
        if seen is None or seen.deleting:
            return False
        if job.phase is Phase.ACTIVE:
            keeps_at = self._keeps_at(job)
            return keeps_at is None or keeps_at <= self._context.clock()
        # it cannot start, perhaps for want of them
        return job.phase is Phase.PREPARING and job.fault is not None and job.pod_uid is not None

    def _rests_until(self, job: Job, step: Rest) -> datetime:
        keeps_at = self._keeps_at(job) if job.phase is Phase.ACTIVE else None
        return min(step.until, keeps_at) if keeps_at is not None and keeps_at > self._context.clock() else step.until

    def _keeps_at(self, job: Job) -> datetime | None:
        """When to see to what belongs to the pod again; None: it was not seen to here of late."""
        kept_at = self._kept.get(job.id)
        return None if kept_at is None else kept_at + self._between_looks

    def _note_kept(self, job: Job) -> None:
        now = self._context.clock()
        self._kept.pop(job.id, None)
        self._kept[job.id] = now
        while (oldest := next(iter(self._kept))) != job.id and self._kept[oldest] + self._between_looks <= now:
            del self._kept[oldest]

    async def _take(self, job: Job, step: Step, stored: KeptLog, budget: Budget) -> Job | None:
        if job.traceparent is None:
            return await self._carry_out(job, step, stored, budget)
        # only steps: looks that lead to nothing are many
        with span(_name_of(step), parent=job.traceparent, attributes={"gpudev.job_id": str(job.id)}):
            return await self._carry_out(job, step, stored, budget)

    async def _carry_out(self, job: Job, step: Step, stored: KeptLog, budget: Budget) -> Job | None:
        if isinstance(step, Keep):
            return await self._keep_log(job, step, budget)
        if isinstance(step, Delete):
            await self._delete(job, step, stored, budget)
            return job
        if isinstance(step, Clear):
            return await self._leave(job, budget)
        return await self._record(job, await self._find_out(job, step, budget))

    async def _find_out(self, job: Job, step: Make | FetchKeys | Record | AskNode | Rest, budget: Budget) -> Fact:
        if isinstance(step, Record):
            return step.fact
        async with budget.call(_STEP_SECONDS):
            if isinstance(step, Make):
                made = await self._objects.make(job)
                self._note_kept(job)
                return made
            if isinstance(step, FetchKeys):
                return await fetch_user(job=job, user=step.user, github=self._github, context=self._context)
            assert isinstance(step, AskNode)  # noqa: S101 - who rests takes no step
            return await self._ask_node(job, step)

    async def _keep_log(self, job: Job, step: Keep, budget: Budget) -> Job | None:
        async with budget.call(WHOLE_SECONDS + CALL_SECONDS):
            written = await keep_log(
                job=job, final=step.final, cluster=self._cluster, now=self._context.clock(), context=self._context
            )
        return job if written else None

    async def _delete(self, job: Job, step: Delete, stored: KeptLog, budget: Budget) -> None:
        """What can be done without is cut short; the deletion keeps its time."""
        with suppress(TimeoutError):
            async with budget.call(CONTENT_SECONDS, leaving_seconds=CALL_SECONDS):
                await report_content(
                    job=job,
                    last_message=step.last_message,
                    cluster=self._cluster,
                    now=self._context.clock(),
                    context=self._context,
                )
        with suppress(TimeoutError):
            async with budget.call(_CONNECT_SECONDS, leaving_seconds=CALL_SECONDS):
                await self._final_log.listen(job, stored)
        async with budget.call(CALL_SECONDS):
            await self._cluster.delete_pod(object_name(job), step.uid)

    async def _leave(self, job: Job, budget: Budget) -> Job | None:
        async with budget.call(_STEP_SECONDS):
            if not await self._objects.clear(job):
                return None
        await self._final_log.heard(job.id)
        return await self._record(job, PodGone(job.epoch))

    async def _record(self, job: Job, fact: Fact) -> Job | None:
        changed = await apply_fact(job=job, fact=fact, now=self._context.clock(), context=self._context)
        log.info(
            "job_fact",
            job_id=str(job.id),
            fact=type(fact).__name__,
            applied=changed is not None,
            status=changed.status if changed else None,
        )
        return changed

    async def _ask_node(self, job: Job, step: AskNode) -> Fact:
        # a node that is lost takes its pods along: Kubernetes deletes them before capacity hears of it, or after
        trouble = await self._cluster.find_node_trouble(job.node or "")
        reason = trouble or step.disruption or "The pod was deleted from outside"
        return PodFailed(job.epoch, reason, step.exit_code)


def _name_of(step: Step) -> str:
    """Of its span, such as `reconcile: Make` or `reconcile: Record PodReady`."""
    words = [type(step).__name__, *([type(step.fact).__name__] if isinstance(step, Record) else [])]
    return f"reconcile: {' '.join(words)}"


def limits_of(settings: JobsSettings) -> Limits:
    """The patience that the settings say."""
    return Limits(
        image_fault_seconds=settings.image_fault_seconds,
        refusal_seconds=settings.refusal_seconds,
        unschedulable_seconds=settings.unschedulable_seconds,
        prepare_seconds=settings.prepare_seconds,
        jupyter_seconds=settings.access_seconds,
        resync_seconds=settings.resync_seconds,
    )
