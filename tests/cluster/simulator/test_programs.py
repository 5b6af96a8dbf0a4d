"""Programs that are loaded once for all containers."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api, V1Pod

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
    made = Simulation(tmp_path / "state", "--program", f"{program}={module}", "--probe", f"{program}={module}")
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


def _is_ready(found: V1Pod) -> bool:
    return any(status.ready for status in found.status.container_statuses or [])
