"""Persistent volumes and claims that name each other, as a disk of a job is given to its pod."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from kubernetes.client import CoreV1Api

from tests.cluster.waiting import eventually


def volume(name: str, namespace: str, handle: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": namespace, "name": name},
            "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": handle},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
        },
    }


def claim(name: str) -> dict[str, Any]:
    resources = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name, "resources": resources}
    return {"metadata": {"name": name}, "spec": spec}


@pytest.fixture
def name(core: CoreV1Api) -> Iterator[str]:
    """Of a persistent volume, which no namespace takes with it."""
    made = f"test-{uuid4().hex[:12]}"
    yield made
    if made in {found.metadata.name for found in core.list_persistent_volume().items}:
        core.delete_persistent_volume(made)


def make(core: CoreV1Api, namespace: str, name: str, handle: str) -> None:
    core.create_persistent_volume(volume(name, namespace, handle))
    core.create_namespaced_persistent_volume_claim(namespace, claim(name))


def test_a_volume_and_a_claim_that_name_each_other_are_bound(core: CoreV1Api, namespace: str, name: str) -> None:
    make(core, namespace, name, "vol-1")

    eventually(
        lambda: core.read_namespaced_persistent_volume_claim(name, namespace).status.phase == "Bound", "the claim bound"
    )
    eventually(lambda: core.read_persistent_volume(name).status.phase == "Bound", "the volume bound")
    core.delete_namespaced_persistent_volume_claim(name, namespace)
    eventually(lambda: core.read_persistent_volume(name).status.phase == "Released", "the volume retained")


def test_another_claim_does_not_get_the_volume(core: CoreV1Api, namespace: str, name: str) -> None:
    core.create_persistent_volume(volume(name, namespace, "vol-1"))
    stranger = claim(name) | {"metadata": {"name": "stranger"}}

    core.create_namespaced_persistent_volume_claim(namespace, stranger)
    core.create_namespaced_persistent_volume_claim(namespace, claim(name))

    eventually(lambda: core.read_persistent_volume(name).status.phase == "Bound", "the volume bound")
    assert core.read_persistent_volume(name).spec.claim_ref.name == name
    assert core.read_namespaced_persistent_volume_claim("stranger", namespace).status.phase == "Pending"
