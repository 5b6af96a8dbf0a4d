"""What survives `kill -9`, a clean stop, and a machine that went down; and that a command runs once."""

import json
import os
import signal
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api, V1Pod

from tests.cluster.conftest import raw_client
from tests.cluster.objects import configmap, pod, shell
from tests.cluster.simulation import Simulation
from tests.cluster.waiting import eventually, gone, pod_in_phase, pod_when
from tests.support.promises import promised

Connect = Callable[[Simulation], CoreV1Api]


def test_objects_and_revisions_go_on_after_a_kill(simulation: Simulation, connect: Connect) -> None:
    core = connect(simulation)
    before = core.create_namespaced_config_map("default", configmap("a", {"k": "v"}))
    node = core.list_node().items[0]
    simulation.kill()
    simulation.start()
    core = connect(simulation)
    after = core.read_namespaced_config_map("a", "default")
    assert (after.metadata.uid, after.metadata.resource_version, after.data) == (
        before.metadata.uid,
        before.metadata.resource_version,
        before.data,
    )
    assert core.read_node(node.metadata.name).metadata.uid == node.metadata.uid
    later = core.create_namespaced_config_map("default", configmap("b"))
    assert int(later.metadata.resource_version) > int(before.metadata.resource_version)


def test_every_answered_write_survives_a_kill_in_the_midst_of_writing(simulation: Simulation, connect: Connect) -> None:
    core = connect(simulation)
    answered: list[str] = []

    def write() -> None:
        try:
            for i in range(100_000):
                core.create_namespaced_config_map("default", configmap(f"w{i}"))
                answered.append(f"w{i}")
        except Exception:  # noqa: BLE001  whatever the kill makes of the connection ends the writing
            return

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: len(answered) > 50, "writes")
    simulation.kill()
    writer.join()
    simulation.start()
    found = {item.metadata.name for item in connect(simulation).list_namespaced_config_map("default").items}
    assert set(answered) <= found
    assert len(found) <= len(answered) + 1


def test_a_watch_resumes_over_a_kill(simulation: Simulation, connect: Connect) -> None:
    core = connect(simulation)
    start = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", configmap("a"))
    core.delete_namespaced_config_map("a", "default")
    simulation.kill()
    simulation.start()
    query = {"watch": "true", "resourceVersion": start, "timeoutSeconds": "60"}
    with (
        raw_client(simulation.kubeconfig) as raw,
        raw.stream("GET", "/api/v1/namespaces/default/configmaps", params=query) as answer,
    ):
        events = [json.loads(line) for line in islice(answer.iter_lines(), 2)]
    found = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
    assert found == [("ADDED", "a"), ("DELETED", "a")]


def test_what_is_older_than_the_window_is_expired(tmp_path: Path, connect: Connect) -> None:
    simulation = Simulation(tmp_path / "small", "--watch-window", "20")
    simulation.start()
    try:
        core = connect(simulation)
        start = core.list_namespaced_config_map("default").metadata.resource_version
        core.create_namespaced_config_map("default", configmap("first"))
        page = core.list_namespaced_config_map("default", limit=1) if _second(core) else None
        for i in range(30):
            core.create_namespaced_config_map("default", configmap(f"c{i}"))
        path = "/api/v1/namespaces/default/configmaps"
        with raw_client(simulation.kubeconfig) as raw:
            watched = raw.get(path, params={"watch": "true", "resourceVersion": start, "timeoutSeconds": "5"})
            listed = raw.get(path, params={"limit": "1", "continue": page.metadata._continue})
    finally:
        simulation.stop()
    event = json.loads(watched.text)
    assert (watched.status_code, event["type"]) == (200, "ERROR")
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert (listed.status_code, listed.json()["reason"]) == (410, "Expired")


def _second(core: CoreV1Api) -> object:
    return core.create_namespaced_config_map("default", configmap("second"))


def test_a_running_container_is_adopted_and_runs_once(simulation: Simulation, connect: Connect, tmp_path: Path) -> None:
    witness, gate = tmp_path / "witness", tmp_path / "gate"
    script = f"echo run >> {witness}; while ! test -e {gate}; do sleep 0.05; done; echo after; exit 5"
    core = connect(simulation)
    made = core.create_namespaced_pod("default", shell(script))
    eventually(witness.exists, "the command's first trace")
    before = pod_in_phase(core, made, "Running")
    simulation.kill()
    simulation.start()
    core = connect(simulation)
    found = pod_in_phase(core, made, "Running")
    assert _container_id(found) == _container_id(before)
    gate.touch()
    found = pod_in_phase(core, made, "Failed")
    ended = found.status.container_statuses[0].state.terminated
    assert (ended.exit_code, found.status.container_statuses[0].restart_count) == (5, 0)
    assert witness.read_text() == "run\n"
    assert core.read_namespaced_pod_log(made.metadata.name, "default").endswith("after\n")


