"""Programs executed in running containers, over the protocols that clients speak."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import stream
from kubernetes.aio import config as aio_config
from kubernetes.aio.client import Configuration as AioConfiguration
from kubernetes.aio.stream import WsApiClient
from kubernetes.client import ApiException, CoreV1Api, V1Pod

from tests.cluster.objects import shell
from tests.cluster.waiting import eventually, pod_in_phase

pytestmark = pytest.mark.needs_containers

IDLE = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
STREAMS = {"stdin": False, "stdout": True, "stderr": True, "tty": False}


@pytest.fixture
def made(core: CoreV1Api, namespace: str) -> V1Pod:
    """A pod whose container idles."""
    env = [{"name": "COLOUR", "value": "red"}]
    container = {"env": env, "workingDir": "/var"}
    return pod_in_phase(core, core.create_namespaced_pod(namespace, shell(IDLE, container=container)), "Running")


@contextmanager
def connected(core: CoreV1Api, made: V1Pod, *command: str, **options: Any) -> Iterator[Any]:
    where = (made.metadata.name, made.metadata.namespace)
    call = {**STREAMS, "command": list(command), "_preload_content": False, **options}
    client = stream.stream(core.connect_get_namespaced_pod_exec, *where, **call)
    try:
        yield client
    finally:
        client.sock.shutdown()


def finished(client: Any) -> tuple[str, str, int]:
    """Output, errors and exit code of a command, once it has ended."""
    client.run_forever(timeout=60)
    return client.read_stdout(), client.read_stderr(), client.returncode


def run(core: CoreV1Api, made: V1Pod, script: str, **options: Any) -> tuple[str, str, int]:
    with connected(core, made, "sh", "-c", script, **options) as client:
        return finished(client)


def status_of(client: Any) -> dict[str, Any]:
    client.run_forever(timeout=60)
    found: dict[str, Any] = json.loads(client.read_channel(3))
    return found


def test_output_errors_and_exit_code_are_told_apart(core: CoreV1Api, made: V1Pod) -> None:
    assert run(core, made, "echo out; echo err >&2; exit 3") == ("out\n", "err\n", 3)
    assert run(core, made, "true") == ("", "", 0)


def test_the_status_on_the_error_channel_names_the_exit_code(core: CoreV1Api, made: V1Pod) -> None:
    with connected(core, made, "sh", "-c", "exit 7") as client:
        status = status_of(client)
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert {"reason": "ExitCode", "message": "7"} in status["details"]["causes"]


def test_it_runs_in_the_containers_environment_and_directory(core: CoreV1Api, made: V1Pod) -> None:
    output, _, _ = run(core, made, 'echo "$COLOUR"; pwd; echo "$HOSTNAME"')
    colour, directory, host = output.splitlines()
    assert (colour, host) == ("red", made.metadata.name)
    assert directory.endswith("/var")


def test_input_reaches_the_program(core: CoreV1Api, made: V1Pod) -> None:
    with connected(core, made, "sh", "-c", 'read -r line; echo "got $line"', stdin=True) as client:
        client.write_stdin("hello\n")
        assert finished(client) == ("got hello\n", "", 0)


def test_much_data_passes_both_ways_unchanged(core: CoreV1Api, made: V1Pod) -> None:
    text = "".join(f"{number}\n" for number in range(30_000))
    with connected(core, made, "head", "-c", str(len(text)), stdin=True) as client:
        client.write_stdin(text)
        assert finished(client) == (text, "", 0)


def test_a_terminal_has_the_size_that_was_asked_for(core: CoreV1Api, made: V1Pod) -> None:
    with connected(core, made, "sh", stdin=True, tty=True, stderr=False) as client:
        client.write_channel(4, json.dumps({"Width": 91, "Height": 17}))
        # the size and what is typed come on two channels: which is there first is nobody's promise
        sized = "i=0; until [ \"$(stty size)\" = '17 91' ] || [ $i = 300 ]; do i=$((i+1)); sleep 0.1; done"
        client.write_stdin(f"{sized}; stty size; tty >/dev/null && echo a-terminal; exit 4\n")
        output, _, code = finished(client)
    # what was typed is echoed, and a prompt may stand before what it brought
    assert "17 91\na-terminal\n" in output.replace("\r", "")
    assert code == 4


def test_a_program_that_is_not_there_is_a_failure_with_the_reason(core: CoreV1Api, made: V1Pod) -> None:
    with connected(core, made, "no-such-program") as client:
        status = status_of(client)
    assert status["status"] == "Failure"
    assert "no-such-program" in status["message"]


def test_a_program_ends_with_its_container(core: CoreV1Api, made: V1Pod) -> None:
    with connected(core, made, "sleep", "1000") as client:
        core.delete_namespaced_pod(made.metadata.name, made.metadata.namespace)
        client.run_forever(timeout=60)
        assert not client.is_open()


def test_what_a_command_leaves_in_the_background_lives_as_long_as_the_container(core: CoreV1Api, made: V1Pod) -> None:
    _, _, code = run(core, made, "(while :; do date +%s%N > beat; sleep 0.05; done) >/dev/null 2>&1 & exit 0")
    assert code == 0
    first = eventually(lambda: run(core, made, "cat beat")[0], "the first beat")
    eventually(lambda: run(core, made, "cat beat")[0] not in {"", first}, "another beat")


def test_a_container_has_to_exist_and_run(core: CoreV1Api, namespace: str, made: V1Pod) -> None:
    with pytest.raises(ApiException, match="400"), connected(core, made, "true", container="other"):
        pass
    ended = pod_in_phase(core, core.create_namespaced_pod(namespace, shell("true")), "Succeeded")
    with pytest.raises(ApiException, match=r"(400|404|500)"), connected(core, ended, "true"):
        pass
    made.metadata.name = "none"
    with pytest.raises(ApiException, match="404"), connected(core, made, "true"):
        pass


def test_one_of_several_containers_is_chosen_by_name(core: CoreV1Api, namespace: str) -> None:
    body = shell(IDLE)
    body["spec"]["containers"].append({**body["spec"]["containers"][0], "name": "other"})
    for container in body["spec"]["containers"]:
        container |= {"env": [{"name": "ME", "value": container["name"]}], "image": "local/debian:bookworm"}
    found = pod_in_phase(core, core.create_namespaced_pod(namespace, body), "Running")
    assert run(core, found, 'echo "$ME"', container="other")[0] == "other\n"


async def test_the_asynchronous_client_speaks_to_it_too(kubeconfig: Path, made: V1Pod) -> None:
    configuration = AioConfiguration()
    await aio_config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    configuration.proxy = None
    path = f"{configuration.host}/api/v1/namespaces/{made.metadata.namespace}/pods/{made.metadata.name}/exec"
    command = ["sh", "-c", 'read -r line; echo "got $line"; exit 5']
    query = [("command", command), ("stdin", "true"), ("stdout", "true")]
    headers = {"authorization": await configuration.get_api_key_with_prefix("BearerToken")}
    async with WsApiClient(configuration) as client:
        request = client.request("GET", path, query_params=query, headers=headers, _preload_content=False)
        async with await request as socket:
            await socket.send_bytes(b"\x00hello\n")
            received = [message.data async for message in socket]
    assert b"".join(data[1:] for data in received if data[0] == 1) == b"got hello\n"
    assert WsApiClient.parse_error_data(received[-1][1:].decode()) == 5
