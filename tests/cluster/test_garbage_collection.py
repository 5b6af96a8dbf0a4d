"""Owner references: dependents go with their owner."""

import uuid
from typing import Any

from kubernetes.client import CoreV1Api

from tests.cluster.objects import configmap, pod
from tests.cluster.waiting import eventually, gone


def owner(of: Any, kind: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "name": of.metadata.name, "uid": of.metadata.uid}


def test_dependents_go_with_their_owner(core: CoreV1Api, namespace: str) -> None:
    main = core.create_namespaced_pod(namespace, pod("owner", nodeSelector={"no": "where"}))
    references = [owner(main, "Pod")]
    core.create_namespaced_secret(namespace, {"metadata": {"name": "s", "ownerReferences": references}})
    service = {"metadata": {"name": "svc", "ownerReferences": references}, "spec": {"ports": [{"port": 22}]}}
    core.create_namespaced_service(namespace, service)
    core.create_namespaced_config_map(namespace, configmap("unrelated"))
    core.delete_namespaced_pod("owner", namespace)
    gone(lambda: core.read_namespaced_secret("s", namespace), "secret")
    gone(lambda: core.read_namespaced_service("svc", namespace), "service")
    assert core.read_namespaced_config_map("unrelated", namespace)


def test_an_owner_that_never_was_has_no_dependents(core: CoreV1Api, namespace: str) -> None:
    ghost = {"apiVersion": "v1", "kind": "Pod", "name": "ghost", "uid": str(uuid.uuid4())}
    core.create_namespaced_config_map(namespace, configmap("orphan", ownerReferences=[ghost]))
    gone(lambda: core.read_namespaced_config_map("orphan", namespace), "configmap")


def test_an_owner_of_the_same_name_and_another_uid_is_another(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("owner"))
    other = {**owner(made, "ConfigMap"), "uid": str(uuid.uuid4())}
    core.create_namespaced_config_map(namespace, configmap("dependent", ownerReferences=[other]))
    gone(lambda: core.read_namespaced_config_map("dependent", namespace), "configmap")
    assert core.read_namespaced_config_map("owner", namespace)


def test_one_of_two_owners_suffices(core: CoreV1Api, namespace: str) -> None:
    owners = [core.create_namespaced_config_map(namespace, configmap(name)) for name in ("one", "two")]
    references = [owner(made, "ConfigMap") for made in owners]
    core.create_namespaced_config_map(namespace, configmap("dependent", ownerReferences=references))
    core.delete_namespaced_config_map("one", namespace)

    def left() -> bool:
        found = core.read_namespaced_config_map("dependent", namespace).metadata.owner_references
        return [reference.name for reference in found] == ["two"]

    eventually(left, "reference removed")
    core.delete_namespaced_config_map("two", namespace)
    gone(lambda: core.read_namespaced_config_map("dependent", namespace), "configmap")


def test_orphans_stay_when_asked_for(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("owner"))
    core.create_namespaced_config_map(namespace, configmap("dependent", ownerReferences=[owner(made, "ConfigMap")]))
    core.delete_namespaced_config_map("owner", namespace, propagation_policy="Orphan")
    gone(lambda: core.read_namespaced_config_map("owner", namespace), "owner")

    def free() -> bool:
        return not core.read_namespaced_config_map("dependent", namespace).metadata.owner_references

    eventually(free, "reference removed")


def test_foreground_deletion_ends_with_the_owner(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("owner"))
    reference = {**owner(made, "ConfigMap"), "blockOwnerDeletion": True}
    body = configmap("dependent", ownerReferences=[reference], finalizers=["test.gpudev/hold"])
    core.create_namespaced_config_map(namespace, body)
    core.delete_namespaced_config_map("owner", namespace, propagation_policy="Foreground")

    def dependent() -> Any:
        return core.read_namespaced_config_map("dependent", namespace)

    eventually(lambda: dependent().metadata.deletion_timestamp, "dependent being deleted")
    assert core.read_namespaced_config_map("owner", namespace).metadata.deletion_timestamp
    core.patch_namespaced_config_map("dependent", namespace, [{"op": "remove", "path": "/metadata/finalizers"}])
    gone(dependent, "dependent")
    gone(lambda: core.read_namespaced_config_map("owner", namespace), "owner")
