"""The Kubernetes objects of a job's disk: an EBS volume that exists, as a persistent volume for one pod.

Static provisioning as the EBS CSI driver documents it
(https://github.com/kubernetes-sigs/aws-ebs-csi-driver/tree/master/examples/kubernetes/static-provisioning).
"""

from typing import Any

from services.jobs.domain.job import Job

_DRIVER = "ebs.csi.aws.com"
_ZONE = "topology.kubernetes.io/zone"
_SIZE = "1Gi"
"""Of no effect for a volume that exists, but asked for by the API; claim and volume only have to agree."""
_GROUP = 1000
"""Owns the root of the disk, so that an image that does not run as root can write there."""

Manifest = dict[str, Any]


def has_disk(job: Job) -> bool:
    """Whether its pods mount a disk."""
    return job.ebs_volume_id is not None


def volume_manifest(job: Job, name: str, labels: dict[str, str], namespace: str) -> Manifest:
    """The PersistentVolume: for this claim alone, where the volume is, and not deleted with it."""
    match = {"key": _ZONE, "operator": "In", "values": [job.availability_zone or ""]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": _SIZE},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name},
            "csi": {"driver": _DRIVER, "volumeHandle": job.ebs_volume_id, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [match]}]}},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
        },
    }


def volume_claim_manifest(name: str, labels: dict[str, str]) -> Manifest:
    """The PersistentVolumeClaim: for this volume alone."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": _SIZE}},
            "storageClassName": "",
            "volumeName": name,
        },
    }


def disk_source(name: str) -> Manifest:
    """What a pod's volume is made of: the claim of this name."""
    return {"persistentVolumeClaim": {"claimName": name}}


def disk_security() -> Manifest:
    """What the pod's security context needs for the user of its image to write on the disk."""
    return {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
