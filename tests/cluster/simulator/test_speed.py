"""How fast simulated pods come up; a real node's speed is its own."""

import time

from kubernetes.client import CoreV1Api

from tests.cluster.objects import pod
from tests.cluster.waiting import eventually


def test_many_pods_start_quickly(core: CoreV1Api, namespace: str) -> None:
    began = time.monotonic()
    for i in range(40):
        core.create_namespaced_pod(namespace, pod(f"p{i}", command=["sleep", "60"]))

    def all_running() -> bool:
        found = core.list_namespaced_pod(namespace, field_selector="status.phase=Running")
        return len(found.items) == 40

    eventually(all_running, "40 running pods", 30)
    assert time.monotonic() - began < 20
