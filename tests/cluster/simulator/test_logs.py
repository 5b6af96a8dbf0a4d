"""What kubelets of different versions tell differently: here it is as the newer ones do."""

import re
from typing import Any

from kubernetes.client import CoreV1Api, V1Pod

from tests.cluster.objects import shell
from tests.cluster.waiting import pod_in_phase

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


def log(core: CoreV1Api, made: V1Pod, **query: Any) -> str:
    answer = core.read_namespaced_pod_log(made.metadata.name, made.metadata.namespace, _preload_content=False, **query)
    return bytes(answer.data).decode()


def test_a_long_line_has_one_time_before_it(core: CoreV1Api, namespace: str) -> None:
    script = r"head -c 50000 /dev/zero | tr '\0' x; echo; echo end; printf unended"
    made = pod_in_phase(core, core.create_namespaced_pod(namespace, shell(script)), "Succeeded")
    lines = log(core, made, timestamps=True).splitlines()
    assert [STAMP.sub("", line) for line in lines] == ["x" * 50000, "end", "unended"]
    assert all(len(STAMP.findall(line)) == 1 and STAMP.match(line) for line in lines)


def test_the_last_lines_are_counted_as_they_lie_in_the_file(core: CoreV1Api, namespace: str) -> None:
    script = r"head -c 20000 /dev/zero | tr '\0' x; echo; echo end"
    made = pod_in_phase(core, core.create_namespaced_pod(namespace, shell(script)), "Succeeded")
    assert log(core, made, tail_lines=2) == "x" * (20000 - 16384) + "\nend\n"


def test_two_streams_are_read_in_turn(core: CoreV1Api, namespace: str) -> None:
    script = "head -c 60000 /dev/zero | tr '\\0' '\\n' & head -c 60000 /dev/zero | tr '\\0' '\\n' >&2; wait"
    made = pod_in_phase(core, core.create_namespaced_pod(namespace, shell(script)), "Succeeded")
    assert log(core, made).count("\n") == 120_000
