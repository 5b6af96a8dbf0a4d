"""Pods as objects: defaults, validation, immutability, life and deletion where no container has to run for real."""

import json
from typing import Any

import pytest
from kubernetes.client import ApiException, CoreV1Api, V1Pod, V1Toleration

from tests.cluster.objects import IMAGE, pod
from tests.cluster.waiting import eventually, gone, pod_in_phase, pod_when

STRATEGIC = "application/strategic-merge-patch+json"
NOWHERE = {"no": "where"}


def invalid_fields(core: CoreV1Api, namespace: str, body: dict[str, Any]) -> set[str]:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_pod(namespace, body)
    status = json.loads(caught.value.body)
    assert (caught.value.status, status["reason"]) == (422, "Invalid")
    return {cause["field"] for cause in status["details"]["causes"]}


def test_defaults_are_filled_in(core: CoreV1Api, namespace: str) -> None:
    spec = {"containers": [{"name": "c", "image": "x"}], "nodeSelector": NOWHERE, "automountServiceAccountToken": False}
    body = {"metadata": {"name": "a"}, "spec": spec}
    made = core.create_namespaced_pod(namespace, body)
    spec, container = made.spec, made.spec.containers[0]
    assert (spec.restart_policy, spec.termination_grace_period_seconds) == ("Always", 30)
    assert (spec.scheduler_name, spec.service_account_name, spec.dns_policy) == (
        "default-scheduler",
        "default",
        "ClusterFirst",
    )
    assert container.image_pull_policy == "Always"
    assert {t.key for t in spec.tolerations} == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert (made.status.phase, made.status.qos_class) == ("Pending", "BestEffort")


def test_limits_become_requests(core: CoreV1Api, namespace: str) -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}}
    made = core.create_namespaced_pod(namespace, pod("a", container={"resources": resources}, nodeSelector=NOWHERE))
    assert made.spec.containers[0].resources.requests == resources["limits"]
    assert made.status.qos_class == "Guaranteed"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"container": {"image": ""}}, "spec.containers[0].image"),
        ({"container": {"name": "Bad_Name"}}, "spec.containers[0].name"),
        ({"container": {"env": [{"name": "1=2", "value": ""}]}}, "spec.containers[0].env[0].name"),
        (
            {"container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}},
            "spec.containers[0].volumeMounts[0].name",
        ),
        ({"container": {"imagePullPolicy": "Sometimes"}}, "spec.containers[0].imagePullPolicy"),
        ({"restartPolicy": "Maybe"}, "spec.restartPolicy"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
        ({"container": {"readinessProbe": {"periodSeconds": 1}}}, "spec.containers[0].readinessProbe"),
        ({"container": {"ports": [{"containerPort": 70000}]}}, "spec.containers[0].ports[0].containerPort"),
    ],
)
def test_what_breaks_a_rule_is_named(core: CoreV1Api, namespace: str, spec: dict[str, Any], field: str) -> None:
    assert field in invalid_fields(core, namespace, pod("a", **spec))


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        (
            {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}},
            "spec.containers[0].resources.requests",
        ),
        ({"requests": {"nvidia.com/gpu": "1"}}, "spec.containers[0].resources.limits"),
        ({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}, "spec.containers[0].resources.requests"),
        ({"limits": {"nvidia.com/gpu": "500m"}}, "spec.containers[0].resources.limits[nvidia.com/gpu]"),
        ({"limits": {"cpu": "-1"}}, "spec.containers[0].resources.limits[cpu]"),
    ],
)
def test_resources_that_make_no_sense_are_invalid(
    core: CoreV1Api, namespace: str, resources: dict[str, Any], field: str
) -> None:
    assert field in invalid_fields(core, namespace, pod("a", container={"resources": resources}))


def test_two_containers_of_one_name_are_invalid(core: CoreV1Api, namespace: str) -> None:
    body = pod("a")
    body["spec"]["containers"].append({"name": "main", "image": IMAGE})
    assert invalid_fields(core, namespace, body) == {"spec.containers[1].name"}


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"nodeSelector": {"other": "place"}}},
        {"spec": {"restartPolicy": "Never"}},
        {"spec": {"containers": [{"name": "main", "command": ["other"]}]}},
        {"spec": {"containers": [{"name": "second", "image": IMAGE}]}},
    ],
)
def test_the_spec_of_a_pod_is_fixed(core: CoreV1Api, namespace: str, patch: dict[str, Any]) -> None:
    core.create_namespaced_pod(namespace, pod("a", nodeSelector=NOWHERE))
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_pod("a", namespace, patch, _content_type=STRATEGIC)
    status = json.loads(caught.value.body)
    assert (status["reason"], status["details"]["causes"][0]["reason"]) == ("Invalid", "FieldValueForbidden")


