"""Makes the cluster match the jobs: looks at each job that has a lease, decides, acts, writes down.

One job at a time is one worker's (a lease on its row); a pass looks at reality first and acts outside any transaction;
what it writes is guarded by the row's revision. Killed at any point, the next pass finds what is there and goes on.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import structlog
from prometheus_client import Counter

from services.jobs import storage
from services.jobs.adapters.github import GitHub
from services.jobs.adapters.kubernetes import Cluster, ClusterForbids, ClusterRefused, NameTaken
from services.jobs.context import Context
from services.jobs.domain.disk_manifests import has_disk, volume_claim_manifest, volume_manifest
from services.jobs.domain.facts import Fact, PodFailed, PodGone, PodMade, PortsMoved
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.manifests import (
    PodPolicy,
    labels,
    object_name,
    pod_manifest,
    secret_manifest,
    service_manifest,
)
from services.jobs.domain.plan import (
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
    judge_refusal,
    next_step,
)
from services.jobs.domain.pod import Pod
from services.jobs.domain.pod_facts import PodFacts, read_pod
from services.jobs.domain.trouble import with_event
from services.jobs.operations.access import fetch_user, stored_keys
from services.jobs.operations.archive_log import keep_log
from services.jobs.operations.list_disk import tell_content
from services.jobs.operations.seal import unseal_environment
from services.jobs.operations.transition import apply_fact
from services.jobs.settings import JobsSettings
from services.jobs.workers.final_log import FinalLog
from shared.background import Loop
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

_PASS_SECONDS = 6.0
_LEASE = timedelta(seconds=8)
"""Longer than a pass may take, so that no call of a pass is sent when another worker may have the job; short, so that
the jobs of a killed process are soon another's."""
_MAX_STEPS = 12
_MOUNT_TIME = timedelta(seconds=3)
"""A pod whose volumes take longer is asked for what is wrong."""
_RETRY = timedelta(seconds=1)
_failed_passes = Counter("gpudev_job_passes_failed", "Passes over a job that failed", ["error"])


