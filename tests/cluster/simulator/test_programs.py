"""Programs that are loaded once for all containers."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api, CoreV1Event, V1Pod

from tests.cluster.objects import pod
from tests.cluster.simulation import Simulation
from tests.cluster.waiting import pod_in_phase, pod_when


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Executed it would fail without a word."""
    path = tmp_path / "program"
    path.write_text("#!/bin/false\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def simulation(tmp_path: Path, program: Path) -> Iterator[Simulation]:
    module = "tests.cluster.simulator.loaded_program"
    options = ("--program", "--probe", "--init")
    given = (word for option in options for word in (option, f"{program}={module}"))
    made = Simulation(tmp_path / "state", "--back-off", "1", *given)
    made.start()
    yield made
    made.stop()


def test_a_loaded_program_runs_in_a_fork_with_what_its_container_gives_it(
    simulation: Simulation, connect: Callable[[Simulation], CoreV1Api], program: Path
) -> None:
    core, copy = connect(simulation), str(shutil.copy(program, program.with_name("copy")))

    def run(*arguments: str) -> tuple[list[str], int]:
        container = {"env": [{"name": "COLOUR", "value": "red"}]}
        body = pod(command=[copy, *arguments], restartPolicy="Never", container=container)
        ended = pod_in_phase(core, core.create_namespaced_pod("default", body), "Failed")
        printed, complained = sorted(core.read_namespaced_pod_log(ended.metadata.name, "default").splitlines())
        assert complained == "and that is an error"
        return printed.split(), ended.status.container_statuses[0].state.terminated.exit_code

    (loaded_in, *told), code = run("a b", "3")
    assert (told, code) == (["True", "red", "True", "a", "b", "3"], 3)
    assert run("4")[0][0] == loaded_in
    os.kill(int(loaded_in), signal.SIGKILL)
    again, code = run("5")
    assert (again[0] != loaded_in, code) == (True, 5)


def test_a_loaded_program_answers_a_probe_without_being_executed(
    simulation: Simulation, connect: Callable[[Simulation], CoreV1Api], program: Path
) -> None:
    core, copy = connect(simulation), str(shutil.copy(program, program.with_name("copy")))

    def started(*command: str) -> V1Pod:
        # by default a probe has a second, too little for a process on a busy machine
        probe = {"exec": {"command": list(command)}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60}
        container = {"env": [{"name": "COLOUR", "value": "red"}], "startupProbe": probe}
        body = pod(command=["sleep", "600"], restartPolicy="Never", container=container)
        return core.create_namespaced_pod("default", body)

    right, another = started(copy, "is", "red"), started("true")
    wrong, executed = started(copy, "is", "blue"), started(copy, "5")
    for passing in (right, another):
        pod_when(core, passing, _is_ready, "ready")
    for failing in (wrong, executed):
        pod_in_phase(core, failing, "Failed")


def test_a_loaded_program_does_what_an_init_container_is_for_without_being_executed(
    simulation: Simulation, connect: Callable[[Simulation], CoreV1Api], program: Path, tmp_path: Path
) -> None:
    core, written = connect(simulation), tmp_path / "written"
    copy = str(shutil.copy(program, program.with_name("copy")))

    def prepared(*command: str) -> V1Pod:
        init = {"name": "init", "image": "debian:12", "env": [{"name": "COLOUR", "value": "red"}]}
        body = pod(command=["true"], restartPolicy="Never", initContainers=[{**init, "command": list(command)}])
        return core.create_namespaced_pod("default", body)

    done, executed = prepared(copy, "write", str(written)), prepared(copy, "0")
    failing = prepared(copy, "write", str(tmp_path / "nowhere/written"))
    found = pod_in_phase(core, done, "Succeeded")
    ended = found.status.init_container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason, ended.started_at <= ended.finished_at) == (0, "Completed", True)
    assert core.read_namespaced_pod_log(found.metadata.name, "default", container="init") == ""
    assert written.read_text() == f"red {simulation.process.pid}"
    assert not (simulation.state / "pods" / found.metadata.uid / "containers/init/0/started").exists()
    events = [event for event in core.list_namespaced_event("default").items if _is_about(event, found, "init")]
    assert sorted(event.reason for event in events) == ["Created", "Pulled", "Started"]
    pod_in_phase(core, executed, "Succeeded")
    # its last argument is no exit code: what cannot be done here is executed, and fails as it does there
    found = pod_in_phase(core, failing, "Failed")
    assert found.status.init_container_statuses[0].state.terminated.exit_code == 1


def test_what_an_init_container_was_for_is_not_done_again_after_a_kill(
    simulation: Simulation, connect: Callable[[Simulation], CoreV1Api], program: Path, tmp_path: Path
) -> None:
    core, written = connect(simulation), tmp_path / "written"
    copy = str(shutil.copy(program, program.with_name("copy")))
    init = {"name": "init", "image": "debian:12", "env": [{"name": "COLOUR", "value": "red"}]}
    init["command"] = [copy, "write", str(written)]
    made = core.create_namespaced_pod("default", pod(initContainers=[init]))
    pod_in_phase(core, made, "Running")
    simulation.kill()
    written.unlink()
    simulation.start()
    found = pod_in_phase(connect(simulation), made, "Running")
    assert found.status.init_container_statuses[0].restart_count == 0
    assert not written.exists()


def _is_about(event: CoreV1Event, found: V1Pod, init_container: str) -> bool:
    what = event.involved_object
    return (what.uid, what.field_path) == (found.metadata.uid, f"spec.initContainers{{{init_container}}}")


def _is_ready(found: V1Pod) -> bool:
    return any(status.ready for status in found.status.container_statuses or [])
