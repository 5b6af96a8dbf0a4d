"""Watches: order, resumption, selectors, bookmarks, time-outs and expiry."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kubernetes import aio
from kubernetes.client import CoreV1Api
from kubernetes.watch import Watch

from tests.cluster.objects import configmap
from tests.cluster.waiting import eventually
from tests.support.promises import promised

LABELS = {"watched": "yes"}


def watch(raw: httpx.Client, namespace: str, **query: str) -> Iterator[dict[str, Any]]:
    """The events of a raw watch until the server ends it."""
    params = {"watch": "true", "timeoutSeconds": "60", **query}
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    with raw.stream("GET", path, params=params) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            yield json.loads(line)


def revision(core: CoreV1Api, namespace: str) -> str:
    return core.list_namespaced_config_map(namespace).metadata.resource_version


def brief(events: Iterator[dict[str, Any]], count: int) -> list[tuple[str, str]]:
    found = []
    for event in events:
        found.append((event["type"], event["object"]["metadata"].get("name", "")))
        if len(found) == count:
            break
    return found


def test_a_watch_from_a_list_sees_every_change_in_order(core: CoreV1Api, namespace: str) -> None:
    start = revision(core, namespace)
    core.create_namespaced_config_map(namespace, configmap("a"))
    core.patch_namespaced_config_map("a", namespace, [{"op": "add", "path": "/data", "value": {"k": "v"}}])
    core.delete_namespaced_config_map("a", namespace)
    seen = []
    for event in Watch().stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=20):
        if event["object"].metadata.name == "a":
            seen.append((event["type"], int(event["object"].metadata.resource_version)))
        if len(seen) == 3:
            break
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[0][1] < seen[1][1] < seen[2][1]


def test_a_watch_without_a_revision_begins_with_what_is_there(
    core: CoreV1Api, raw: httpx.Client, namespace: str
) -> None:
    core.create_namespaced_config_map(namespace, configmap("a", labels=LABELS))
    for query in ({}, {"resourceVersion": "0"}):
        events = watch(raw, namespace, labelSelector="watched=yes", **query)
        assert brief(events, 1) == [("ADDED", "a")]


def test_a_watch_is_resumed_where_it_ended(core: CoreV1Api, raw: httpx.Client, namespace: str) -> None:
    first = core.create_namespaced_config_map(namespace, configmap("a", labels=LABELS))
    core.create_namespaced_config_map(namespace, configmap("b", labels=LABELS))
    query = {"labelSelector": "watched=yes", "resourceVersion": first.metadata.resource_version}
    assert brief(watch(raw, namespace, **query), 1) == [("ADDED", "b")]


def test_an_object_that_begins_or_ceases_to_match_is_added_or_deleted(
    core: CoreV1Api, raw: httpx.Client, namespace: str
) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("a"))
    start = made.metadata.resource_version
    for labels in ({"watched": "yes"}, {"watched": "yes", "more": "1"}, {"watched": "no"}):
        made.metadata.labels = labels
        made = core.replace_namespaced_config_map("a", namespace, made)
    events = watch(raw, namespace, labelSelector="watched=yes", resourceVersion=start)
    found = []
    for event in events:
        found.append(event)
        if len(found) == 3:
            break
    assert [event["type"] for event in found] == ["ADDED", "MODIFIED", "DELETED"]
    # the last state that matched, under the revision of the change
    assert found[2]["object"]["metadata"]["labels"]["watched"] == "yes"
    assert found[2]["object"]["metadata"]["resourceVersion"] == made.metadata.resource_version


def test_a_field_selector_narrows_a_watch(core: CoreV1Api, raw: httpx.Client, namespace: str) -> None:
    start = revision(core, namespace)
    core.create_namespaced_config_map(namespace, configmap("a"))
    core.create_namespaced_config_map(namespace, configmap("b"))
    events = watch(raw, namespace, fieldSelector="metadata.name=b", resourceVersion=start)
    assert brief(events, 1) == [("ADDED", "b")]


def test_a_watch_ends_with_its_timeout(core: CoreV1Api, raw: httpx.Client, namespace: str) -> None:
    query = {"timeoutSeconds": "1", "resourceVersion": revision(core, namespace), "fieldSelector": "metadata.name=x"}
    began = time.monotonic()
    with promised(20):
        assert list(watch(raw, namespace, **query)) == []
    assert time.monotonic() - began > 0.9


def test_a_bookmark_tells_of_progress_where_nothing_matches(core: CoreV1Api, raw: httpx.Client, namespace: str) -> None:
    # the real server sends one only when it is newer than where the watch began: hence a change while it runs
    params = {"allowWatchBookmarks": "true", "fieldSelector": "metadata.name=none", "timeoutSeconds": "6"}

    def bookmarks() -> list[dict[str, Any]]:
        """Of a watch, if the change came before the last one, which is sent two seconds before the end."""
        start = {"watch": "true", "resourceVersion": revision(core, namespace)}
        with raw.stream("GET", f"/api/v1/namespaces/{namespace}/configmaps", params={**params, **start}) as answer:
            made = core.create_namespaced_config_map(namespace, {"metadata": {"generateName": "a-"}})
            events = [json.loads(line) for line in answer.iter_lines()]
        assert {event["type"] for event in events} <= {"BOOKMARK"}
        told = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
        return events if told and told[-1] >= int(made.metadata.resource_version) else []

    assert eventually(bookmarks, "a bookmark of the change")[-1]["object"]["kind"] == "ConfigMap"


def test_a_live_watch_hears_of_a_change_at_once(core: CoreV1Api, raw: httpx.Client, namespace: str) -> None:
    params = {"watch": "true", "timeoutSeconds": "60", "fieldSelector": "metadata.name=live"}
    params |= {"resourceVersion": revision(core, namespace)}
    with raw.stream("GET", f"/api/v1/namespaces/{namespace}/configmaps", params=params) as answer:
        events = map(json.loads, answer.iter_lines())
        with promised(20):
            core.create_namespaced_config_map(namespace, configmap("live"))
            assert brief(events, 1) == [("ADDED", "live")]


def test_a_nonsense_revision_is_refused(raw: httpx.Client, namespace: str) -> None:
    answer = raw.get(f"/api/v1/namespaces/{namespace}/configmaps?watch=true&resourceVersion=abc")
    assert answer.status_code in {400, 500}


@pytest.mark.usefixtures("core")
async def test_the_asynchronous_client_watches_too(kubeconfig: Any, namespace: str) -> None:
    configuration = aio.client.Configuration()
    await aio.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    configuration.proxy = None
    async with aio.client.ApiClient(configuration) as client:
        api = aio.client.CoreV1Api(client)
        start = (await api.list_namespaced_config_map(namespace)).metadata.resource_version
        await api.create_namespaced_config_map(namespace, configmap("a"))
        seen = []
        async with aio.watch.Watch() as stream:
            query = {"resource_version": start, "timeout_seconds": 20}
            async for event in stream.stream(api.list_namespaced_config_map, namespace, **query):
                seen.append((event["type"], event["object"].metadata.name))
                if ("ADDED", "a") in seen:
                    break
        assert ("ADDED", "a") in seen
