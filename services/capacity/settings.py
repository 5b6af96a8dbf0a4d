"""Capacity's settings."""

from datetime import timedelta

from services.capacity.domain.fleet import RequestsPerGpu
from services.capacity.domain.placement import SchedulingPolicy
from shared.contracts.tolerations import Toleration, parse_tolerations
from shared.settings import CommonSettings, SettingsError


class CapacitySettings(CommonSettings, frozen=True, kw_only=True):
    kubeconfig: str | None = None
    """Path of a kubeconfig; None: the service account of the pod that this runs in."""
    namespace: str = "gpudev"
    """Kubernetes namespace of the jobs' pods."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that is counted; a taint of the same key is tolerated by jobs."""
    cpu_per_gpu: int | None = None
    """Cores that jobs' pods ask for with each GPU, as set for the jobs service; None: none."""
    memory_gib_per_gpu: int | None = None
    """Memory that they ask for with each GPU, in GiB; None: none."""
    extra_tolerations: str = ""
    """Taints that jobs' pods tolerate beside those of the GPU resource's key, as set for the jobs service."""
    watch_seconds: float = 30.0
    """Length of one watch, in seconds; after it everything is listed again."""
    max_gpus_per_user: int | None = None
    """GPUs that one user may hold at once, of all types; None: no limit."""
    prepare_seconds: float = 3600.0
    """At most this long from a lease to the start of the job's time box, in seconds, as set for the jobs service. The
    head of a queue is promised its start by it."""
    grace_seconds: int = 30
    """Seconds from asking a pod to end to killing it, as set for the jobs service."""

    def __post_init__(self) -> None:
        """What cannot be read is refused at the start."""
        self.tolerations()

    def tolerations(self) -> tuple[Toleration, ...]:
        """Of jobs' pods.

        Raises:
            SettingsError: GPUDEV_EXTRA_TOLERATIONS cannot be read.
        """
        try:
            return parse_tolerations(self.extra_tolerations)
        except ValueError as error:
            raise SettingsError(f"GPUDEV_EXTRA_TOLERATIONS: {error}") from error

    def requests_per_gpu(self) -> RequestsPerGpu:
        """What jobs' pods ask for."""
        memory = self.memory_gib_per_gpu
        return RequestsPerGpu(cpu=self.cpu_per_gpu, memory_bytes=None if memory is None else memory * 2**30)

    def policy(self) -> SchedulingPolicy:
        """For the scheduler."""
        return SchedulingPolicy(
            most_gpus_per_user=self.max_gpus_per_user,
            preparation=timedelta(seconds=self.prepare_seconds),
            release=timedelta(seconds=self.grace_seconds + _RECONCILE_SECONDS),
        )


_RECONCILE_SECONDS = 30
"""Usual time from the end of a pod until its GPUs are given back."""
