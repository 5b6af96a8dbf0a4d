"""The connection to NATS: made in the background, kept for ever, honest about being away."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError
from nats.protocol.parser import PERMISSIONS_ERR

from shared.background import wait_until_set
from shared.contracts.events import STREAM, SUBJECT_ROOT
from shared.errors import BrokerUnavailable
from shared.messaging.credentials import CredentialsError, UserCredentials
from shared.settings import SettingsError

log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 0.25
_REQUEST_SECONDS = 5.0
_MAX_AGE_SECONDS = 7 * 24 * 3600
DUPLICATE_WINDOW_SECONDS = 600
UNREACHABLE = (nats.errors.Error, OSError, TimeoutError, APIError)
"""Every way in which nats-py says that the broker, or JetStream on it, did not do what was asked."""


class _LastingClient(Client):
    """Connects again whatever a server says as it ends a connection.

    nats-py would stay closed for ever when a user's JWT has expired, or when a server has begun to ask for another
    password; the credentials are read at each connect, and may be good again.
    """

    async def _process_err(self, err_msg: str) -> None:
        if PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)  # of one subject: the connection stays
            return
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _attempt_reconnect(self) -> None:
        while True:
            try:
                await super()._attempt_reconnect()
            except Exception as error:  # noqa: BLE001 - nats-py goes on trying after some errors, and ends after others
                await self._error_cb(error)
                self._status = Client.RECONNECTING
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                return

    async def _select_next_server(self) -> None:
        # addresses that servers have told of, such as of their pods, are of no use for ever: those that did not answer
        # are forgotten, and are told of again when they do
        self._server_pool = [one for one in self._server_pool if not (one.discovered and one.reconnects)]
        await super()._select_next_server()

    async def _connect_to_server(self, s: Any) -> None:
        if self._transport is not None:
            # of an attempt that failed, which nats-py leaves open
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)


class _Authorities:
    """Whom connections trust. The file is read again when it is another: certificate authorities have an end, too.

    Args:
        ca_file: In PEM; None: the machine's own.

    Raises:
        SettingsError: It is of no use now. Later the last one that was is used on.
    """

    def __init__(self, ca_file: str | None) -> None:
        self._file = ca_file
        self._read_at = _version_of(ca_file)
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise SettingsError(f"GPUDEV_NATS_CA_FILE cannot be read: {type(error).__name__}") from error

    def context(self) -> ssl.SSLContext:
        """For a connection that is made now."""
        version = _version_of(self._file)
        if version != self._read_at:
            try:
                self._context = ssl.create_default_context(cafile=self._file)
                self._read_at = version
            except OSError as error:
                log.warning("broker_authorities_kept", error=type(error).__name__)
        return self._context


def _version_of(file: str | None) -> tuple[int, int, int] | None:
    """Of a file's content; None: it is not there, or none is meant."""
    try:
        state = None if file is None else Path(file).stat()
    except OSError:
        return None
    return None if state is None else (state.st_ino, state.st_size, state.st_mtime_ns)


class _TlsClient(_LastingClient):
    """Never says a password to a server that offers no TLS, where nats-py would go on in clear.

    Args:
        authorities: Asked at each connect.
    """

    def __init__(self, authorities: _Authorities) -> None:
        super().__init__()
        self._authorities = authorities

    async def _connect_to_server(self, s: Any) -> None:
        self.options["tls"] = self._authorities.context()
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


