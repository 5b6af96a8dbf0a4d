"""How a service asks auth about a key: over NATS, and straight over HTTP while NATS is away.

Submits must go on while the broker is down, also for keys that no service remembers. Only the hash of a key travels,
and the second way asks for a token that only the services have.
"""

import hmac
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import structlog
from litestar import Controller, Request, post
from litestar.di import NamedDependency

from shared.contracts.auth import VERIFY_SUBJECT, Identity, VerifyReply, VerifyRequest
from shared.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from shared.messaging import Broker, call_rpc
from shared.web.authentication import PUBLIC, Verify
from shared.web.validation import decode_body

log = structlog.get_logger(__name__)

_PATH = "/internal/verify"
_TOKEN_HEADER = "X-GPUDev-Internal-Token"  # noqa: S105 - the name of a header
_SECONDS = 2.0


def verify_by_rpc(broker: Broker, second_way: Verify | None = None) -> Verify:
    """Ask auth over NATS; while that does not answer, by `second_way` if there is one."""

    async def verify(key_hash: str) -> Identity:
        try:
            reply = await call_rpc(broker, VERIFY_SUBJECT, VerifyRequest(key_hash), VerifyReply)
        except Unavailable:
            if second_way is None:
                raise
            return await second_way(key_hash)
        return identity_of(reply)

    return verify


def verify_by_http(urls: Sequence[str], token: str) -> Verify:
    """Ask auth's replicas in turn over HTTP.

    Args:
        urls: Where they answer inside the deployment; not the public address.
        token: Of the services among themselves.
    """

    async def verify(key_hash: str) -> Identity:
        for url in urls:
            try:
                async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
                    answer = await client.post(url + _PATH, json={"key_hash": key_hash}, headers={_TOKEN_HEADER: token})
                    answer.raise_for_status()
                reply = msgspec.json.decode(answer.content, type=VerifyReply)
            except (httpx.HTTPError, msgspec.DecodeError) as error:
                log.warning("verify_by_http_failed", error=type(error).__name__)
                continue
            return identity_of(reply)
        raise Unavailable("Keys cannot be checked now, try again shortly", retry_after_seconds=2)

    return verify


def identity_of(reply: VerifyReply) -> Identity:
    """The identity in auth's reply.

    Raises:
        Unauthenticated: The key is unknown, expired or revoked.
        Forbidden: Its user is disabled.
    """
    if reply.identity is not None:
        return reply.identity
    raise Forbidden("This user is disabled") if reply.refusal == "forbidden" else Unauthenticated


async def answer_verify(verify: Verify, request: VerifyRequest) -> VerifyReply:
    """Auth's reply about a key, for both ways."""
    try:
        return VerifyReply(identity=await verify(request.key_hash))
    except Unauthenticated:
        return VerifyReply(refusal="unauthenticated")
    except Forbidden:
        return VerifyReply(refusal="forbidden")


class VerifyController(Controller):
    """Auth's end of the second way; without the token there is no such path."""

    opt = {PUBLIC: True}  # noqa: RUF012 - Litestar's class attribute
    include_in_schema = False

    @post(_PATH, status_code=200)
    async def verify(
        self,
        request: Request[Any, Any, Any],
        verify_key: NamedDependency[Verify],
        internal_token: NamedDependency[str],
    ) -> VerifyReply:
        """What the RPC answers."""
        given = request.headers.get(_TOKEN_HEADER, "")
        if not internal_token or not hmac.compare_digest(given.encode(), internal_token.encode()):
            raise NotFound("Path")
        return await answer_verify(verify_key, decode_body(await request.body(), VerifyRequest))
