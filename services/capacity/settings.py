"""Capacity's settings."""

from shared.settings import CommonSettings


class CapacitySettings(CommonSettings, frozen=True, kw_only=True):
    kubeconfig: str | None = None
    """Path of a kubeconfig; None: the service account of the pod that this runs in."""
    namespace: str = "gpudev"
    """Kubernetes namespace of the jobs' pods."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that is counted; a taint of the same key is tolerated by jobs."""
    watch_seconds: float = 30.0
    """Length of one watch; after it everything is listed anew."""
