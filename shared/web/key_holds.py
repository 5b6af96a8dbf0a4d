"""Answers that last: a key that opened one holds it open only as long as it is good itself.

Every such answer (a stream, a held answer, a session) waits for `KeyHold.ended` beside its own work, and ends when that
does. While one lasts its key is asked about every 2 s, once for all answers of the key, at auth itself and not in the
cache: so it ends within 5 s of the key's end, its revocation or the user's disabling, also while NATS is away, since
then auth is asked directly. While auth cannot be asked at all an answer lasts 30 s more, as a remembered key does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog

from shared.api_key import ApiKey
from shared.background import cancel_all
from shared.clock import Clock, Stopwatch, utc_now
from shared.contracts.auth import Identity
from shared.errors import Forbidden, Unauthenticated, Unavailable
from shared.web.authentication import API_KEY, AuthenticatedRequest, Verify
from shared.web.drain import Drain

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0
UNKNOWN_SECONDS = 30.0
KEY_HOLDS = "key_holds"
"""Of the application's state: its KeyHolds."""
T = TypeVar("T")


class KeyEnded(Unauthenticated):
    """The key that asked for an answer is good no longer; `why`: for its user."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Invalid API key: {why} while the answer was held; the request itself was accepted")
        self.why = why


class KeyHolds:
    """Knows of the keys that hold answers open whether they are still good.

    Args:
        verify: Asks auth.
        drain: Ends answers that wait for news, whatever their key.
        clock: Tells when a key has expired.
        stopwatch: Tells for how long auth has not answered.
    """

    def __init__(
        self, verify: Verify, drain: Drain, *, clock: Clock = utc_now, stopwatch: Stopwatch = time.monotonic
    ) -> None:
        self._clock = clock
        self._stopwatch = stopwatch
        self._verify = verify
        self.drain = drain
        self._held: dict[str, tuple[asyncio.Task[KeyEnded], int]] = {}

    async def ended(self, key: ApiKey, identity: Identity) -> KeyEnded:
        """Wait until the key is no longer good; why."""
        async with self._watched(key, identity) as task:
            return await asyncio.shield(task)

    @asynccontextmanager
    async def _watched(self, key: ApiKey, identity: Identity) -> AsyncIterator["asyncio.Task[KeyEnded]"]:
        task, holders = self._held.get(key.hash, (None, 0))
        if task is None or task.done():
            task, holders = asyncio.create_task(self._watch(key.hash, identity.expires_at)), 0
        self._held[key.hash] = task, holders + 1
        try:
            yield task
        finally:
            await self._let_go(key.hash, task)

    async def _let_go(self, key_hash: str, task: "asyncio.Task[KeyEnded]") -> None:
        current, holders = self._held.get(key_hash, (None, 0))
        if current is not task:
            return
        if holders > 1:
            self._held[key_hash] = task, holders - 1
            return
        del self._held[key_hash]
        await cancel_all([task])

    async def _watch(self, key_hash: str, expires_at: datetime) -> KeyEnded:
        known_at = self._stopwatch()
        while True:
            left = (expires_at - self._clock()).total_seconds()
            if left <= 0:
                return KeyEnded("it has expired")
            await asyncio.sleep(min(CHECK_SECONDS, left))
            asked_at = self._stopwatch()
            try:
                expires_at = (await self._verify(key_hash)).expires_at
            except Unauthenticated:
                return KeyEnded("it was revoked, or has expired")
            except Forbidden:
                return KeyEnded("its user is disabled")
            except (Unavailable, msgspec.DecodeError) as error:
                log.info("held_key_not_checked", error=type(error).__name__)
                if asked_at - known_at > UNKNOWN_SECONDS:
                    return KeyEnded("it could not be checked for 30 s")
            else:
                known_at = asked_at


class KeyHold:
    """The key of one request."""

    def __init__(self, holds: KeyHolds, key: ApiKey, identity: Identity) -> None:
        self._holds = holds
        self._key = key
        self._identity = identity

    async def ended(self) -> KeyEnded:
        """Wait until the key is no longer good; why."""
        return await self._holds.ended(self._key, self._identity)

    async def released(self) -> None:
        """Wait until the replica stops: an answer that waits for news has to end."""
        await self._holds.drain.released()


def key_hold(request: AuthenticatedRequest) -> KeyHold:
    """The hold of the key that a request came with."""
    return KeyHold(request.app.state[KEY_HOLDS], request.scope["state"][API_KEY], request.user)


async def while_key_holds(request: AuthenticatedRequest, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the request's key ends.

    Raises:
        KeyEnded: It has.
    """
    working = asyncio.create_task(work)
    ended = asyncio.create_task(key_hold(request).ended())
    try:
        await asyncio.wait([working, ended], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ended.result()
    finally:
        await cancel_all([working, ended])