class Broker:
    """One NATS connection of a service.

    Args:
        url: nats:// or tls:// URL with user and password; several are joined by commas.
        name: Of this connection, seen by operators.
        inbox: Prefix of the subjects on which it is answered: the one that its user may listen to.
        stream_replicas: Copies of the event stream.
        stream_max_bytes: Size at which the oldest events leave it.
        ca_file: Certificate authorities of the server, in PEM; with it, as with tls://, the connection has TLS or is
            none. None: the machine's own.

    Raises:
        SettingsError: The file cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        inbox: str = "_INBOX",
        stream_replicas: int = 1,
        stream_max_bytes: int = 1 << 30,
        ca_file: str | None = None,
        credentials_file: str | None = None,
    ) -> None:
        self._servers = url.split(",")
        self._tls = _tls(self._servers, ca_file)
        self._user = _user(credentials_file)
        self._name = name
        self._inbox = inbox
        self.stream = StreamConfig(
            name=STREAM,
            subjects=[f"{SUBJECT_ROOT}.>"],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            max_age=_MAX_AGE_SECONDS,
            max_bytes=stream_max_bytes,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            num_replicas=stream_replicas,
        )
        """What the event stream is to be."""
        self._client: Client | None = None
        self._began = asyncio.Event()
        self._jetstream: JetStreamContext | None = None
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether the connection is up now."""
        return self._client is not None and self._client.is_connected

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            BrokerUnavailable: There is no connection now. Nothing is buffered meanwhile: the outbox is the buffer.
        """
        if self._client is None or not self._client.is_connected:
            raise BrokerUnavailable
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream on the connected client; raises as `client` does."""
        if self._jetstream is None:
            self._jetstream = self.client.jetstream(timeout=_REQUEST_SECONDS)
        if not self.connected:
            raise BrokerUnavailable
        return self._jetstream

    async def begun(self, seconds: float) -> None:
        """Return once there was a connection, or after so long.

        A replica takes requests while it is still connecting for the first time: they wait for that rather than fail.
        """
        await wait_until_set(self._began, seconds)

    async def ask(self) -> None:
        """Return when JetStream answers. A connection may be up for 10 s after the broker has stopped answering.

        Raises:
            BrokerUnavailable: There is no connection, or it does not answer.
        """
        try:
            await self.jetstream.stream_info(STREAM)
        except NotFoundError:
            return  # it is made with the first event
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__) from error

    def on_connect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` after the first connect and after each reconnect."""
        self._on_connect.append(callback)

    async def run(self) -> None:
        """Connect, however long it takes, then stay connected until cancelled."""
        while self._client is None:
            try:
                self._client = await self._connect()
            except UNREACHABLE as error:
                log.warning("broker_unreachable", error=type(error).__name__)
                await asyncio.sleep(_RECONNECT_SECONDS)
        await self._connected()
        try:
            await asyncio.Event().wait()
        finally:
            with suppress(*UNREACHABLE):
                await asyncio.wait_for(self._client.close(), 3)

    async def ensure_stream(self) -> StreamInfo:
        """The event stream's state; it is made when it is not there."""
        jetstream = self.jetstream
        try:
            return await jetstream.stream_info(STREAM)
        except NotFoundError:
            log.warning("stream_created", stream=STREAM)
            return await jetstream.add_stream(self.stream)

    async def _connect(self) -> Client:
        client = _LastingClient() if self._tls is None else _TlsClient(self._tls)
        try:
            await client.connect(**self._options())
        except BaseException:
            # also when cancelled: a client that is half connected would keep its socket and its tasks
            await client.close()
            raise
        return client

    def _options(self) -> dict[str, Any]:
        return {
            "servers": self._servers,
            "name": self._name,
            "inbox_prefix": self._inbox,
            "connect_timeout": 2,
            "reconnect_time_wait": _RECONNECT_SECONDS,
            "max_reconnect_attempts": -1,
            "ping_interval": 5,
            "max_outstanding_pings": 2,
            "pending_size": 0,
            "flush_timeout": 2,
            "allow_reconnect": True,
            "error_cb": self._note_error,
            "disconnected_cb": self._note_disconnect,
            "reconnected_cb": self._connected,
            **({} if self._tls is None else {"tls": self._tls.context()}),
            **({} if self._user is None else {"signature_cb": self._user.sign, "user_jwt_cb": self._user.jwt}),
        }

    async def _connected(self) -> None:
        log.info("broker_connected")
        self._began.set()
        for callback in self._on_connect:
            # not awaited here: nats-py's reconnect waits for this callback, and a callback may want to make requests
            task = asyncio.create_task(self._call(callback))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            await callback()
        except (*UNREACHABLE, BrokerUnavailable) as error:
            log.warning("broker_callback_failed", error=type(error).__name__)

    async def _note_error(self, error: Exception) -> None:
        # such as a permission that is lacking; the server's own words name the subject
        log.warning("broker_error", error=type(error).__name__, text=str(error))

    async def _note_disconnect(self, *_: Any) -> None:
        log.warning("broker_disconnected")


def _tls(servers: list[str], ca_file: str | None) -> _Authorities | None:
    """None: whether there is TLS is the server's to say."""
    if ca_file is None and not any(server.strip().startswith("tls://") for server in servers):
        return None
    return _Authorities(ca_file)


def _user(credentials_file: str | None) -> UserCredentials | None:
    """None: the URL says who it is."""
    if credentials_file is None:
        return None
    try:
        return UserCredentials(credentials_file)
    except CredentialsError as error:
        raise SettingsError(f"The file of GPUDEV_NATS_CREDENTIALS_FILE {error}") from error
