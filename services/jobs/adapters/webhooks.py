"""The only module that talks to webhooks: sends one message, to an address that was looked at and to no other."""

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from services.jobs.domain.webhook import Attempt, Network, is_allowed

SEND_SECONDS = 10.0
_RESOLVE_SECONDS = 3.0
_ANSWER_BYTES = 4096
_SUCCESS = range(200, 300)
_REDIRECT = range(300, 400)
_NOT_ALLOWED = "its address is not public"


class NotAllowed(OSError):
    """The host has an address that nothing is sent to."""


class _CheckedResolver(AbstractResolver):
    """Names only addresses that are allowed: what is looked at is what is connected to."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses; NotAllowed when one of them is not."""
        found = await self._resolver.resolve(host, port, family)
        if not all(is_allowed(one["host"], self._networks) for one in found):
            raise NotAllowed(_NOT_ALLOWED)
        return found

    async def close(self) -> None:
        """Nothing is held."""
        await self._resolver.close()


class WebhookSender:
    """Sends messages.

    Args:
        networks: Where messages may be sent to beside public addresses.
    """

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def target_fault(self, url: str) -> str | None:
        """Why nothing may be sent to the URL's host; None when something may, or its name has no address now."""
        host = urlsplit(url).hostname or ""
        if _is_literal(host):
            return None if is_allowed(host, self._networks) else _NOT_ALLOWED
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                await _CheckedResolver(self._networks).resolve(host)
        except NotAllowed as error:
            return str(error)
        except (OSError, TimeoutError, UnicodeError):
            return None
        return None

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Attempt:
        """What came of sending a message. Bounded in time; may have arrived even when there is an error."""
        # names are looked at by the resolver, which is not asked about addresses
        host = urlsplit(url).hostname or ""
        if _is_literal(host) and not is_allowed(host, self._networks):
            return Attempt(None, _NOT_ALLOWED)
        try:
            async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as response:
                await response.content.read(_ANSWER_BYTES)
                return _judged(response.status)
        except NotAllowed as error:
            return Attempt(None, str(error))
        except TimeoutError:
            return Attempt(None, f"no answer in {SEND_SECONDS:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            not_allowed = isinstance(error.__cause__, NotAllowed) or isinstance(error.__context__, NotAllowed)
            return Attempt(None, _NOT_ALLOWED if not_allowed else f"it could not be reached ({type(error).__name__})")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_CheckedResolver(self._networks), use_dns_cache=False, force_close=True
            )
            # no cookies, no proxies from the environment, nothing unpacked: a small answer can be a large archive
            options: Any = {"timeout": aiohttp.ClientTimeout(total=SEND_SECONDS), "auto_decompress": False}
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "gpudev"}, **options
            )
        return self._session


def _judged(status: int) -> Attempt:
    if status in _SUCCESS:
        return Attempt(status, None)
    if status in _REDIRECT:
        return Attempt(status, f"it answered {status}, and redirects are not followed")
    return Attempt(status, f"it answered {status}")


def _is_literal(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True
