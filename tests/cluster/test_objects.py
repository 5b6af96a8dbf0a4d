"""Create, read, update, delete: metadata, concurrency and errors."""

import json
import uuid

import httpx
import pytest
from kubernetes.client import ApiException, CoreV1Api

from tests.cluster.objects import configmap, pod
from tests.cluster.waiting import eventually, gone


def status_of(error: ApiException) -> dict:
    body = json.loads(error.body)
    assert body["kind"] == "Status"
    assert body["status"] == "Failure"
    assert body["code"] == error.status
    return body


def test_a_new_object_gets_uid_revision_and_creation_time(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"))
    assert uuid.UUID(made.metadata.uid)
    assert int(made.metadata.resource_version) > 0
    assert made.metadata.creation_timestamp is not None
    assert core.read_namespaced_config_map("a", namespace).metadata.uid == made.metadata.uid


def test_generate_name_makes_different_names(core: CoreV1Api, namespace: str) -> None:
    body = {"metadata": {"generateName": "gen-"}}
    names = {core.create_namespaced_config_map(namespace, body).metadata.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("gen-") and len(name) == 9 for name in names)


def test_creating_twice_is_already_exists(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a"))
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, configmap("a"))
    status = status_of(caught.value)
    assert (status["code"], status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'configmaps "a" already exists'
    assert status["details"]["name"] == "a"


def test_a_missing_object_is_not_found(core: CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_pod("nothing", namespace)
    status = status_of(caught.value)
    assert (status["code"], status["reason"]) == (404, "NotFound")
    assert status["message"] == 'pods "nothing" not found'


def test_a_missing_namespace_is_not_found(core: CoreV1Api) -> None:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map("no-such-namespace", configmap("a"))
    assert status_of(caught.value)["message"] == 'namespaces "no-such-namespace" not found'


def test_a_stale_put_is_a_conflict(core: CoreV1Api, namespace: str) -> None:
    first = core.create_namespaced_config_map(namespace, configmap("a", {"k": "1"}))
    first.data = {"k": "2"}
    second = core.replace_namespaced_config_map("a", namespace, first)
    assert int(second.metadata.resource_version) > int(first.metadata.resource_version)
    first.data = {"k": "3"}
    with pytest.raises(ApiException) as caught:
        core.replace_namespaced_config_map("a", namespace, first)
    status = status_of(caught.value)
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert core.read_namespaced_config_map("a", namespace).data == {"k": "2"}


def test_a_put_that_changes_nothing_makes_no_new_revision(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a", {"k": "1"}))
    same = core.replace_namespaced_config_map("a", namespace, made)
    assert same.metadata.resource_version == made.metadata.resource_version


def test_a_put_keeps_uid_and_creation_time(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"))
    replaced = core.replace_namespaced_config_map("a", namespace, configmap("a", {"new": "data"}))
    assert replaced.metadata.uid == made.metadata.uid
    assert replaced.metadata.creation_timestamp == made.metadata.creation_timestamp


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "dot.", "x" * 254])
def test_a_bad_name_is_invalid(core: CoreV1Api, namespace: str, name: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, configmap(name))
    status = status_of(caught.value)
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["details"]["causes"][0]["field"] == "metadata.name"
    assert status["details"]["causes"][0]["reason"] == "FieldValueInvalid"


def test_dry_run_stores_nothing(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"), dry_run="All")
    assert made.metadata.name == "a"
    gone(lambda: core.read_namespaced_config_map("a", namespace), "dry run", 0)


def test_a_failed_uid_precondition_is_a_conflict(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"))
    with pytest.raises(ApiException) as caught:
        core.delete_namespaced_config_map("a", namespace, body={"preconditions": {"uid": str(uuid.uuid4())}})
    assert (caught.value.status, status_of(caught.value)["reason"]) == (409, "Conflict")
    core.delete_namespaced_config_map("a", namespace, body={"preconditions": {"uid": made.metadata.uid}})
    gone(lambda: core.read_namespaced_config_map("a", namespace), "configmap", 0)


def test_a_failed_revision_precondition_is_a_conflict(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a"))
    with pytest.raises(ApiException) as caught:
        core.delete_namespaced_config_map("a", namespace, body={"preconditions": {"resourceVersion": "1"}})
    assert (caught.value.status, status_of(caught.value)["reason"]) == (409, "Conflict")


def test_delete_collection_takes_what_the_selector_matches(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, configmap("a", labels={"go": "yes"}))
    core.create_namespaced_config_map(namespace, configmap("b", labels={"go": "no"}))
    core.delete_collection_namespaced_config_map(namespace, label_selector="go=yes")
    names = {item.metadata.name for item in core.list_namespaced_config_map(namespace).items}
    assert "a" not in names
    assert "b" in names


def test_a_finalizer_holds_the_object_until_it_is_removed(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a", finalizers=["test.gpudev/hold"]))
    core.delete_namespaced_config_map("a", namespace)
    held = core.read_namespaced_config_map("a", namespace)
    assert held.metadata.uid == made.metadata.uid
    assert held.metadata.deletion_timestamp is not None
    held.metadata.finalizers = None
    core.replace_namespaced_config_map("a", namespace, held)
    gone(lambda: core.read_namespaced_config_map("a", namespace), "configmap")


def test_a_namespace_takes_its_content_with_it(core: CoreV1Api) -> None:
    name = f"test-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    core.create_namespaced_config_map(name, configmap("a"))
    core.delete_namespace(name)
    gone(lambda: core.read_namespace(name), "namespace", 60)
    gone(lambda: core.read_namespaced_config_map("a", name), "content", 0)


def test_nothing_is_made_in_a_namespace_that_ends(core: CoreV1Api) -> None:
    name = f"test-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    core.create_namespaced_config_map(name, configmap("hold", finalizers=["test.gpudev/hold"]))
    core.delete_namespace(name)
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(name, configmap("late"))
    status = status_of(caught.value)
    assert (status["code"], status["reason"]) == (403, "Forbidden")
    assert status["details"]["causes"][0]["reason"] == "NamespaceTerminating"

    def let_go() -> bool:
        held = core.read_namespaced_config_map("hold", name)
        held.metadata.finalizers = []
        try:
            core.replace_namespaced_config_map("hold", name, held)
        except ApiException as error:
            if error.status != 409:  # the namespace's controller has just deleted it
                raise
            return False
        return True

    eventually(let_go, "finalizer removed")
    gone(lambda: core.read_namespace(name), "namespace", 60)


def test_a_default_namespace_cannot_be_deleted(core: CoreV1Api) -> None:
    with pytest.raises(ApiException) as caught:
        core.delete_namespace("default")
    assert status_of(caught.value)["reason"] == "Forbidden"


def test_without_a_token_or_with_a_wrong_one_nothing_is_told(raw: httpx.Client) -> None:
    wrong = raw.get("/api/v1/nodes", headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"metadata": "text"}', b'{"metadata": {"labels": {"a": 1}}}'])
def test_a_malformed_body_is_a_bad_request(raw: httpx.Client, namespace: str, body: bytes) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    answer = raw.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_numbers_in_environment_values_are_a_bad_request(raw: httpx.Client, namespace: str) -> None:
    body = pod("a", container={"env": [{"name": "N", "value": 5}]})
    answer = raw.post(f"/api/v1/namespaces/{namespace}/pods", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_another_kind_is_a_bad_request(raw: httpx.Client, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
    answer = raw.post(f"/api/v1/namespaces/{namespace}/configmaps", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_another_namespace_in_the_body_is_a_bad_request(raw: httpx.Client, namespace: str) -> None:
    answer = raw.post(f"/api/v1/namespaces/{namespace}/configmaps", json=configmap("a", namespace="default"))
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_a_revision_on_create_is_refused(raw: httpx.Client, namespace: str) -> None:
    answer = raw.post(f"/api/v1/namespaces/{namespace}/configmaps", json=configmap("a", resourceVersion="5"))
    assert answer.status_code >= 400
    assert answer.json()["message"].endswith("resourceVersion should not be set on objects to be created")


def test_an_unknown_content_type_is_unsupported(raw: httpx.Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    answer = raw.post(path, content=b"a: 1", headers={"Content-Type": "text/weird"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")


def test_a_verb_that_is_not_there_is_not_allowed(raw: httpx.Client, namespace: str) -> None:
    answer = raw.put(f"/api/v1/namespaces/{namespace}/configmaps", json=configmap("a"))
    assert (answer.status_code, answer.json()["reason"]) == (405, "MethodNotAllowed")


def test_an_unknown_path_is_not_found(raw: httpx.Client) -> None:
    assert raw.get("/api/v1/nonsense").status_code == 404


def test_health_and_version_answer(raw: httpx.Client) -> None:
    assert [raw.get(path).text for path in ("/healthz", "/livez", "/readyz")] == ["ok", "ok", "ok"]
    assert raw.get("/version").json()["gitVersion"].startswith("v1.")