def test_an_exit_while_nobody_watched_is_not_lost(simulation: Simulation, connect: Connect, tmp_path: Path) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    script = f"while ! test -e {gate}; do sleep 0.05; done; touch {done}; exit 6"
    core = connect(simulation)
    made = core.create_namespaced_pod("default", shell(script))
    pod_in_phase(core, made, "Running")
    simulation.kill()
    gate.touch()
    eventually(done.exists, "the command's end")
    simulation.start()
    found = pod_in_phase(connect(simulation), made, "Failed")
    assert found.status.container_statuses[0].state.terminated.exit_code == 6


def test_no_command_runs_twice_when_the_simulator_dies_while_pods_start(
    simulation: Simulation, connect: Connect, tmp_path: Path
) -> None:
    core = connect(simulation)
    for i in range(12):
        script = f"echo run >> {tmp_path}/trace-{i}; exit 0"
        core.create_namespaced_pod("default", shell(script, metadata={"labels": {"i": str(i)}}))
        if i in {3, 7, 11}:
            simulation.kill()
            simulation.start()
            core = connect(simulation)

    def all_ended() -> list[V1Pod]:
        found = core.list_namespaced_pod("default").items
        return found if all(item.status.phase in {"Succeeded", "Failed"} for item in found) else []

    found = eventually(all_ended, "every pod's end")
    assert len(found) == 12
    for item in found:
        assert item.status.phase == "Succeeded"
        assert (tmp_path / f"trace-{item.metadata.labels['i']}").read_text() == "run\n"


def test_a_container_that_vanished_counts_as_killed(simulation: Simulation, connect: Connect, tmp_path: Path) -> None:
    core = connect(simulation)
    marks = {name: tmp_path / name for name in ("never", "always")}
    script = "echo $$$$ > {}; exec sleep 600"
    never = core.create_namespaced_pod("default", shell(script.format(marks["never"])))
    always = core.create_namespaced_pod("default", shell(script.format(marks["always"]), restartPolicy="Always"))
    for made, mark in ((never, marks["never"]), (always, marks["always"])):
        pod_in_phase(core, made, "Running")
        eventually(lambda mark=mark: mark.exists() and mark.read_text(), "trace")
    simulation.kill()
    for shim in (simulation.state / "pods").rglob("started"):
        _kill(int(shim.read_text().split()[0]))
    simulation.start()
    core = connect(simulation)
    ended = pod_in_phase(core, never, "Failed").status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (137, "Error")
    found = pod_when(core, always, lambda p: p.status.container_statuses[0].restart_count == 1, "restart")
    assert found.status.container_statuses[0].last_state.terminated.exit_code == 137
    # what the shim left behind is ended too, or two instances of one container would run
    eventually(lambda: not _alive(int(marks["never"].read_text())), "the end of what was left behind")


def test_a_clean_stop_ends_every_process(simulation: Simulation, connect: Connect, tmp_path: Path) -> None:
    core, trace = connect(simulation), tmp_path / "pids"
    script = (
        f"setsid sh -c 'echo $$$$ >> {trace}; trap \"\" TERM; while :; do sleep 1; done' & echo $$$$ >> {trace}; wait"
    )
    pods = [core.create_namespaced_pod("default", shell(script)) for _ in range(3)]
    for made in pods:
        pod_in_phase(core, made, "Running")
    eventually(lambda: trace.exists() and len(trace.read_text().split()) == 6, "all processes")
    with promised(20):
        simulation.stop()
    eventually(lambda: not any(_alive(int(pid)) for pid in trace.read_text().split()), "every process's end")
    simulation.start()
    core = connect(simulation)
    for made in pods:
        assert pod_in_phase(core, made, "Failed").metadata.uid == made.metadata.uid


def test_a_pod_that_was_being_deleted_goes_after_a_kill(
    simulation: Simulation, connect: Connect, tmp_path: Path
) -> None:
    core, up = connect(simulation), tmp_path / "up"
    script = f"trap '' TERM; touch {up}; while :; do sleep 0.1; done"
    made = core.create_namespaced_pod("default", shell(script, terminationGracePeriodSeconds=2))
    eventually(up.exists, "trap set")
    core.delete_namespaced_pod(made.metadata.name, "default")
    simulation.kill()
    simulation.start()
    core = connect(simulation)
    gone(lambda: core.read_namespaced_pod(made.metadata.name, "default"), "pod")
    eventually(lambda: not (simulation.state / "pods" / made.metadata.uid).exists(), "directory cleared")


def test_a_node_that_was_deleted_is_back_after_a_start(simulation: Simulation, connect: Connect) -> None:
    core = connect(simulation)
    name = core.list_node().items[0].metadata.name
    made = core.create_namespaced_pod("default", pod("a", nodeName=name))
    pod_in_phase(core, made, "Running")
    core.delete_node(name)
    gone(lambda: core.read_namespaced_pod("a", "default"), "pod")
    gone(lambda: core.read_node(name), "node", 0)
    simulation.stop()
    simulation.start()
    assert connect(simulation).read_node(name).metadata.name == name


def test_two_simulators_never_share_a_state(simulation: Simulation) -> None:
    other = Simulation(simulation.state)
    try:
        with pytest.raises(AssertionError, match="another simulator runs"):
            other.start()
    finally:
        other.process.wait(60)
        other.process.stdout.close()


def _container_id(found: V1Pod) -> str:
    return str(found.status.container_statuses[0].container_id)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
