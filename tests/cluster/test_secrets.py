"""Secrets and configmaps."""

import base64
import json

import pytest
from kubernetes.client import ApiException, CoreV1Api

from tests.cluster.objects import configmap

MERGE = "application/merge-patch+json"


def test_string_data_becomes_data(core: CoreV1Api, namespace: str) -> None:
    body = {"metadata": {"name": "a"}, "stringData": {"k": "text"}, "data": {"old": base64.b64encode(b"x").decode()}}
    made = core.create_namespaced_secret(namespace, body)
    assert made.string_data is None
    assert {key: base64.b64decode(value) for key, value in made.data.items()} == {"k": b"text", "old": b"x"}
    assert made.type == "Opaque"


def test_string_data_in_a_patch_wins_over_data(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_secret(namespace, {"metadata": {"name": "a"}, "stringData": {"k": "1"}})
    patched = core.patch_namespaced_secret("a", namespace, {"stringData": {"k": "2"}}, _content_type=MERGE)
    assert base64.b64decode(patched.data["k"]) == b"2"


def test_data_that_is_no_base64_is_a_bad_request(core: CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_secret(namespace, {"metadata": {"name": "a"}, "data": {"k": "no base64!"}})
    assert caught.value.status == 400


def test_the_type_of_a_secret_is_fixed(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_secret(namespace, {"metadata": {"name": "a"}})
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_secret("a", namespace, {"type": "gpudev.test/other"}, _content_type=MERGE)
    status = json.loads(caught.value.body)
    assert (status["reason"], status["details"]["causes"][0]["field"]) == ("Invalid", "type")


def test_an_immutable_configmap_stays(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, {**configmap("a", {"k": "1"}), "immutable": True})
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_config_map("a", namespace, {"data": {"k": "2"}}, _content_type=MERGE)
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (422, "Invalid")
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"l": "v"}}}, _content_type=MERGE)
