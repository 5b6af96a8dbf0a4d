"""What clients read of a real Traefik whose services fail it."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from deploy.local.error_pages import serve_error_pages
from deploy.local.ingress import Ingress
from deploy.local.part import Part, await_ready, spawn, stop
from deploy.local.ports import HOST, free_ports
from shared.background import cancel_all
from shared.routes import SERVICES
from tests.local.conftest import eventually

pytestmark = pytest.mark.timeout(120)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK"
OWN = b'{"detail": "The database is unavailable"}'


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that has an answer of its own, with the status that the query gives."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        asked = head.split(b" ", 2)[1].decode().rpartition("?")[2]
        about = f"HTTP/1.1 {asked if asked.isdigit() else 200} Of Ours\r\nRetry-After: 7\r\n"
        writer.write(f"{about}Content-Length: {len(OWN)}\r\n\r\n".encode() + OWN)
        await writer.drain()


async def receiving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that takes a body, and says how long it was."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        said = str(len(await reader.readexactly(length))).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
        await writer.drain()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """A service that hangs."""
    while await reader.read(1 << 16):
        pass


async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that dies of a request."""
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def lasting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that holds its answer for two seconds, and then takes two for its text."""
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(2)
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(4):
        writer.write(b"line\n")
        await writer.drain()
        await asyncio.sleep(0.5)


def closing(serve: Serve) -> Serve:
    """Until the other side has gone."""

    async def serve_until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    return serve_until_gone


@asynccontextmanager
async def ingress(
    folder: Path, *jobs: Serve | None, answer_seconds: float = 30, read_seconds: float = 30
) -> AsyncIterator[httpx.AsyncClient]:
    """A Traefik before replicas of jobs, and four ports where nobody listens; None is a replica that is dead."""
    port, error_port, *dead = free_ports(3 + len(jobs))
    backends = {**{name: [dead[-1]] for name in SERVICES}, "jobs": dead[: len(jobs)]}
    front = Ingress(
        directory=folder,
        port=port,
        backends=backends,
        error_port=error_port,
        read_seconds=read_seconds,
        answer_seconds=answer_seconds,
    )
    async with AsyncExitStack() as stack:
        for serve, own in zip(jobs, backends["jobs"], strict=True):
            if serve is not None:
                stack.callback((await asyncio.start_server(closing(serve), HOST, own)).close)
        stack.callback((await serve_error_pages(error_port)).close)
        await stack.enter_async_context(running(front.part(folder / "traefik.log")))
        yield await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=40, trust_env=False)
        )


@asynccontextmanager
async def running(part: Part) -> AsyncIterator[None]:
    process = spawn(part)
    try:
        await asyncio.to_thread(await_ready, process, part)
        yield
    finally:
        await asyncio.to_thread(stop, process, part)


def assert_our_shape(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses
    assert list(answer.json()) == ["detail"]
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["cache-control"] == "no-store"


async def test_a_service_that_is_dead_is_told_in_our_shape(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering) as client:
        for path in ("/v1/disks", "/health/disks", "/", "/nowhere"):
            assert_our_shape(await client.get(path), 502)
            assert_our_shape(await client.post(path, json={"padding": "x" * (1 << 20)}), 502)
            head = await client.head(path, headers={f"X-{number}": "x" for number in range(300)})
            assert (head.status_code, head.content) == (502, b"")


async def test_a_service_that_hangs_is_told_in_our_shape(tmp_path: Path) -> None:
    async with ingress(tmp_path, silent, answer_seconds=0.5) as client:
        assert_our_shape(await client.get("/v1/jobs"), 504)
        assert_our_shape(await client.post("/v1/jobs/submit", json={}), 504)


async def test_a_service_that_dies_of_a_request_is_told_in_our_shape(tmp_path: Path) -> None:
    async with ingress(tmp_path, breaking) as client:
        assert_our_shape(await client.post("/v1/jobs/submit", json={}), 502)


async def test_replicas_that_are_all_dead_are_told_in_our_shape(tmp_path: Path) -> None:
    async with ingress(tmp_path, None, None) as client:
        for path in ("/v1/jobs", "/v1/jobs/submit", "/health/jobs"):
            await known_dead(client, path)
            assert_our_shape(await client.get(path), 503)
            assert_our_shape(await client.post(path, json={"padding": "x" * (1 << 20)}), 503)


async def known_dead(client: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(40):
        while (answer := await client.get(path)).status_code != 503:
            assert_our_shape(answer, 502)


async def test_nobody_sees_that_a_replica_dies_of_their_read(tmp_path: Path) -> None:
    async with ingress(tmp_path, breaking, receiving) as client:
        answers = [await client.request(method, "/v1/jobs") for method in ("GET", "DELETE") for _ in range(4)]
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "0")] * 8


async def test_a_body_passes_whole_before_replicas_whatever_the_method(tmp_path: Path) -> None:
    async with ingress(tmp_path, receiving, receiving) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for length in (1, 3 << 20):
                answer = await client.request(method, "/v1/jobs", content=b"x" * length)
                assert (answer.status_code, answer.text) == (200, str(length))


async def test_what_a_service_says_itself_passes_unchanged(tmp_path: Path) -> None:
    async with ingress(tmp_path, answering, answering) as client:
        for path in ("/v1/jobs", "/health/jobs"):
            for status in (200, 400, 404, 429, 500, 503):
                answer = await client.get(f"{path}?{status}")
                assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (status, OWN, "7")


async def test_a_request_that_does_not_come_in_time_is_ended_and_an_answer_that_lasts_is_not(tmp_path: Path) -> None:
    async with ingress(tmp_path, lasting, read_seconds=2) as client:
        port = client.base_url.port or 0
        head = b"POST /v1/jobs/submit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        slow_head, slow_body, held, posted = await asyncio.gather(
            trickled(port, head + b"X-Slow: "),
            trickled(port, head + b"Content-Length: 500\r\n\r\n"),
            client.get("/v1/jobs/x/logs?follow=true"),
            client.post("/v1/jobs/submit", json={}),
        )
        assert slow_head == b""
        # Traefik calls it the client's end or its backend's time-out, whichever it notices first
        assert slow_body.startswith((b"HTTP/1.1 499 ", b"HTTP/1.1 504 "))
        assert held.text == posted.text == "line\n" * 4


async def trickled(port: int, begin: bytes) -> bytes:
    """What is answered to a request whose end never comes, a byte of it five times a second."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(begin)
    answer = asyncio.ensure_future(reader.read())
    async with asyncio.timeout(40):
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.2)
    writer.close()
    with suppress(ConnectionError):
        return await answer
    return b""


async def test_an_ingress_that_starts_lets_nobody_in_before_it_knows_its_routes(tmp_path: Path) -> None:
    port, own, error_port = free_ports(3)
    front = Ingress(
        directory=tmp_path,
        port=port,
        backends={name: [own] for name in SERVICES},
        error_port=error_port,
        read_seconds=20,
    )
    part = front.part(tmp_path / "traefik.log")
    answers: Counter[bytes] = Counter()

    async def ask() -> None:
        while True:
            answers[await asked(port)] += 1

    async with await asyncio.start_server(closing(answering), HOST, own):
        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for start in range(1, 6):
            async with running(part):
                await asyncio.to_thread(eventually, lambda: answers[GOOD] >= 20 * start)  # noqa: B023 - ends here
        await cancel_all(asking)
    assert set(answers) <= {b"", GOOD}


async def asked(port: int) -> bytes:
    """The first line of an answer on a connection of its own; empty when there is no connection, or it breaks."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        await asyncio.sleep(0.001)
        return b""
    try:
        writer.write(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).strip()
    except OSError:
        return b""
    finally:
        writer.close()
