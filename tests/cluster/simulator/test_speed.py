"""How fast simulated pods come up; a real node's speed is its own."""

from kubernetes.client import CoreV1Api

from tests.cluster.objects import pod
from tests.cluster.waiting import eventually
from tests.support.promises import promised


def test_many_pods_start_quickly(core: CoreV1Api, namespace: str) -> None:
    def all_running() -> bool:
        found = core.list_namespaced_pod(namespace, field_selector="status.phase=Running")
        return len(found.items) == 40

    with promised(20):
        for i in range(40):
            core.create_namespaced_pod(namespace, pod(f"p{i}", command=["sleep", "600"]))
        eventually(all_running, "40 running pods", 90)
