"""The host that a job's JupyterLab has for itself: another origin than the API's and than every other job's.

A browser keeps pages of different hosts apart, so that no notebook reads another's session.
"""

from uuid import UUID

from services.jobs.domain.job import Job
from services.jobs.domain.manifests import Manifest, labels, object_name, owner_reference
from services.jobs.domain.pod_policy import PodPolicy

_PORT_NAME = "jupyter"
"""Of the job's Service."""


def job_host(job_id: UUID, domain: str) -> str:
    """The short id under the domain."""
    return f"{str(job_id)[:8]}.{domain}"


def ingress_manifest(job: Job, policy: PodPolicy, pod_uid: str) -> Manifest | None:
    """The Ingress that leads from the job's host to its JupyterLab and dies with its pod; None: jobs have no hosts."""
    if policy.job_domain is None or policy.tools_image is None:
        return None
    name, host = object_name(job), job_host(job.id, policy.job_domain)
    service = {"name": name, "port": {"name": _PORT_NAME}}
    tls = {"tls": [{"hosts": [host], "secretName": policy.job_tls_secret}]} if policy.job_tls_secret else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "labels": labels(job),
            "annotations": policy.job_ingress_annotations,
            "ownerReferences": [owner_reference(name, pod_uid)],
        },
        "spec": {
            **({"ingressClassName": policy.job_ingress_class} if policy.job_ingress_class else {}),
            **tls,
            "rules": [
                {
                    "host": host,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]},
                }
            ],
        },
    }