def test_a_deadline_and_a_toleration_may_be_added(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a", nodeSelector=NOWHERE))
    made.spec.active_deadline_seconds = 100
    made.spec.tolerations.append(V1Toleration(key="more", operator="Exists"))

    def add() -> object:
        try:
            made.metadata.resource_version = None
            return core.replace_namespaced_pod("a", namespace, made)
        except ApiException as error:
            if error.status != 409:
                raise
            return None

    assert eventually(add, "update").spec.active_deadline_seconds == 100


def test_a_pod_becomes_running_and_ready(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a"))
    found = pod_in_phase(core, made, "Running")
    found = pod_when(core, made, lambda p: all(c.status == "True" for c in p.status.conditions), "conditions")
    assert {c.type for c in found.status.conditions} >= {"PodScheduled", "Initialized", "ContainersReady", "Ready"}
    status = found.status.container_statuses[0]
    assert (status.name, status.ready, status.started, status.restart_count) == ("main", True, True, 0)
    assert status.state.running.started_at is not None
    assert "://" in status.container_id
    assert found.status.start_time is not None
    assert found.status.pod_ip
    assert found.status.host_ip


def test_a_watch_sees_a_pod_go_through_its_phases(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a"))
    pod_in_phase(core, made, "Running")
    listed = core.list_pod_for_all_namespaces(field_selector=f"metadata.namespace={namespace},status.phase=Running")
    assert [item.metadata.name for item in listed.items] == ["a"]
    node = listed.items[0].spec.node_name
    on_node = core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
    assert made.metadata.uid in {item.metadata.uid for item in on_node}


def reasons(core: CoreV1Api, made: V1Pod) -> set[str]:
    selector = f"involvedObject.uid={made.metadata.uid},involvedObject.kind=Pod"
    events = core.list_namespaced_event(made.metadata.namespace, field_selector=selector).items
    return {event.reason for event in events}


def test_an_event_tells_that_a_pod_was_scheduled(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a"))
    eventually(lambda: "Scheduled" in reasons(core, made), "event")


@pytest.mark.needs_containers  # hollow kubelets write no events
def test_events_tell_the_story_of_a_container(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a"))
    eventually(lambda: reasons(core, made) >= {"Pulled", "Created", "Started"}, "events")


def test_an_unscheduled_pod_is_deleted_at_once(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod("a", nodeSelector=NOWHERE, terminationGracePeriodSeconds=30))
    core.delete_namespaced_pod("a", namespace)
    gone(lambda: core.read_namespaced_pod("a", namespace), "pod, long before its grace is over", 20)


def test_a_running_pod_is_terminating_and_then_gone(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a"))
    pod_in_phase(core, made, "Running")
    answer = core.delete_namespaced_pod("a", namespace)
    assert answer.metadata.uid == made.metadata.uid
    assert answer.metadata.deletion_timestamp is not None
    assert answer.metadata.deletion_grace_period_seconds == 1
    gone(lambda: core.read_namespaced_pod("a", namespace), "pod", 60)


def test_grace_zero_removes_a_running_pod_at_once(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a", terminationGracePeriodSeconds=30))
    pod_in_phase(core, made, "Running")
    core.delete_namespaced_pod("a", namespace, grace_period_seconds=0)
    gone(lambda: core.read_namespaced_pod("a", namespace), "pod, long before its grace is over", 20)


def test_a_name_can_be_used_again_for_another_pod(core: CoreV1Api, namespace: str) -> None:
    first = core.create_namespaced_pod(namespace, pod("a", nodeSelector=NOWHERE))
    core.delete_namespaced_pod("a", namespace)
    second = core.create_namespaced_pod(namespace, pod("a", nodeSelector=NOWHERE))
    assert second.metadata.uid != first.metadata.uid
    with pytest.raises(ApiException) as caught:
        core.delete_namespaced_pod("a", namespace, body={"preconditions": {"uid": first.metadata.uid}})
    assert caught.value.status == 409


def test_an_evicted_pod_is_deleted(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod("a"))
    pod_in_phase(core, made, "Running")
    body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a", "namespace": namespace}}
    core.create_namespaced_pod_eviction("a", namespace, body)
    gone(lambda: core.read_namespaced_pod("a", namespace), "pod", 60)
