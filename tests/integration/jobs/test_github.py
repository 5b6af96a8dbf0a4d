"""Keys over real HTTP from servers that behave badly (Incident 24)."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from services.jobs.adapters.github import GitHub, GitHubUnavailable, NoKeys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJv0VB9G2dN6l1iJqzL3iYcM3qzGq5c2b6kq1C0vXh1m"
Page = Callable[[web.Request], Any]


@asynccontextmanager
async def github(page: Page, seconds: float = 5.0) -> AsyncIterator[tuple[GitHub, list[str]]]:
    """A server that answers like this, and the paths it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)
        made: web.StreamResponse = await page(request)
        return made

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = GitHub(url=f"http://127.0.0.1:{runner.addresses[0][1]}/", seconds=seconds)
    try:
        yield client, asked
    finally:
        await client.close()
        await runner.cleanup()


def page(body: bytes = b"", status: int = 200, **headers: str) -> Page:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    return answer


async def test_a_users_keys_are_asked_for_by_name() -> None:
    async with github(page(f"{KEY} alice@laptop\nno key\n".encode())) as (client, asked):
        assert await client.fetch_keys("Alice-1") == [KEY]
    assert asked == ["/Alice-1.keys"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page(status=404), "no user"),
        (page(b""), "no SSH keys"),
        (page(b"<script>alert(1)</script>\n$(reboot)\n"), "no SSH keys"),
        (page(status=302, Location="http://127.0.0.1:1/"), "302"),
        (page(gzip.compress(KEY.encode()), **{"Content-Encoding": "gzip"}), "no SSH keys"),
        (page(f"{KEY}\n".encode() * 20_000), "longer than"),
    ],
    ids=["unknown", "empty", "script", "redirect", "packed", "huge"],
)
async def test_what_is_no_page_of_keys_is_refused(answer: Page, words: str) -> None:
    async with github(answer) as (client, asked):
        with pytest.raises(NoKeys, match=words):
            await client.fetch_keys("alice")
    assert asked == ["/alice.keys"]


async def test_an_endless_page_is_left_at_its_bound() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1 << 26:
            await response.write(b"a" * 4096)
            sent += 4096
        return response

    async with github(endless) as (client, _):
        with pytest.raises(NoKeys, match="longer than"):
            await client.fetch_keys("alice")
    assert sent < 1 << 26


async def test_a_page_that_drips_is_given_up_in_time() -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"a")
            await asyncio.sleep(0.05)

    async with github(dripping, seconds=0.3) as (client, _):
        started = asyncio.get_running_loop().time()
        with pytest.raises(GitHubUnavailable):
            await client.fetch_keys("alice")
        assert asyncio.get_running_loop().time() - started < 5


@pytest.mark.parametrize("status", [403, 429, 500, 502, 503])
async def test_trouble_at_github_decides_nothing(status: int) -> None:
    async with github(page(status=status)) as (client, _):
        with pytest.raises(GitHubUnavailable):
            await client.fetch_keys("alice")


async def test_a_github_that_is_away_decides_nothing() -> None:
    client = GitHub(url="http://127.0.0.1:1", seconds=1)
    with pytest.raises(GitHubUnavailable):
        await client.fetch_keys("alice")
    await client.close()


@pytest.mark.parametrize(
    "name", ["", "-a", "a--b", "../x", "a/b", "a?b", "a#b", "a b", "$(id)", "a\n", "a" * 40, "ä", "%2e"]
)
async def test_what_is_no_name_is_never_asked_for(name: str) -> None:
    async with github(page(KEY.encode())) as (client, asked):
        with pytest.raises(NoKeys):
            await client.fetch_keys(name)
    assert asked == []
