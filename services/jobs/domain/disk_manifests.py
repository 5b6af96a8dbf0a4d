"""The Kubernetes objects of a job's disk: an EBS volume that exists, as a persistent volume for one pod.

Static provisioning as the EBS CSI driver documents it
(https://github.com/kubernetes-sigs/aws-ebs-csi-driver/tree/master/examples/kubernetes/static-provisioning).
"""

from typing import Any

from services.jobs.domain.job import Job

DISK_VOLUME = "disk"
DISK_PATH = "/home/dev"
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


def with_disk(pod: Manifest) -> Manifest:
    """The pod with its disk mounted in its main container."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    (main,) = spec["containers"]
    mounts = [*main["volumeMounts"], {"name": DISK_VOLUME, "mountPath": DISK_PATH}]
    volume = {"name": DISK_VOLUME, "persistentVolumeClaim": {"claimName": name}}
    security = {**spec["securityContext"], "fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
    changed = {
        "containers": [{**main, "volumeMounts": mounts}],
        "securityContext": security,
        "volumes": [*spec["volumes"], volume],
    }
    return {**pod, "spec": {**spec, **changed}}
