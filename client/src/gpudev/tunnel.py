"""SSH through the API: a WebSocket as a stream of bytes."""

import asyncio
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection as BlockingConnection
from websockets.sync.client import connect as connect_blocking

from gpudev.errors import ConnectionFailed, GpuDevError, error_of

SSH_DONE = 1000
"""Code of a tunnel of which both directions have ended."""
SSH_KEY_ENDED = 4003
"""Of one whose key is no longer good."""
_JOB_OVER, _BROKEN = 4001, 4004
_OPEN_SECONDS = 15.0
_SILENT_SECONDS = 60.0
"""GPU Dev says something every 20 s."""
_BUFFER_BYTES = 1 << 20
_NOT_OPENED = (OSError, TimeoutError, EOFError, InvalidHandshake)


class SshEnded(GpuDevError):
    """The tunnel ended before both sides had; `again`: a new one may be opened at once."""

    def __init__(self, detail: str, *, code: int | None, again: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.again = again


class SshTunnel:
    """The bytes of a job's SSH port. One task may read while another writes.

    Args:
        url: Of the route, with ws:// or wss://.
        api_key: Of the job's owner, or of an operator.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self._connecting = connect(
            url,
            **_settings(api_key),
            write_limit=_BUFFER_BYTES,
            # an answer of the API that is no WebSocket is told as it is, and nothing is tried again here
            process_exception=lambda error: error,
        )
        self._url = url
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> "SshTunnel":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        try:
            self._socket = await self._connecting
        except _NOT_OPENED as error:
            raise _refusal(self._url, error) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def read(self) -> bytes:
        """The next bytes; empty: the job's side has ended.

        Raises:
            SshEnded: The tunnel has, and why.
        """
        try:
            while True:
                message = await asyncio.wait_for(self._connection().recv(), _SILENT_SECONDS)
                if isinstance(message, bytes):
                    return message
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        except (TimeoutError, asyncio.TimeoutError):  # before Python 3.11 these are two
            raise _silent() from None

    async def write(self, data: bytes) -> None:
        """Send bytes; empty: this side has ended.

        Raises:
            SshEnded: The tunnel has, and why.
        """
        try:
            await self._connection().send(data)
        except ConnectionClosed as closed:
            raise _ended(closed) from None

    def _connection(self) -> ClientConnection:
        if self._socket is None:
            raise RuntimeError("the tunnel is not open: use it as an asynchronous context manager")
        return self._socket


class BlockingSshTunnel:
    """The same with blocking calls. One thread may read while another writes.

    Args:
        url: Of the route, with ws:// or wss://.
        api_key: Of the job's owner, or of an operator.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self._url, self._api_key = url, api_key
        self._socket: BlockingConnection | None = None

    def __enter__(self) -> "BlockingSshTunnel":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        try:
            self._socket = connect_blocking(self._url, **_settings(self._api_key)).__enter__()
        except _NOT_OPENED as error:
            raise _refusal(self._url, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def read(self) -> bytes:
        """The next bytes; empty: the job's side has ended.

        Raises:
            SshEnded: The tunnel has, and why.
        """
        try:
            while True:
                message = self._connection().recv(_SILENT_SECONDS)
                if isinstance(message, bytes):
                    return message
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        except TimeoutError:
            raise _silent() from None

    def write(self, data: bytes) -> None:
        """Send bytes; empty: this side has ended.

        Raises:
            SshEnded: The tunnel has, and why.
        """
        try:
            self._connection().send(data)
        except ConnectionClosed as closed:
            raise _ended(closed) from None

    def _connection(self) -> BlockingConnection:
        if self._socket is None:
            raise RuntimeError("the tunnel is not open: use it as a context manager")
        return self._socket


def _settings(api_key: str) -> dict[str, Any]:
    return {
        "additional_headers": {"Authorization": f"Bearer {api_key}"},
        "compression": None,  # SSH's bytes do not get smaller
        "max_size": None,
        "open_timeout": _OPEN_SECONDS,
        # a job that takes nothing holds up the answer too: who is silent altogether is gone (`read`)
        "ping_timeout": None,
    }


def _refusal(url: str, error: Exception) -> GpuDevError:
    if not isinstance(error, InvalidStatus):
        return ConnectionFailed(f"{url} could not be reached ({type(error).__name__}: {error})")
    response = error.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    return error_of(response.status_code, headers, bytes(response.body or b""))


def _silent() -> SshEnded:
    """Of a service that says nothing, not even that it lives."""
    return SshEnded("GPU Dev does not answer any more", code=None, again=True)


def _ended(closed: ConnectionClosed) -> SshEnded:
    if closed.rcvd is None:
        return SshEnded("The connection to GPU Dev broke", code=None, again=True)
    code, reason = closed.rcvd.code, closed.rcvd.reason
    text = {SSH_DONE: "The session has ended", _BROKEN: reason or "The connection to the job broke"}.get(
        code, reason or f"GPU Dev closed the session with code {code}"
    )
    return SshEnded(text, code=code, again=code not in {SSH_DONE, _JOB_OVER, SSH_KEY_ENDED})
