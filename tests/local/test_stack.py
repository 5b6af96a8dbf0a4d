"""The supervised whole: real servers and ingress around stand-ins for the services and the cluster."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.local import leftovers, proc
from deploy.local.aws import ACCOUNT, DEMO_ROLE
from shared.routes import SERVICES
from tests.local.conftest import FakeCluster, StackProcess, alive, eventually, shell_reads
from tests.support.hanging import hung

pytestmark = pytest.mark.timeout(180)
MakeStack = Callable[..., StackProcess]


def get(stack: StackProcess, path: str) -> Any:
    with urllib.request.urlopen(f"http://localhost:{stack.port}{path}", timeout=40) as answer:
        return json.loads(answer.read())


def caller(exports: dict[str, str]) -> str:
    client = boto3.client(
        "sts",
        endpoint_url=exports["AWS_ENDPOINT_URL"],
        region_name=exports["AWS_REGION"],
        aws_access_key_id=exports["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=exports["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=exports["AWS_SESSION_TOKEN"],
    )
    return str(client.get_caller_identity()["Arn"])


def identity(stack: StackProcess, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local", "identity", name]
    root = Path(__file__).parents[2]
    env = {**os.environ, **stack.environment}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def test_a_ready_stack_serves_every_service_and_says_how_to_use_it(
    stack: StackProcess, fake_cluster: FakeCluster
) -> None:
    exports = stack.exports()

    assert sorted(exports) == [
        "API_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "KUBECONFIG",
        "NATS_URL",
    ]
    assert exports["API_URL"] == f"http://localhost:{stack.port}"
    assert exports["AWS_DEFAULT_REGION"] == exports["AWS_REGION"]
    assert exports["KUBECONFIG"] == str(fake_cluster.kubeconfig)
    assert caller(exports) == f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEMO_ROLE}/demo"
    assert "gpudev" in fake_cluster.namespaces
    assert exports["API_URL"] in stack.output.read_text()
    for path in (stack.state.env, stack.state.stack):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    _assert_services_know_their_world(stack)


def _assert_services_know_their_world(stack: StackProcess) -> None:
    for name in SERVICES:
        seen = get(stack, f"/health/{name}")["environment"]
        assert seen["GPUDEV_REPLICA"] == f"{name}-1"
        assert f"gpudev_{name}:" in seen["GPUDEV_DATABASE_URL"]
        assert seen["GPUDEV_KEY_TTL_HOURS"] == "1"
        assert ("GPUDEV_GITHUB_URL" in seen) == ("GPUDEV_SSH_COMMAND" in seen) == (name == "jobs")
        assert "GPUDEV_TOOLS_IMAGE" not in seen, "the image of a cluster of the user's is the user's"
        assert ("GPUDEV_KEY_HASH_KEY" in seen) == (name == "auth")
        assert ("AWS_SECRET_ACCESS_KEY" in seen) == (name == "disks")
        assert ("GPUDEV_NAMESPACE" in seen) == (name in {"jobs", "capacity"})
    assert get(stack, "/v1/jobsx")["environment"]["GPUDEV_REPLICA"] == "auth-1"
    assert get(stack, "/v1/jobs/x")["environment"]["GPUDEV_REPLICA"] == "jobs-1"


def test_the_demo_users_session_is_renewed_for_as_long_as_the_stack_runs(make_stack: MakeStack) -> None:
    stack = make_stack(RENEWAL_SECONDS="1")
    stack.start()
    first = stack.exports()
    eventually(lambda: stack.exports()["AWS_SESSION_TOKEN"] != first["AWS_SESSION_TOKEN"])
    renewed = stack.exports()
    assert caller(renewed) == caller(first)
    assert renewed | {name: first[name] for name in first if name.startswith("AWS_")} == first
    assert stat.S_IMODE(stack.state.env.stat().st_mode) == 0o600


def test_a_service_that_hangs_is_told_in_the_shape_of_our_errors(stack: StackProcess) -> None:
    hanging = proc.group_members(stack.parts()["disks-1"].pid)
    with hung(*hanging), pytest.raises(urllib.error.HTTPError) as caught:
        get(stack, "/health/disks")
    assert caught.value.code == 504
    assert list(json.loads(caught.value.read())) == ["detail"]


@pytest.mark.parametrize("door", ["traefik", "jobs-1"])
def test_a_request_whose_head_does_not_come_in_time_is_let_go(stack: StackProcess, door: str) -> None:
    with socket.create_connection(("127.0.0.1", stack.parts()[door].port or 0)) as client:
        client.settimeout(60)
        client.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n")
        assert client.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stack_leaves_nothing_behind(make_stack: MakeStack, number: signal.Signals) -> None:
    stack = make_stack()
    stack.start()
    pids = [part.pid for part in stack.parts().values()]

    assert stack.end(number) == 0

    assert [pid for pid in pids if alive(pid)] == []
    assert leftovers.find(stack.state) == []
    assert not stack.state.env.exists()
    assert not stack.state.stack.exists()


def test_a_stack_stopped_while_it_starts_leaves_nothing_behind(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.launch()
    eventually(stack.parts)

    assert stack.end() == 0

    assert leftovers.find(stack.state) == []


def test_nothing_survives_a_supervisor_that_is_killed(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()

    assert stack.end(signal.SIGKILL) == -signal.SIGKILL

    eventually(lambda: leftovers.find(stack.state) == [])


def test_leftovers_of_a_crashed_run_are_ended_at_the_next_start_but_no_stranger(make_stack: MakeStack) -> None:
    stack = make_stack()
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    leftover = subprocess.Popen(sleep, env=leftovers.mark(stack.state), start_new_session=True)
    stranger = subprocess.Popen(sleep, env={"STACK_STATE": str(stack.state.root) + "2"}, start_new_session=True)
    try:
        stack.start()

        assert leftover.wait(60) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for process in (leftover, stranger):
            process.kill()
            process.wait()


def test_a_written_down_pid_that_is_someone_elses_now_is_spared(make_stack: MakeStack) -> None:
    stack = make_stack()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    part = {"name": "nats", "pid": stranger.pid, "started": "1", "port": None, "log": ""}
    table = {"pid": 1, "url": "", "kubeconfig": "", "parts": [part]}
    stack.state.create()
    stack.state.stack.write_text(json.dumps(table))
    try:
        stack.start()

        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_was_kept_is_there_after_a_restart(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    before, seen = stack.exports(), get(stack, "/")["environment"]
    stack.end()
    stack.start()

    again = get(stack, "/")["environment"]
    assert again["GPUDEV_SECRET_KEYS"] == seen["GPUDEV_SECRET_KEYS"]
    assert again["GPUDEV_KEY_HASH_KEY"] == seen["GPUDEV_KEY_HASH_KEY"]
    # The session of the first run still counts: moto's memory was kept.
    assert caller({**before, "AWS_ENDPOINT_URL": stack.exports()["AWS_ENDPOINT_URL"]}).endswith("/demo")


@pytest.mark.parametrize("victim", ["postgres", "nats", "moto", "traefik", "jobs-1"])
def test_a_killed_part_comes_back_on_its_port(stack: StackProcess, victim: str) -> None:
    before = stack.parts()[victim]

    os.kill(before.pid, signal.SIGKILL)

    eventually(lambda: stack.parts()[victim].pid != before.pid)
    after = stack.parts()[victim]
    assert after.port == before.port
    eventually(lambda: stack.output.read_text().splitlines()[-1].startswith(f"  {victim:<12} ready again"))
    assert get(stack, "/v1/jobs")["path"] == "/v1/jobs"


def test_a_killed_worker_is_recovered(stack: StackProcess) -> None:
    worker = get(stack, "/v1/jobs")["pid"]
    parent = stack.parts()["jobs-1"].pid

    os.kill(worker, signal.SIGKILL)

    eventually(lambda: stack.parts()["jobs-1"].pid != parent)
    eventually(lambda: stack.output.read_text().splitlines()[-1].startswith("  jobs-1       ready again"))
    assert get(stack, "/v1/jobs")["pid"] not in {worker, parent}


def test_reads_never_fail_while_one_of_two_replicas_dies(make_stack: MakeStack) -> None:
    stack = make_stack(GPUDEV_REPLICAS="2")
    stack.start()
    replicas: set[str] = set()

    def both_answer() -> bool:
        replicas.add(get(stack, "/v1/jobs")["environment"]["GPUDEV_REPLICA"])
        return replicas == {"jobs-1", "jobs-2"}

    eventually(both_answer)

    os.kill(stack.parts()["jobs-1"].pid, signal.SIGKILL)

    def recovered() -> bool:
        get(stack, "/v1/jobs")
        return "jobs-1       ready again" in stack.output.read_text()

    eventually(recovered)


def test_a_stack_whose_words_nobody_reads_any_more_heals_and_stops_as_ever(make_stack: MakeStack) -> None:
    stack = make_stack()
    reader, writer = os.pipe()
    process = stack.launch(writer)
    os.close(writer)
    eventually(lambda: stack.state.env.exists() or process.poll() is not None)
    os.close(reader)
    pid = stack.parts()["jobs-1"].pid

    os.kill(pid, signal.SIGKILL)

    def recovered() -> bool:
        assert process.poll() is None
        return stack.parts()["jobs-1"].pid != pid

    eventually(recovered)
    assert stack.end() == 0


def test_a_second_stack_on_the_same_state_is_refused_and_harms_nothing(
    stack: StackProcess, make_stack: MakeStack
) -> None:
    second = make_stack(GPUDEV_STATE=str(stack.state.root))
    second.output = stack.state.root.with_name("second")

    assert second.launch().wait(60) != 0

    assert "runs on" in second.output.read_text()
    assert get(stack, "/v1/jobs")


def test_a_taken_port_is_named_with_the_variable_to_change(make_stack: MakeStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack = make_stack(GPUDEV_PORT=str(taken.getsockname()[1]))

        assert stack.launch().wait(60) != 0

    assert "GPUDEV_PORT" in stack.output.read_text()


def test_an_identity_needs_a_stack_that_runs(make_stack: MakeStack) -> None:
    answer = identity(make_stack(), "bob")

    assert answer.returncode != 0
    assert "No stack runs" in answer.stderr


def test_another_demo_user_gets_an_identity_of_his_own(stack: StackProcess) -> None:
    answer = identity(stack, "bob")

    assert answer.returncode == 0, answer.stderr
    bob, demo = shell_reads(answer.stdout), stack.exports()
    assert caller(bob).endswith(f":assumed-role/{DEMO_ROLE}/bob")
    assert {name for name in demo if demo[name] != bob[name]} == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
    refusal = identity(stack, "b/b")
    assert refusal.returncode != 0
    assert "no session name" in refusal.stderr


def test_a_service_that_cannot_start_takes_the_stack_down_with_its_log(make_stack: MakeStack, tmp_path: Path) -> None:
    stack = make_stack()
    package = tmp_path / "services"
    for name in SERVICES:
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
        (package / name / "app.py").write_text("def create_app():\n    raise SystemExit('a setting is missing')\n")
    (package / "__init__.py").touch()
    (tmp_path / "shared").symlink_to(Path(__file__).parents[2] / "shared")
    stack.services = tmp_path

    assert stack.launch().wait(60) == 1

    assert "a setting is missing" in stack.output.read_text()
    assert leftovers.find(stack.state) == []
    assert proc.marked(f"STACK_STATE={stack.state.root}") == []


def test_nothing_listens_beyond_this_machine(stack: StackProcess) -> None:
    address = _address_of_this_machine()
    if address is None:
        pytest.skip("this machine has no address but 127.0.0.1")

    ports = [port for part in stack.parts().values() for port in (part.port, part.metrics_port)]
    for port in filter(None, [stack.port, *ports]):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, port), timeout=5).close()


def _address_of_this_machine() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])
