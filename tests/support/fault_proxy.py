"""A proxy before the Kubernetes API, or before ours, that fails as it is told to: errors, breaks, silence."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from kubernetes.aio import client, config


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a request."""

    status: int | None = None
    """Answered with this error, without effect."""
    reason: str = "InternalError"
    message: str = "told to fail"
    lost: bool = False
    """It has its effect, and its answer is lost."""
    hang: bool = False
    """It gets headers, and then nothing for ever."""
    cut_after: int | None = None
    """Its answer breaks after so many bytes."""
    lines: tuple[bytes, ...] = ()
    """Its answer, in place of Kubernetes' own."""


Rule = Callable[[web.Request], Fault | None]


def is_watch(request: web.Request) -> bool:
    """Whether it is a watch."""
    return request.query.get("watch") == "true"


def is_log(request: web.Request) -> bool:
    """Whether it reads a log."""
    return request.path.endswith("/log")


@dataclass
class FaultProxy:
    """Passes requests on, save those that `rule` has a fault for."""

    kubeconfig: Path
    """Of the proxy, when it is before Kubernetes."""
    rule: Rule = field(default=lambda _: None)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    streams: list[web.Request] = field(default_factory=list)
    """Answers that are on their way."""
    log_bytes: int = 0
    """Of logs, as far as they were taken."""
    passed_headers: tuple[str, ...] = ("Content-Type", "Accept")
    """Of requests."""

    @property
    def open_streams(self) -> int:
        """How many answers are on their way."""
        return len(self.streams)

    def break_streams(self) -> None:
        """The connections of all of them end."""
        for request in self.streams:
            if request.transport is not None:
                request.transport.close()

    def count(self, method: str, ending: str = "") -> int:
        """Requests so far."""
        return sum(seen == method and path.endswith(ending) for seen, path in self.seen)

    async def handle(self, upstream: aiohttp.ClientSession, base: str, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        self.seen.append((request.method, request.path))
        fault = self.rule(request) or Fault()
        if fault.status is not None:
            status = {"kind": "Status", "code": fault.status, "reason": fault.reason, "message": fault.message}
            return web.json_response(status, status=fault.status)
        if fault.hang or fault.lines:
            return await self._play(request, fault)
        body = await request.read()
        headers = {name: request.headers[name] for name in self.passed_headers if name in request.headers}
        url = f"{base}{request.path_qs}"
        async with upstream.request(request.method, url, data=body or None, headers=headers) as answer:
            try:
                if fault.lost:
                    await answer.read()
                    return await _break(request)
                return await self._pass_on(request, answer, fault.cut_after)
            except BaseException:
                # TLS would take leave of a server that goes on sending, beyond the end of the test
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()
                raise

    async def _play(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for line in fault.lines:
            await response.write(line + b"\n")
        if fault.hang:
            await asyncio.Event().wait()
        return response

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, cut_after: int | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            status=answer.status, headers={"Content-Type": answer.headers.get("Content-Type", "application/json")}
        )
        await response.prepare(request)
        self.streams.append(request)
        try:
            async for piece in answer.content.iter_any():
                if cut_after is not None and len(piece) >= cut_after:
                    await response.write(piece[:cut_after])
                    return await _break(request)
                cut_after = cut_after - len(piece) if cut_after is not None else None
                await response.write(piece)
                self.log_bytes += len(piece) if is_log(request) else 0
        finally:
            self.streams.remove(request)
        await response.write_eof()
        return response


async def _break(request: web.Request) -> Any:
    transport = request.transport
    assert transport is not None
    await asyncio.sleep(0)  # lets go what was written
    transport.close()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(5)
    raise ConnectionResetError


@asynccontextmanager
async def fault_proxy(kubeconfig: Path, directory: Path) -> AsyncIterator[FaultProxy]:
    """A proxy before the cluster of `kubeconfig`; its own is written into `directory`."""
    settings: Any = client.Configuration()
    load: Any = config.load_kube_config
    await load(config_file=str(kubeconfig), client_configuration=settings)
    proxy = FaultProxy(directory / "kubeconfig")
    api = client.ApiClient(configuration=settings)
    token = await settings.get_api_key_with_prefix("BearerToken", alias="authorization")
    connector = aiohttp.TCPConnector(limit=0, ssl=api.rest_client.ssl_context)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, headers={"Authorization": token} if token else {}, read_bufsize=1 << 16
            ) as upstream,
            _serving(proxy, upstream, settings.host) as port,
        ):
            write_kubeconfig(proxy.kubeconfig, port)
            yield proxy
    finally:
        await api.close()


@asynccontextmanager
async def api_fault_proxy(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """A proxy before our own API, and its URL."""
    proxy = FaultProxy(Path(), passed_headers=("Content-Type", "Accept", "Authorization", "Idempotency-Key", "Prefer"))
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as upstream,
        _serving(proxy, upstream, url) as port,
    ):
        yield proxy, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def _serving(proxy: FaultProxy, upstream: aiohttp.ClientSession, base: str) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await proxy.handle(upstream, base, request)

    app = web.Application(client_max_size=1 << 22)
    app.router.add_route("*", "/{path:.*}", handle)
    # ends what a client has left: else a stream would go on behind its back
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def write_kubeconfig(path: Path, port: int) -> None:
    """Of a cluster on that port of this machine, which wants no secret."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "proxy", "user": {"token": "none"}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "current-context": "proxy",
    }
    path.write_text(yaml.safe_dump(content))
