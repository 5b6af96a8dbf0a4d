"""Who a request comes from: the bearer key, checked by auth, remembered for at most 30 s."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from shared.api_key import ApiKey, parse_api_key
from shared.contracts.auth import VERIFY_SUBJECT, Identity, KeyRevoked, VerifyReply, VerifyRequest
from shared.contracts.events import CloudEvent
from shared.errors import Forbidden, GpuDevError, Unauthenticated
from shared.messaging import Broker, call_rpc

PUBLIC = "public"
"""`opt` of a handler that asks for no key."""
CACHE_SECONDS = 30.0
_MAX_CACHED = 10_000

Verify = Callable[[str], Awaitable[Identity]]
"""From the hash of a key to its identity; raises Unauthenticated, Forbidden or Unavailable."""


def verify_by_rpc(broker: Broker) -> Verify:
    """Ask auth over NATS."""

    async def verify(key_hash: str) -> Identity:
        reply = await call_rpc(broker, VERIFY_SUBJECT, VerifyRequest(key_hash), VerifyReply)
        if reply.identity is None:
            raise refusal_error(reply.refusal)
        return reply.identity

    return verify


def refusal_error(refusal: str | None) -> GpuDevError:
    """The error of a refusal in auth's vocabulary."""
    return Forbidden("This user is disabled") if refusal == "forbidden" else Unauthenticated()


class IdentityCache:
    """Identities by the hash of their key: at most 30 s old, never past their end, evicted when the key is revoked.

    The 30 s bound holds when NATS is cut, too; the eviction makes revocation take effect at once.
    """

    def __init__(self, verify: Verify, clock: Callable[[], float] = time.monotonic) -> None:
        self._verify = verify
        self._clock = clock
        self._entries: dict[str, tuple[float, Identity]] = {}
        self._waiting: dict[str, asyncio.Future[Identity]] = {}
        self._evicted_at: dict[str, float] = {}

    async def identify(self, key: ApiKey) -> Identity:
        """The key's identity.

        Raises:
            Unauthenticated: Unknown, expired or revoked.
            Forbidden: The user is disabled.
            Unavailable: Not remembered, and auth does not answer.
        """
        key_hash = key.hash
        entry = self._entries.get(key_hash)
        if entry is not None and entry[0] > self._clock():
            if entry[1].expires_at > datetime.now(UTC):
                return entry[1]
            raise Unauthenticated
        return await self._ask(key_hash)

    def evict(self, key_id: str) -> None:
        """Forget a key that was revoked, and do not remember an answer that is on its way."""
        self._evicted_at[key_id] = self._clock()
        self._entries = {h: entry for h, entry in self._entries.items() if entry[1].key_id != key_id}

    async def _ask(self, key_hash: str) -> Identity:
        # a herd of requests with one new key asks once
        waiting = self._waiting.get(key_hash)
        if waiting is None:
            waiting = asyncio.ensure_future(self._verified(key_hash))
            self._waiting[key_hash] = waiting
            waiting.add_done_callback(lambda _: self._waiting.pop(key_hash, None))
        return await asyncio.shield(waiting)

    async def _verified(self, key_hash: str) -> Identity:
        asked_at = self._clock()
        identity = await self._verify(key_hash)
        if self._evicted_at.get(identity.key_id, -1.0) < asked_at:
            self._make_room()
            self._entries[key_hash] = (asked_at + CACHE_SECONDS, identity)
        return identity

    def _make_room(self) -> None:
        if len(self._entries) < _MAX_CACHED:
            return
        now = self._clock()
        self._entries = {h: entry for h, entry in self._entries.items() if entry[0] > now}
        self._evicted_at = {k: at for k, at in self._evicted_at.items() if at > now - CACHE_SECONDS}
        if len(self._entries) >= _MAX_CACHED:
            self._entries.clear()


class RevocationListener:
    """Evicts revoked keys from a cache; every replica listens for itself, on core NATS.

    Not a durable consumer: each process has its own cache, and what it misses while it is away the 30 s bound covers.
    """

    def __init__(self, broker: Broker, cache: IdentityCache) -> None:
        self._broker = broker
        self._cache = cache
        self._subscribed = False
        broker.on_connect(self._subscribe)

    async def _subscribe(self) -> None:
        if not self._subscribed:
            self._subscribed = True
            await self._broker.client.subscribe(KeyRevoked.subject_filter(), cb=self._on_event)

    async def _on_event(self, message: Any) -> None:
        event = msgspec.json.decode(message.data, type=CloudEvent)
        revoked = msgspec.json.decode(event.data, type=KeyRevoked)
        if revoked.dies_at <= datetime.now(UTC):
            self._cache.evict(revoked.key_id)


class AuthenticationMiddleware:
    """Sets `scope["user"]` to the Identity, or refuses; handlers with `opt={"public": True}` are let through.

    Args:
        app: The next layer.
        cache: Where identities come from.
    """

    def __init__(self, app: ASGIApp, cache: IdentityCache) -> None:
        self._app = app
        self._cache = cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == ScopeType.HTTP and not scope["route_handler"].opt.get(PUBLIC):
            scope["user"] = await self._cache.identify(_bearer_key(scope))
        await self._app(scope, receive, send)


def _bearer_key(scope: HTTPScope) -> ApiKey:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        raise Unauthenticated
    scheme, _, text = given[0].decode("latin-1").partition(" ")
    key = parse_api_key(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        raise Unauthenticated
    return key