class Reconciler:
    """Works the jobs that have a lease.

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
        self._policy = policy_of(context.settings)
        self._final_log = FinalLog(cluster, context)
        self._working: dict[UUID, asyncio.Task[None]] = {}
        self.loop = Loop("reconciler", self._turn, period_seconds=1.0, turn_seconds=15.0)
        context.hints.on_hint(self.loop.wake)

    async def close(self) -> None:
        """Stop working; what was begun is finished by the next worker."""
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._final_log.close()

    async def watch(self) -> None:
        """Let changes of pods wake it; runs until cancelled."""
        await self._cluster.watch_pods(self._context.hints.add)

    async def _turn(self) -> None:
        room = self._context.settings.concurrency - len(self._working)
        if room <= 0:
            return  # each pass that ends wakes the loop
        hints = self._context.hints.waiting
        hinted = set(hints)
        worker = uuid4()
        rows = await self._context.database.fetch_all(
            storage.leases.CLAIM, now=datetime.now(UTC), hinted=list(hinted), lease=_LEASE, worker=worker, limit=room
        )
        # what is being worked on here is looked at again when that pass ends; for the rest the claim was the answer
        hints -= hinted - self._working.keys()
        for row in rows:
            job = storage.jobs.to_job(row)
            hints.discard(job.id)
            task = asyncio.create_task(self._work(job, worker))
            self._working[job.id] = task
            task.add_done_callback(partial(self._done, job.id))
        if len(rows) == room:
            self.loop.wake()

    def _done(self, job_id: UUID, _: object) -> None:
        self._working.pop(job_id, None)
        self.loop.wake()

    async def _work(self, job: Job, worker: UUID) -> None:
        now = datetime.now(UTC)
        known, look_at = job, now + _RETRY
        try:
            async with asyncio.timeout(_PASS_SECONDS):
                known, look_at = await self.run_pass(job)
        except asyncio.CancelledError:
            await self._finish(known, worker, now)
            raise
        except Exception as error:
            _failed_passes.labels(type(error).__name__).inc()
            expected = isinstance(error, Unavailable | TimeoutError)
            log.warning(
                "job_pass_failed", job_id=str(job.id), error=type(error).__name__,
                context=error.context if isinstance(error, Unavailable) else {}, exc_info=None if expected else error,
            )  # fmt: skip
            look_at = datetime.now(UTC) + _RETRY
        await self._finish(known, worker, look_at)

    async def _finish(self, job: Job, worker: UUID, look_at: datetime) -> None:
        try:
            await self._context.database.execute(
                storage.leases.FINISH, job_id=job.id, worker=worker, known_revision=job.revision, next_look_at=look_at
            )
        except Unavailable:
            log.warning("job_lease_not_returned", job_id=str(job.id))  # it ends by itself

    async def run_pass(self, job: Job) -> tuple[Job, datetime]:
        """Bring one job as far as it gets now; the job as last written, and when to look again."""
        for _ in range(_MAX_STEPS):
            pod = await self._cluster.find_pod(object_name(job))
            seen = await self._read(pod) if pod is not None else None
            step = next_step(job, seen, datetime.now(UTC), self._limits)
            if isinstance(step, Rest):
                kept = await self._keep(job) if _has_pod(job, seen) else None
                if kept is None:
                    return job, step.until
                step = Record(kept)
            changed = await self._take(job, step)
            if changed is None or changed.phase is Phase.ENDED or changed.node is None:
                return changed or job, datetime.now(UTC) + _RETRY
            job = changed
        return job, datetime.now(UTC)

    async def _read(self, pod: Pod) -> PodFacts:
        facts = read_pod(pod)
        created_at = pod.metadata.creation_timestamp
        if not facts.mounting or created_at is None or datetime.now(UTC) < created_at + _MOUNT_TIME:
            return facts
        return with_event(facts, await self._cluster.find_newest_event(facts.uid))

    async def _take(self, job: Job, step: Step) -> Job | None:
        if isinstance(step, Record):
            return await self._record(job, step.fact)
        if isinstance(step, Make | AskNode):
            fact = await (self._make(job) if isinstance(step, Make) else self._ask_node(job, step))
            return await self._record(job, fact)
        if isinstance(step, FetchKeys):
            fact = await fetch_user(job=job, user=step.user, github=self._github, context=self._context)
            return await self._record(job, fact)
        if isinstance(step, Keep):
            return await keep_log(
                job=job, final=step.final, cluster=self._cluster, now=datetime.now(UTC), context=self._context
            )
        if isinstance(step, Delete):
            await tell_content(
                job=job, last_message=step.last_message, cluster=self._cluster, now=datetime.now(UTC),
                context=self._context,
            )  # fmt: skip
            await self._final_log.listen(job)
            await self._cluster.delete_pod(object_name(job), step.uid)
        if isinstance(step, Clear):
            return await self._leave(job)
        return job

    async def _leave(self, job: Job) -> Job | None:
        if not await self._clear(job):
            return None
        await self._final_log.heard(job.id)
        return await self._record(job, PodGone(job.epoch))

    async def _record(self, job: Job, fact: Fact) -> Job | None:
        changed = await apply_fact(job=job, fact=fact, now=datetime.now(UTC), context=self._context)
        log.info(
            "job_fact", job_id=str(job.id), fact=type(fact).__name__, applied=changed is not None,
            status=changed.status if changed else None,
        )  # fmt: skip
        return changed

    async def _ask_node(self, job: Job, step: AskNode) -> Fact:
        # a node that is lost takes its pods along: Kubernetes deletes them before capacity hears of it, or after
        trouble = await self._cluster.find_node_trouble(job.node or "")
        reason = trouble or step.disruption or "The pod was deleted from outside"
        return PodFailed(job.epoch, reason, step.exit_code)

    async def _make(self, job: Job) -> Fact:
        """Secret, disk, pod, service: in this order, since the pod needs the first two and owns Secret and Service."""
        name = object_name(job)
        try:
            await self._ensure_secret(job)
            if has_disk(job):
                await self._ensure_disk(job)
            pod = await self._cluster.ensure_pod(pod_manifest(job, self._policy))
            uid = pod.metadata.uid
            ports, _ = await asyncio.gather(
                self._cluster.ensure_service(service_manifest(job, self._policy, uid)),
                self._cluster.tie_secret(name, uid),
            )
        except ClusterRefused as error:
            return PodFailed(job.epoch, f"Kubernetes refused the job: {error.text}")
        except (ClusterForbids, NameTaken) as error:
            return judge_refusal(job, error.text, datetime.now(UTC), self._limits)
        return PodMade(job.epoch, name, uid, ports.get("ssh"), ports.get("jupyter"), pod.spec.active_deadline_seconds)

    async def _ensure_secret(self, job: Job) -> None:
        keys = await stored_keys(job=job, context=self._context) if job.users else ""
        await self._cluster.ensure_secret(secret_manifest(job, await self._environment(job), keys))

    async def _ensure_disk(self, job: Job) -> None:
        name = object_name(job)
        volume = volume_manifest(job, name, labels(job), self._context.settings.namespace)
        await self._cluster.ensure_disk(volume, volume_claim_manifest(name, labels(job)))

    async def _keep(self, job: Job) -> Fact | None:
        """Make again what of a pod's belongings someone has deleted; where it can be reached now, if that changed.

        None: nothing is to be told. What is being deleted and cannot be gone while the pod uses it counts as there.
        """
        name, uid = object_name(job), job.pod_uid or ""
        ports: dict[str, int | None] = {}
        reason = "Its Service was deleted or changed and has been made anew: its ports are others"
        try:
            ports = await self._keep_service(job, uid)
            if await self._cluster.find_object("secrets", name) is None:
                await self._ensure_secret(job)
                await self._cluster.tie_secret(name, uid)
                log.warning("object_made_again", kind="secrets", job_id=str(job.id))
            if has_disk(job) and await self._misses_disk(name):
                await self._ensure_disk(job)
                log.warning("object_made_again", kind="persistentvolumeclaims", job_id=str(job.id))
        except (ClusterRefused, ClusterForbids, NameTaken) as error:
            log.warning("object_not_made_again", job_id=str(job.id), error=type(error).__name__)
            if ports:
                return None
            reason = f"It cannot be reached: its Service was deleted, and Kubernetes makes no other: {error.text}"
        moved = (ports.get("ssh"), ports.get("jupyter")) != (job.node_port, job.jupyter_port)
        return PortsMoved(job.epoch, ports.get("ssh"), ports.get("jupyter"), reason) if moved else None

    async def _keep_service(self, job: Job, pod_uid: str) -> dict[str, int | None]:
        manifest = service_manifest(job, self._policy, pod_uid)
        found = await self._cluster.find_service(object_name(job))
        if found is not None and found.leads_as(manifest):
            return found.node_ports
        if found is not None:
            await self._cluster.delete_object("services", object_name(job), found.metadata.uid)
        log.warning("object_made_again", kind="services", job_id=str(job.id))
        return await self._cluster.ensure_service(manifest)

    async def _misses_disk(self, name: str) -> bool:
        kinds = ("persistentvolumes", "persistentvolumeclaims")
        return None in await asyncio.gather(*(self._cluster.find_object(kind, name) for kind in kinds))

    async def _clear(self, job: Job) -> bool:
        """False: the disk is not detached yet."""
        name = object_name(job)
        await asyncio.gather(
            self._cluster.delete_object("secrets", name), self._cluster.delete_object("services", name)
        )
        return await self._cluster.release_disk(name) if has_disk(job) else True

    async def _environment(self, job: Job) -> dict[str, str]:
        sealed = await self._context.database.fetch_value(storage.jobs.ENVIRONMENT, job_id=job.id)
        if sealed is None:
            return {}
        return unseal_environment(job.id, sealed, self._context)


def _has_pod(job: Job, seen: PodFacts | None) -> bool:
    """It has a pod whose belongings matter: one that runs, or that cannot start, perhaps for want of them."""
    in_trouble = job.phase is Phase.PREPARING and job.fault is not None and job.pod_uid is not None
    return seen is not None and not seen.deleting and (job.phase is Phase.ACTIVE or in_trouble)


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


def policy_of(settings: JobsSettings) -> PodPolicy:
    """The pods that the settings say."""
    return PodPolicy(
        gpu_resource=settings.gpu_resource,
        image_pull_policy=settings.image_pull_policy,
        grace_seconds=settings.grace_seconds,
        shm_gib_per_gpu=settings.shm_gib_per_gpu,
        scratch_gib=settings.scratch_gib,
        tools_gib=settings.tools_gib,
        tools_image=settings.tools_image,
        tools_pull_policy=settings.tools_pull_policy,
        cpu_per_gpu=settings.cpu_per_gpu,
        memory_gib_per_gpu=settings.memory_gib_per_gpu,
        prepare_seconds=settings.prepare_seconds,
        longest_seconds=settings.max_total_hours * 3600,
    )
