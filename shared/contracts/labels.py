"""Labels and annotations of the Kubernetes objects of jobs: jobs writes them, capacity and operators read them."""

from collections.abc import Mapping
from uuid import UUID

JOB_LABEL = "gpudev/job-id"
"""The job's whole id."""
EPOCH_LABEL = "gpudev/epoch"
"""Number of the lease that the object was made under."""
USER_LABEL = "gpudev/user"
"""The owner's name, made to fit a label."""
USERNAME_ANNOTATION = "gpudev/username"
"""The owner's name as it is."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "gpudev"}
"""On every object that jobs makes; also what it selects them by."""


def job_id_of(labels: Mapping[str, str] | None) -> UUID | None:
    """The job that an object's labels name; None when they name none.

    Outside of the jobs' namespace anyone may set them, and they mean nothing.
    """
    try:
        return UUID((labels or {}).get(JOB_LABEL, ""))
    except ValueError:
        return None
