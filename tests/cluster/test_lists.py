"""Lists: selectors, pages, revisions."""

import json

import httpx
import pytest
from kubernetes.client import ApiException, CoreV1Api

from tests.cluster.objects import configmap
from tests.cluster.waiting import eventually


@pytest.fixture
def five(core: CoreV1Api, namespace: str) -> list[str]:
    names = [f"c{i}" for i in range(5)]
    for i, name in enumerate(names):
        labels = {"index": str(i), "parity": "even" if i % 2 == 0 else "odd", "suite": namespace}
        core.create_namespaced_config_map(namespace, configmap(name, labels=labels))
    return names


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("parity=even", [0, 2, 4]),
        ("parity==odd", [1, 3]),
        ("parity!=even", [1, 3]),
        ("index in (1, 2)", [1, 2]),
        ("index notin (1,2,3)", [0, 4]),
        ("parity=even,index!=2", [0, 4]),
        ("parity", [0, 1, 2, 3, 4]),
        ("!parity", []),
        ("absent notin (x)", [0, 1, 2, 3, 4]),
        ("index>2", [3, 4]),
    ],
)
def test_label_selectors(core: CoreV1Api, namespace: str, five: list[str], selector: str, expected: list[int]) -> None:
    found = core.list_namespaced_config_map(namespace, label_selector=f"suite,{selector}").items
    assert [item.metadata.name for item in found] == [five[i] for i in expected]


@pytest.mark.parametrize(
    ("selector", "expected"), [("metadata.name=c1", ["c1"]), ("metadata.name!=c1", ["c0", "c2", "c3", "c4"])]
)
def test_field_selectors(core: CoreV1Api, namespace: str, five: list[str], selector: str, expected: list[str]) -> None:
    found = core.list_namespaced_config_map(namespace, label_selector="suite", field_selector=selector).items
    assert five
    assert [item.metadata.name for item in found] == expected


def test_a_list_over_all_namespaces_can_be_narrowed_by_field(core: CoreV1Api, namespace: str, five: list[str]) -> None:
    selector = f"metadata.namespace={namespace},metadata.name={five[2]}"
    found = core.list_config_map_for_all_namespaces(field_selector=selector).items
    assert [(item.metadata.namespace, item.metadata.name) for item in found] == [(namespace, five[2])]


@pytest.mark.parametrize("query", ["labelSelector=a%20b", "labelSelector=a%20in%20b", "fieldSelector=data.k%3Dv"])
def test_a_bad_selector_is_a_bad_request(raw: httpx.Client, namespace: str, query: str) -> None:
    answer = raw.get(f"/api/v1/namespaces/{namespace}/configmaps?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_pages_together_are_the_list_as_it_was(core: CoreV1Api, namespace: str, five: list[str]) -> None:
    first = core.list_namespaced_config_map(namespace, label_selector="suite", limit=2)
    assert [item.metadata.name for item in first.items] == five[:2]
    core.delete_namespaced_config_map(five[3], namespace)
    core.create_namespaced_config_map(namespace, configmap("c9", labels={"suite": namespace}))
    token, names = first.metadata._continue, []
    while token:
        page = core.list_namespaced_config_map(namespace, label_selector="suite", limit=2, _continue=token)
        assert page.metadata.resource_version == first.metadata.resource_version
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
    assert names == five[2:]


def test_a_page_says_how_many_remain(core: CoreV1Api, namespace: str, five: list[str]) -> None:
    def all_but_two() -> bool:
        everything = core.list_namespaced_config_map(namespace).items
        page = core.list_namespaced_config_map(namespace, limit=2)
        assert len(everything) >= len(five)
        return bool(page.metadata.remaining_item_count == len(everything) - 2)

    # a real cluster puts one of its own into a new namespace, when it gets to it
    eventually(all_but_two, "the rest counted")


def test_a_broken_continue_token_is_refused(core: CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_config_map(namespace, limit=1, _continue="nonsense")
    assert caught.value.status == 400


def test_the_revision_of_a_list_is_not_older_than_its_newest_object(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"))
    for version in ("", "0"):
        found = core.list_namespaced_config_map(namespace, resource_version=version)
        assert int(found.metadata.resource_version) > 0
    fresh = core.list_namespaced_config_map(namespace)
    assert int(fresh.metadata.resource_version) >= int(made.metadata.resource_version)
    assert "a" in {item.metadata.name for item in fresh.items}


def test_a_list_names_its_kind(raw: httpx.Client, namespace: str) -> None:
    body = raw.get(f"/api/v1/namespaces/{namespace}/secrets").json()
    assert (body["kind"], body["apiVersion"]) == ("SecretList", "v1")


def test_a_table_has_the_columns_of_kubectl_get(raw: httpx.Client) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = raw.get("/api/v1/nodes", headers={"Accept": accept}).json()
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names[:5] == ["Name", "Status", "Roles", "Age", "Version"]
    assert table["rows"]
    assert all(row["cells"][1].startswith(("Ready", "NotReady", "Unknown")) for row in table["rows"])
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_a_revision_from_the_future_is_not_served(core: CoreV1Api, namespace: str) -> None:
    current = int(core.list_namespaced_config_map(namespace).metadata.resource_version)
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_config_map(namespace, resource_version=str(current + 100_000))
    assert caught.value.status == 504
    assert json.loads(caught.value.body)["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


def test_a_connection_serves_on_after_a_stream(raw: httpx.Client, namespace: str) -> None:
    # a server that looks for the client's end while it streams must not swallow the next request's first byte
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert raw.get(path, params={"watch": "true", "timeoutSeconds": "1"}).status_code == 200
    assert [raw.get(path).status_code for _ in range(5)] == [200] * 5
