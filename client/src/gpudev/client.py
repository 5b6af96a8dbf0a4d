"""The clients: operations performed over httpx, blocking or awaited."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from gpudev.core import (
    AwaitingRunner,
    BlockingRunner,
    Close,
    ConnectionLost,
    Effect,
    Item,
    Open,
    Read,
    Request,
    Response,
    Send,
    Steps,
    Stream,
)
from gpudev.operations import Operations
from gpudev.tunnel import BlockingSshTunnel, SshTunnel

T = TypeVar("T")
KeySource: TypeAlias = str | Callable[[], str] | None
"""A key, or a function that gives it, asked before each request; None: for public methods only."""
_CONNECT_SECONDS = 10.0
_FIRST_ERROR = 300


class _Connection:
    """What both clients are made with, and what they make of it.

    Args:
        url: Where the API is.
        api_key: A key, or a function that gives it, asked before each request; None: for public methods only.
        retry_seconds: For which a request is tried again that failed in a way that may pass; 0: never.
    """

    def __init__(self, url: str, api_key: KeySource = None, *, retry_seconds: float = 60.0) -> None:
        if not url.startswith(("https://", "http://")):
            raise ValueError(f"{url!r} is no URL: it begins with https:// or http://")
        self.url = url.rstrip("/")
        self.retry_seconds = retry_seconds
        self._api_key = api_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _arguments(self, request: Request) -> dict[str, Any]:
        headers = dict(request.headers)
        key = self._api_key() if callable(self._api_key) else self._api_key
        if key is not None and not request.public:
            headers["Authorization"] = f"Bearer {key}"
        return {
            "method": request.method,
            "url": self.url + request.path,
            "params": dict(request.params),
            "headers": headers,
            "content": request.body,
            "timeout": httpx.Timeout(request.silence_seconds, connect=_CONNECT_SECONDS),
        }

    def _ssh_arguments(self, job_id: str) -> tuple[str, str]:
        """URL and key of a tunnel."""
        key = self._api_key() if callable(self._api_key) else self._api_key
        return f"ws{self.url.removeprefix('http')}/v1/jobs/{quote(job_id, safe='')}/ssh", key or ""

    def _lost(self, error: httpx.TransportError | httpx.StreamError) -> ConnectionLost:
        return ConnectionLost(f"{self.url} could not be reached ({type(error).__name__}: {error})")


class Client(_Connection, Operations, BlockingRunner):
    """GPU Dev's API, with blocking calls. Close it, or use it as a context manager; threads may share one."""

    def __init__(self, url: str, api_key: KeySource = None, *, retry_seconds: float = 60.0) -> None:
        super().__init__(url, api_key, retry_seconds=retry_seconds)
        self._http = httpx.Client()

    def __enter__(self) -> "Client":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def open_ssh(self, job_id: str) -> BlockingSshTunnel:
        """A tunnel to a job's SSH port, to be used as a context manager.

        Args:
            job_id: Of an active job; a unique beginning of 8 characters is enough.
        """
        return BlockingSshTunnel(*self._ssh_arguments(job_id))

    def run(self, steps: Steps[T]) -> T:
        """The result of the steps."""
        try:
            effect = next(steps)
            while True:
                effect = _resume(steps, self._outcome(effect, []))
        except StopIteration as end:
            result: T = end.value
            return result

    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        """The items of a stream."""
        opened: list[httpx.Response] = []
        try:
            effect = next(stream)
            while True:
                if isinstance(effect, Item):
                    yield effect.value
                    effect = next(stream)
                else:
                    effect = _resume(stream, self._outcome(effect, opened))
        except StopIteration:
            return
        finally:
            stream.close()
            for response in opened:
                response.close()

    def _outcome(self, effect: Effect, opened: list[httpx.Response]) -> Any:
        try:
            return self._perform(effect, opened)
        except (httpx.TransportError, httpx.StreamError) as error:
            return self._lost(error)

    def _perform(self, effect: Effect, opened: list[httpx.Response]) -> Any:
        if isinstance(effect, Send):
            return _response(self._http.request(**self._arguments(effect.request)))
        if isinstance(effect, Open):
            response = self._http.send(self._http.build_request(**self._arguments(effect.request)), stream=True)
            opened.append(response)
            if response.status_code >= _FIRST_ERROR:
                response.read()
                return _response(response)
            return Response(response.status_code, response.headers, b"", (response, response.iter_bytes()))
        if isinstance(effect, Read):
            return next(effect.stream[1], b"")
        if isinstance(effect, Close):
            return effect.stream[0].close()
        return time.sleep(effect.seconds)


class AsyncClient(_Connection, Operations, AwaitingRunner):
    """GPU Dev's API, with awaited calls. Close it, or use it as an asynchronous context manager, in one event loop."""

    def __init__(self, url: str, api_key: KeySource = None, *, retry_seconds: float = 60.0) -> None:
        super().__init__(url, api_key, retry_seconds=retry_seconds)
        self._http = httpx.AsyncClient()

    async def __aenter__(self) -> "AsyncClient":  # noqa: PYI034 - as in Client
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    def open_ssh(self, job_id: str) -> SshTunnel:
        """A tunnel to a job's SSH port, to be used as an asynchronous context manager.

        Args:
            job_id: Of an active job; a unique beginning of 8 characters is enough.
        """
        return SshTunnel(*self._ssh_arguments(job_id))

    async def run(self, steps: Steps[T]) -> T:
        """The result of the steps."""
        try:
            effect = next(steps)
            while True:
                effect = _resume(steps, await self._outcome(effect, []))
        except StopIteration as end:
            result: T = end.value
            return result

    async def iterate(self, stream: Stream[T]) -> AsyncIterator[T]:
        """The items of a stream."""
        opened: list[httpx.Response] = []
        try:
            effect = next(stream)
            while True:
                if isinstance(effect, Item):
                    yield effect.value
                    effect = next(stream)
                else:
                    effect = _resume(stream, await self._outcome(effect, opened))
        except StopIteration:
            return
        finally:
            stream.close()
            for response in opened:
                await response.aclose()

    async def _outcome(self, effect: Effect, opened: list[httpx.Response]) -> Any:
        try:
            return await self._perform(effect, opened)
        except (httpx.TransportError, httpx.StreamError) as error:
            return self._lost(error)

    async def _perform(self, effect: Effect, opened: list[httpx.Response]) -> Any:
        if isinstance(effect, Send):
            return _response(await self._http.request(**self._arguments(effect.request)))
        if isinstance(effect, Open):
            request = self._http.build_request(**self._arguments(effect.request))
            response = await self._http.send(request, stream=True)
            opened.append(response)
            if response.status_code >= _FIRST_ERROR:
                await response.aread()
                return _response(response)
            return Response(response.status_code, response.headers, b"", (response, response.aiter_bytes()))
        if isinstance(effect, Read):
            return await anext(effect.stream[1], b"")
        if isinstance(effect, Close):
            return await effect.stream[0].aclose()
        return await asyncio.sleep(effect.seconds)


def _response(response: httpx.Response) -> Response:
    return Response(response.status_code, response.headers, response.content)


def _resume(steps: Generator[Any, Any, Any], outcome: Any) -> Any:
    """The next effect."""
    return steps.throw(outcome) if isinstance(outcome, ConnectionLost) else steps.send(outcome)
