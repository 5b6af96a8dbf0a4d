"""The three kinds of patch."""

import json

import httpx
import pytest
from kubernetes.client import ApiException, CoreV1Api

from tests.cluster.objects import configmap, pod
from tests.cluster.waiting import pod_when

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"


def test_a_merge_patch_merges_objects_and_deletes_nulls(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a", {"keep": "1", "drop": "2"}))
    patch = {"data": {"drop": None, "new": "3"}, "metadata": {"labels": {"l": "v"}}}
    patched = core.patch_namespaced_config_map("a", namespace, patch, _content_type=MERGE)
    assert patched.data == {"keep": "1", "new": "3"}
    assert patched.metadata.labels == {"l": "v"}


def test_a_json_patch_applies_in_order_or_not_at_all(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a", {"k": "1"}))
    good = [
        {"op": "test", "path": "/data/k", "value": "1"},
        {"op": "replace", "path": "/data/k", "value": "2"},
        {"op": "add", "path": "/metadata/labels", "value": {"x~1y": "z"}},
        {"op": "copy", "from": "/data/k", "path": "/data/copied"},
        {"op": "move", "from": "/data/k", "path": "/data/moved"},
    ]
    with pytest.raises(ApiException):  # a tilde is no part of a label's key
        core.patch_namespaced_config_map("a", namespace, good)
    good[2] = {"op": "add", "path": "/metadata/labels", "value": {"gpudev.test/x": "z"}}
    assert core.patch_namespaced_config_map("a", namespace, good).data == {"copied": "2", "moved": "2"}
    again = [{"op": "remove", "path": "/data/copied"}, {"op": "test", "path": "/data/moved", "value": "no"}]
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_config_map("a", namespace, again)
    assert caught.value.status == 422
    assert "copied" in core.read_namespaced_config_map("a", namespace).data


# Not here: Kubernetes 1.20 replaces and copies what is not there, later ones refuse (RFC 6902 sections 4.3, 4.5).
@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/data/none"},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "/none/below", "value": "1"},
        {"op": "move", "from": "/data/none", "path": "/data/k"},
        {"op": "test", "path": "/data/k", "value": "2"},
        {"op": "merge", "path": "/data/k", "value": "2"},
    ],
    ids=str,
)
def test_an_operation_that_cannot_be_applied_is_invalid(
    core: CoreV1Api, namespace: str, operation: dict[str, str]
) -> None:
    core.create_namespaced_config_map(namespace, configmap("a", {"k": "1"}))
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_config_map("a", namespace, [operation])
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (422, "Invalid")
    assert core.read_namespaced_config_map("a", namespace).data == {"k": "1"}


def test_a_label_key_is_escaped_in_a_json_pointer(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a", labels={"gpudev.test/x": "1"}))
    operations = [{"op": "replace", "path": "/metadata/labels/gpudev.test~1x", "value": "2"}]
    assert core.patch_namespaced_config_map("a", namespace, operations).metadata.labels == {"gpudev.test/x": "2"}


def test_a_strategic_merge_patch_merges_containers_by_name(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a", nodeSelector={"no": "where"}))
    patch = {"spec": {"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.3"}]}}
    patched = core.patch_namespaced_pod("a", namespace, patch, _content_type=STRATEGIC)
    assert [c.image for c in patched.spec.containers] == ["registry.k8s.io/pause:3.3"]
    assert patched.spec.containers[0].termination_message_path == made.spec.containers[0].termination_message_path


def test_a_strategic_merge_patch_of_the_status_merges_conditions_by_type(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a", nodeSelector={"no": "where"}))

    def unschedulable(found: object) -> bool:
        return any(c.type == "PodScheduled" for c in found.status.conditions or [])

    pod_when(core, made, unschedulable, "PodScheduled")
    patch = {"status": {"conditions": [{"type": "gpudev.test/Own", "status": "True"}]}}
    patched = core.patch_namespaced_pod_status("a", namespace, patch, _content_type=STRATEGIC)
    assert {c.type for c in patched.status.conditions} == {"PodScheduled", "gpudev.test/Own"}


def test_a_patch_of_the_object_leaves_the_status_alone(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod("a", nodeSelector={"no": "where"}))
    patch = {"status": {"phase": "Failed"}, "metadata": {"labels": {"l": "v"}}}
    patched = core.patch_namespaced_pod("a", namespace, patch, _content_type=MERGE)
    assert (patched.status.phase, patched.metadata.labels) == ("Pending", {"l": "v"})


def test_a_patch_of_the_status_leaves_the_spec_alone(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod("a", nodeSelector={"no": "where"}))
    patch = {"status": {"message": "hello"}, "spec": {"activeDeadlineSeconds": 9}}
    patched = core.patch_namespaced_pod_status("a", namespace, patch, _content_type=MERGE)
    assert (patched.status.message, patched.spec.active_deadline_seconds) == ("hello", None)


def test_a_patch_with_a_stale_revision_is_a_conflict(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"))
    core.patch_namespaced_config_map("a", namespace, {"data": {"k": "1"}}, _content_type=MERGE)
    stale = {"metadata": {"resourceVersion": made.metadata.resource_version}, "data": {"k": "2"}}
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_config_map("a", namespace, stale, _content_type=MERGE)
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (409, "Conflict")


def test_a_patch_of_nothing_is_not_found(core: CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_config_map("none", namespace, {}, _content_type=MERGE)
    assert caught.value.status == 404


def test_an_object_sent_as_a_json_patch_is_a_bad_request(raw: httpx.Client, core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a"))
    path = f"/api/v1/namespaces/{namespace}/configmaps/a"
    answer = raw.patch(path, content=b'{"data": {"k": "v"}}', headers={"Content-Type": JSON})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_an_unknown_kind_of_patch_is_unsupported(raw: httpx.Client, core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a"))
    path = f"/api/v1/namespaces/{namespace}/configmaps/a"
    answer = raw.patch(path, content=b"{}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")
