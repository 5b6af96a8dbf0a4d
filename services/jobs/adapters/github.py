"""The only module that talks to GitHub: the public SSH keys of its users (https://github.com/<name>.keys)."""

import re

import aiohttp

from services.jobs.domain.client_env_vars import GITHUB_NAME
from services.jobs.domain.ssh_keys import read_keys
from shared.errors import Conflict, Unavailable

_MAX_BYTES = 128 * 1024
_OK, _NOT_FOUND = 200, 404
_LATER = frozenset({403, 408, 425, 429})
_SERVER_ERROR = 500
_NAME = re.compile(GITHUB_NAME)


class GitHubUnavailable(Unavailable):
    """GitHub gave no answer, or none that decides anything."""

    def __init__(self, **context: object) -> None:
        super().__init__("GitHub could not be reached", retry_after_seconds=5, **context)


class NoKeys(Conflict):
    """GitHub has no usable keys of this name; the text says why."""


class GitHub:
    """Fetches keys.

    Args:
        url: What `/<name>.keys` is put behind.
        seconds: For one answer, from connecting to its last byte.
    """

    def __init__(self, *, url: str, seconds: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch_keys(self, name: str) -> list[str]:
        """The user's SSH keys, each `type base64`, at least one. Reads only; bounded in time and size.

        Raises:
            NoKeys: No such user, no keys, or no page of keys.
            GitHubUnavailable: Try again later.
        """
        if not _NAME.fullmatch(name):
            raise NoKeys("this is no GitHub user name")
        try:
            keys = read_keys(await self._read(name))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise GitHubUnavailable(cause=type(error).__name__) from error
        if not keys:
            raise NoKeys("GitHub has no SSH keys of this user")
        return keys

    async def _read(self, name: str) -> bytes:
        if self._session is None:
            # no cookies, no proxies from the environment, nothing unpacked: a small page can be a large archive
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "gpudev"},
            )
        async with self._session.get(f"{self._url}/{name}.keys", allow_redirects=False) as response:
            _judge(response.status)
            return await _read_bounded(response)


def _judge(status: int) -> None:
    if status == _NOT_FOUND:
        raise NoKeys("GitHub has no user of this name")
    if status in _LATER or status >= _SERVER_ERROR:
        raise GitHubUnavailable(status=status)
    if status != _OK:
        raise NoKeys(f"GitHub has no page of keys of this user (it answered {status})")


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    page = bytearray()
    async for chunk in response.content.iter_any():
        page += chunk
        if len(page) > _MAX_BYTES:
            raise NoKeys(f"GitHub's page of keys is longer than {_MAX_BYTES // 1024} KB")
    return bytes(page)
