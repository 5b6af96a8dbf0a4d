"""Taking what waits for a durable consumer, many events at once.

nats-py's own `fetch` makes two tasks and a random id for each message, which takes longer than handling it does. The
protocol is JetStream's: https://docs.nats.io/reference/reference-protocols/nats_api_reference.
"""

import asyncio
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.errors import APIError

from shared.background import wait_until_set

_ENDS = frozenset({"404", "408"})
"""Statuses that end a request with nothing wrong: no messages, or no more in time."""
_HEARTBEAT = "100"
_SERVER_SECONDS = 0.1
"""By which the server's time for a request is shorter than ours: what it still sends then is not lost on us."""
_PAUSE_SECONDS = 0.02
"""After a message, in which the request's end, or the next message, comes. The server (2.15) does not always end a
request that has brought one: at the end of its time it says that all of them are still to come."""
_BUSY_SECONDS = 0.5
"""After a message, in which another one may come at any moment."""
_BUSY_TAKE_SECONDS = 0.2
"""Of a request in that time: on being closed its end is waited for."""


class Pull:
    """Asks for a consumer's messages, one request at a time.

    Args:
        client: Connected; what is subscribed to on it comes back with its connection.
        stream: Name of the stream.
        durable: Name of the consumer.
    """

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._requests = 0
        self._missing = 0
        """Messages that the request may still bring."""
        self._arrived: list[Msg] = []
        self._ended = asyncio.Event()
        self._came = asyncio.Event()
        """A message, or the request's end."""
        self._refusal: Msg | None = None
        self._subscription: Subscription | None = None
        self._closed = False
        self._arrived_at = -_BUSY_SECONDS
        self._ends_soon = False
        """A request is under way that was made in a busy time."""

    async def open(self) -> None:
        """Begin to listen; once, before the first `take`."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._receive)

    async def close(self) -> None:
        """Let nothing more come; `take` then gives at once what has come, and nothing after that.

        Raises:
            nats.errors.Error: The server does not say that it sends nothing more.
        """
        self._closed = True
        if self._ends_soon:
            # what the server is choosing for it just now, it would send to nobody, and take for under way
            await wait_until_set(self._ended, _BUSY_TAKE_SECONDS)
        try:
            if self._subscription is not None:
                await self._subscription.drain()  # type: ignore[no-untyped-call]
        finally:
            self._ended.set()
            self._came.set()

    async def take(self, most: int, seconds: float) -> list[Msg]:
        """What waits; if nothing does, what comes first in this time. Empty: nothing came.

        Soon after a message it returns sooner, though nothing has come.

        Raises:
            APIError: The server refuses.
            nats.errors.Error: There is no connection.
        """
        clock = asyncio.get_running_loop().time
        self._ends_soon = clock() - self._arrived_at < _BUSY_SECONDS
        if self._ends_soon:
            seconds = min(seconds, _BUSY_TAKE_SECONDS)
        end = clock() + seconds
        # both together: it ends as soon as what waits is sent, and waits for the first when nothing does
        await self._ask(most, seconds, no_wait=True)
        if not self._arrived and (left := end - clock()) > _SERVER_SECONDS:
            await self._ask(1, left, no_wait=False)
        # what an earlier request brought late is among them
        taken, self._arrived = self._arrived[:most], self._arrived[most:]
        return taken

    async def _ask(self, most: int, seconds: float, *, no_wait: bool) -> None:
        self._requests += 1
        self._missing = most - len(self._arrived)
        if self._missing <= 0 or self._closed:
            return
        self._ended.clear()
        self._came.clear()
        if self._arrived:
            self._came.set()
        self._refusal = None
        request: dict[str, Any] = {"batch": self._missing, "expires": round(1e9 * (seconds - _SERVER_SECONDS))}
        if no_wait:
            request["no_wait"] = True
        await self._client.publish(self._subject, msgspec.json.encode(request), f"{self._inbox}.{self._requests}")
        await wait_until_set(self._came, seconds)
        while self._came.is_set() and not self._ended.is_set():
            self._came.clear()
            await wait_until_set(self._came, _PAUSE_SECONDS)
        if self._refusal is not None:
            raise APIError.from_msg(self._refusal)

    async def _receive(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if status is None:
            self._arrived.append(message)
            self._arrived_at = asyncio.get_running_loop().time()
            self._missing -= 1
            if self._missing <= 0:
                self._ended.set()
            self._came.set()
        elif status != _HEARTBEAT and message.subject == f"{self._inbox}.{self._requests}":
            if status not in _ENDS and not self._arrived:
                self._refusal = message
            self._ended.set()
            self._came.set()
