"""A server that answers as a test tells it, and both clients of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gpudev import AsyncClient, Client
from tests.support.http_server import serving

Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Scripted:
    url: str
    answers: list[Answerer]
    """One a request, in turn; the last one again and again."""
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.text()
        self.seen.append({"method": request.method, "path": request.path_qs, "headers": headers, "body": body})
        return await self.answers[min(len(self.seen), len(self.answers)) - 1](request)


@asynccontextmanager
async def scripted(*answers: Answerer) -> AsyncIterator[Scripted]:
    server = Scripted("", list(answers))
    async with serving(server.handle) as server.url:
        yield server


def says(body: Any, status: int = 200, **headers: str) -> Answerer:
    """Answers with JSON."""

    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=status, headers=named)

    return answer


def cuts(*pieces: bytes) -> Answerer:
    """Breaks the connection, after so much of an answer; without any, before it."""
    return _streams(pieces, whole=False)


def streams(*pieces: bytes) -> Answerer:
    """Answers with text, piece by piece."""
    return _streams(pieces, whole=True)


def _streams(pieces: tuple[bytes, ...], *, whole: bool) -> Answerer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        if pieces:
            await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        if whole:
            return response
        assert request.transport is not None
        request.transport.close()
        await asyncio.Event().wait()
        return response

    return answer


async def call(kind: str, url: str, method: str, *args: Any, retry_seconds: float = 30, **kwargs: Any) -> Any:
    """One call by the blocking or the asynchronous client; of a stream, the list of its items."""
    if kind == "blocking":
        return await asyncio.to_thread(_call, url, retry_seconds, method, *args, **kwargs)
    async with AsyncClient(url, "the-key", retry_seconds=retry_seconds) as client:
        result = getattr(client, method)(*args, **kwargs)
        return [item async for item in result] if hasattr(result, "__aiter__") else await result


def _call(url: str, retry_seconds: float, method: str, *args: Any, **kwargs: Any) -> Any:
    with Client(url, lambda: "the-key", retry_seconds=retry_seconds) as client:
        result = getattr(client, method)(*args, **kwargs)
        return list(result) if hasattr(result, "__next__") else result
