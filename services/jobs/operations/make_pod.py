"""The objects in Kubernetes of a job that has a lease: made, made again when somebody has deleted them, cleared away.

Every call may be repeated: names come from the job's id and epoch, so a second try finds what the first one made.
"""

import asyncio

import structlog

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster, ClusterForbids, ClusterRefused, NameTaken
from services.jobs.context import Context
from services.jobs.domain.disk_manifests import has_disk, volume_claim_manifest, volume_manifest
from services.jobs.domain.facts import Fact, PodFailed, PodMade, PortsMoved
from services.jobs.domain.job import Job
from services.jobs.domain.job_host import ingress_manifest
from services.jobs.domain.manifests import (
    labels,
    object_name,
    pod_manifest,
    secret_manifest,
    service_manifest,
)
from services.jobs.domain.next_step import Limits, judge_refusal
from services.jobs.domain.pod_policy import PodPolicy
from services.jobs.operations.access import stored_keys
from services.jobs.operations.seal import unseal_environment

log = structlog.get_logger(__name__)

CALLS_AT_MOST = 16
"""One after another, of the longest of the three: what leads to the pod, Secret and disk are looked for and all made
again."""


class PodObjects:
    """The pod of a job with all that belongs to it.

    Args:
        cluster: Where they live.
        policy: What the settings say of pods.
        limits: How long a refusal may last.
        context: The service's.
    """

    def __init__(self, cluster: Cluster, policy: PodPolicy, limits: Limits, context: Context) -> None:
        self._cluster = cluster
        self._policy = policy
        self._limits = limits
        self._context = context

    async def make(self, job: Job) -> Fact:
        """Secret, disk, pod, then what leads to it: the pod needs the first two, and owns all but the disk."""
        name = object_name(job)
        try:
            await self._ensure_secret(job)
            if has_disk(job):
                await self._ensure_disk(job)
            pod = await self._cluster.ensure_pod(pod_manifest(job, self._policy))
            uid = pod.metadata.uid
            ports, *_ = await asyncio.gather(
                self._cluster.ensure_service(service_manifest(job, self._policy, uid)),
                self._ensure_ingress(job, uid),
                self._cluster.tie_secret(name, uid),
            )
        except ClusterRefused as error:
            return PodFailed(job.epoch, f"Kubernetes refused the job: {error.text}")
        except (ClusterForbids, NameTaken) as error:
            return judge_refusal(job, error.text, self._context.clock(), self._limits)
        return PodMade(job.epoch, name, uid, ports.get("ssh"), ports.get("jupyter"), pod.spec.active_deadline_seconds)

    async def keep(self, job: Job) -> Fact | None:
        """Make again what of a pod's belongings someone has deleted; where it can be reached now, if that changed.

        None: nothing is to be told. What is being deleted and cannot be gone while the pod uses it counts as there.
        """
        name, uid = object_name(job), job.pod_uid or ""
        ports: dict[str, int | None] = {}
        reason = "Its Service was deleted or changed and has been made anew: its ports are others"
        try:
            ports = await self._keep_service(job, uid)
            await self._keep_ingress(job, uid)
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

    async def clear(self, job: Job) -> bool:
        """Remove what is left when the pod is gone. False: the disk is not detached yet."""
        name = object_name(job)
        kinds = ("secrets", "services", *(("ingresses",) if self._policy.job_domain else ()))
        await asyncio.gather(*(self._cluster.delete_object(kind, name) for kind in kinds))
        return await self._cluster.release_disk(name) if has_disk(job) else True

    async def _ensure_secret(self, job: Job) -> None:
        keys = await stored_keys(job=job, context=self._context) if job.users else ""
        await self._cluster.ensure_secret(secret_manifest(job, await self._environment(job), keys))

    async def _environment(self, job: Job) -> dict[str, str]:
        sealed = await self._context.database.fetch_value(storage.jobs.ENVIRONMENT, job_id=job.id)
        return {} if sealed is None else unseal_environment(job.id, sealed, self._context)

    async def _ensure_disk(self, job: Job) -> None:
        name = object_name(job)
        volume = volume_manifest(job, name, labels(job), self._context.settings.namespace)
        await self._cluster.ensure_disk(volume, volume_claim_manifest(name, labels(job)))

    async def _keep_service(self, job: Job, pod_uid: str) -> dict[str, int | None]:
        manifest = service_manifest(job, self._policy, pod_uid)
        found = await self._cluster.find_service(object_name(job))
        if found is not None and found.leads_as(manifest):
            return found.node_ports
        if found is not None:
            await self._cluster.delete_object("services", object_name(job), found.metadata.uid)
        log.warning("object_made_again", kind="services", job_id=str(job.id))
        return await self._cluster.ensure_service(manifest)

    async def _ensure_ingress(self, job: Job, pod_uid: str) -> None:
        manifest = ingress_manifest(job, self._policy, pod_uid)
        if manifest is not None:
            await self._cluster.ensure_ingress(manifest)

    async def _keep_ingress(self, job: Job, pod_uid: str) -> None:
        if self._policy.job_domain is None or await self._cluster.find_object("ingresses", object_name(job)):
            return
        log.warning("object_made_again", kind="ingresses", job_id=str(job.id))
        await self._ensure_ingress(job, pod_uid)

    async def _misses_disk(self, name: str) -> bool:
        kinds = ("persistentvolumes", "persistentvolumeclaims")
        return None in await asyncio.gather(*(self._cluster.find_object(kind, name) for kind in kinds))
