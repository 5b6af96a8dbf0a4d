"""Waiting for a state of the cluster: polling with a deadline, never a bare sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

from kubernetes.client import ApiException, CoreV1Api, V1Pod

T = TypeVar("T")


def eventually(probe: Callable[[], T | None], what: str, seconds: float = 60, pause: float = 0.02) -> T:
    """The first true result of `probe`; fails after `seconds`. `pause` is for probes that are dear."""
    end = time.monotonic() + seconds
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)


def pod_when(
    core: CoreV1Api, pod: V1Pod, condition: Callable[[V1Pod], object], what: str, seconds: float = 60
) -> V1Pod:
    """The pod once `condition` holds."""
    last: list[V1Pod] = []

    def probe() -> V1Pod | None:
        last[:] = [core.read_namespaced_pod(pod.metadata.name, pod.metadata.namespace)]
        return last[0] if condition(last[0]) else None

    try:
        return eventually(probe, what, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; last status: {last[0].status if last else None}") from None


def pod_in_phase(core: CoreV1Api, pod: V1Pod, phase: str, seconds: float = 60) -> V1Pod:
    return pod_when(core, pod, lambda found: found.status.phase == phase, f"phase {phase}", seconds)


def gone(read: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Returns once `read` answers 404."""

    def probe() -> bool:
        try:
            read()
        except ApiException as error:
            if error.status != 404:
                raise
            return True
        return False

    eventually(probe, f"{what} gone", seconds)
