"""Settings of the jobs service."""

from shared.settings import CommonSettings


class JobsSettings(CommonSettings, frozen=True, kw_only=True):
    kubeconfig: str | None = None
    """Path of a kubeconfig; None: the service account of the pod this runs in."""
    namespace: str = "gpudev"
    """Kubernetes namespace of the jobs' pods. Everything in it that carries our labels is ours."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPU resource of pods and nodes."""
    image_pull_policy: str = "IfNotPresent"
    """Of users' images: Always, IfNotPresent or Never."""
    user_email_domain: str | None = None
    """Shown behind the username in answers' user_id; None: the username alone."""
    grace_seconds: int = 30
    """From asking a pod to end to killing it."""
    shm_gib_per_gpu: int = 16
    """Size of /dev/shm per GPU, in GiB."""
    max_total_hours: int = 168
    """No job lives longer than this from its start, extensions included."""
    resync_seconds: float = 5.0
    """Between two looks at a job's pod when no event asks for one."""
    sweep_seconds: float = 30.0
    """Between two searches for pods, services and secrets without a job."""
    image_fault_seconds: float = 60.0
    """How long an image may fail to be pulled, or a container to be made, before the job fails."""
    unschedulable_seconds: float = 10.0
    """How long a pod may find no room before its lease is given back."""
    prepare_seconds: float = 3600.0
    """From the lease to a ready pod at most, the pull of a large image included."""
    concurrency: int = 16
    """Jobs that one replica works on at once."""
