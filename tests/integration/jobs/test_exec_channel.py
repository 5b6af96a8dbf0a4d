"""The exec protocol against a real WebSocket server that plays the API server, well and badly."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import WSMsgType, web

from services.jobs.adapters.kubernetes import Cluster, ClusterRefused, ClusterUnavailable
from tests.support.promises import promised

SUCCESS = {"status": "Success"}
Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


def failure(code: int) -> dict[str, object]:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}


def ending(outcome: object, *output: tuple[int, bytes]) -> Talk:
    async def talk(socket: web.WebSocketResponse) -> None:
        for channel, data in output:
            await socket.send_bytes(bytes([channel]) + data)
        await socket.send_bytes(b"\x03" + (outcome if isinstance(outcome, bytes) else json.dumps(outcome).encode()))

    return talk


@asynccontextmanager
async def api_server(
    folder: Path, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kubeconfig = folder / "kubeconfig"
    entry = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [entry],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "c", "user": {"token": "the-token"}}],
            }
        )
    )
    cluster = Cluster(kubeconfig=str(kubeconfig), namespace="jobs")
    try:
        yield cluster
    finally:
        await cluster.close()
        await runner.cleanup()


def websocket(
    talk: Talk, requests: list[web.Request] | None = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        if requests is not None:
            requests.append(request)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        await talk(socket)
        await socket.close()
        return socket

    return answer


async def test_input_is_framed_and_output_and_exit_code_come_back(tmp_path: Path) -> None:
    requests: list[web.Request] = []
    received = bytearray()

    async def talk(socket: web.WebSocketResponse) -> None:
        while len(received) < 40_006:
            message = await socket.receive()
            assert message.type is WSMsgType.BINARY
            assert message.data[0] == 0
            received.extend(message.data[1:])
        await ending(failure(3), (1, b"out"), (2, b"a\n"), (2, b"the \x1b[reason\n\n"))(socket)

    async with api_server(tmp_path, websocket(talk, requests)) as cluster:
        result = await cluster.exec_in_pod("pod", ["a b", "$(c)"], stdin=b"x" * 40_000, seconds=60)
    assert bytes(received) == b"40000\n" + b"x" * 40_000
    assert (result.exit_code, result.stdout, result.last_error_line()) == (3, b"out", "the  [reason")
    request = requests[0]
    assert request.path == "/api/v1/namespaces/jobs/pods/pod/exec"
    assert request.query.getall("command") == ["a b", "$(c)"]
    assert request.query["container"] == "main"
    assert request.headers["Authorization"] == "Bearer the-token"


async def test_a_flood_of_output_is_kept_only_in_part(tmp_path: Path) -> None:
    flood = [(1, b"y" * 65_000)] * 40
    async with api_server(tmp_path, websocket(ending(SUCCESS, *flood))) as cluster:
        result = await cluster.exec_in_pod("pod", ["x"], stdin=None, seconds=60)
    assert (result.exit_code, len(result.stdout)) == (0, 1 << 20)


@pytest.mark.parametrize(
    "outcome",
    [
        {"status": "Failure", "reason": "InternalError", "message": "no such file"},
        {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "x"}]},
        },
        b"not json",
        b"[" * 100_000,
        b"\xff\xfe",
        *(
            {
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code}]},
            }
            for code in ("9" * 5000, "-1", "1.5", "\u0663", " 3", "3\n", "")
        ),
    ],
)
async def test_a_program_that_did_not_run_is_refused(tmp_path: Path, outcome: object) -> None:
    async with api_server(tmp_path, websocket(ending(outcome))) as cluster:
        with pytest.raises(ClusterRefused):
            await cluster.exec_in_pod("pod", ["x"], stdin=None, seconds=60)


async def test_a_programs_last_words_are_one_printable_line_of_bounded_length(tmp_path: Path) -> None:
    """Whoever has the pod writes them, as the reason why Jupyter did not start."""
    said = b"first\n\x1b[2J\x00the\r disk\xff\xe2\x80\xae is full" + b"!" * 100_000 + b"\n\x07\x1b\n\n" * 40_000
    async with api_server(tmp_path, websocket(ending(failure(1), (2, said)))) as cluster:
        result = await cluster.exec_in_pod("pod", ["x"], stdin=None, seconds=60)
    assert result.last_error_line().isprintable()
    assert result.last_error_line().startswith("[2J the  disk�  is full!!!")
    assert len(result.last_error_line()) == 300


async def test_a_connection_that_breaks_is_no_outcome(tmp_path: Path) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01half")

    async with api_server(tmp_path, websocket(talk)) as cluster:
        with pytest.raises(ClusterUnavailable):
            await cluster.exec_in_pod("pod", ["x"], stdin=None, seconds=60)


async def test_a_program_that_hangs_is_left_in_time(tmp_path: Path) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.receive()

    async with api_server(tmp_path, websocket(talk)) as cluster:
        with promised(4), pytest.raises(ClusterUnavailable):
            await cluster.exec_in_pod("pod", ["x"], stdin=None, seconds=0.3)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, ClusterRefused), (400, ClusterRefused), (403, ClusterUnavailable), (500, ClusterUnavailable)],
)
async def test_refusals_are_told_from_outages(tmp_path: Path, status: int, error: type[Exception]) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "code": status}, status=status)

    async with api_server(tmp_path, answer) as cluster:
        with pytest.raises(error):
            await cluster.exec_in_pod("pod", ["x"], stdin=None, seconds=60)
