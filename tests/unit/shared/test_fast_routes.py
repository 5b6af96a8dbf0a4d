"""Which requests are answered before the framework, and what the framework gets of the others."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from shared.api_key import ApiKey, new_api_key
from shared.audit import Act, current_act
from shared.contracts.auth import Identity
from shared.errors import Conflict, InvalidInput, Problem
from shared.idempotency import IdempotencyKey, Outcome
from shared.web import errors
from shared.web.authentication import IdentityCache
from shared.web.fast_routes import FastRoutes, FastWrite

BODY = b'{"name":"a"}'
PATH = "/v1/things"


class Made(msgspec.Struct):
    name: str


class Door:
    """The layer around an application that says what it was given."""

    def __init__(self) -> None:
        self.key: ApiKey = new_api_key()
        self.identities = IdentityCache(self.verify)
        self.handed_on: list[bytes] = []
        """Bodies that the application read."""
        self.written: list[tuple[Identity, str, IdempotencyKey | None, Act | None]] = []
        self.error: Exception | None = None
        self.replayed = False
        route = FastWrite(
            template=PATH, operation_id="make_thing", most_bytes=100, decode=self.decode, write=self.write
        )
        self.layer = FastRoutes(self.application, self.identities, [route], body_seconds=0.2, proxies=1)

    async def verify(self, _: str) -> Identity:
        return Identity(user_id=7, username="ann", key_id=self.key.key_id, expires_at=datetime(2100, 1, 1, tzinfo=UTC))

    def decode(self, body: bytes) -> str:
        try:
            return msgspec.json.decode(body, type=Made).name
        except msgspec.DecodeError:
            raise InvalidInput([Problem("value_error", ("body",), "bad")]) from None

    async def write(self, who: Identity, name: str, key: IdempotencyKey | None) -> Outcome[Made]:
        self.written.append((who, name, key, current_act()))
        if self.error is not None:
            raise self.error
        return Outcome(Made(name), self.replayed)

    async def application(self, _: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.handed_on.append(body)
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(
        self, body: bytes = BODY, *, without: str = "", pieces: int = 1, **scope: Any
    ) -> tuple[int, Any, bytes]:
        """Status, headers and body of an answer. `without`: a header that is left out; `more`: headers besides."""
        sent = {
            "authorization": f"Bearer {self.key.text}",
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        headers = [(name.encode(), value.encode()) for name, value in sent.items() if name != without]
        messages: asyncio.Queue[Any] = asyncio.Queue()
        size = -(-len(body) // max(1, pieces))
        for number in range(pieces):
            piece = body[number * size : (number + 1) * size]
            messages.put_nowait({"type": "http.request", "body": piece, "more_body": number < pieces - 1})
        answer: list[Any] = []

        async def send(message: Any) -> None:
            answer.append(message)

        asked = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "client": ("10.0.0.1", 5),
            **scope,
            "headers": [*headers, *scope.get("headers", ())],
        }
        await self.layer(asked, messages.get if pieces else asyncio.Event().wait, send)  # type: ignore[arg-type]
        return answer[0]["status"], dict(answer[0]["headers"]), answer[1]["body"]


@pytest.fixture
async def door() -> Door:
    door = Door()
    await door.identities.identify(door.key)
    return door


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_usual_write_is_answered_before_the_framework(door: Door, pieces: int) -> None:
    forwarded = (b"x-forwarded-for", b"6.6.6.6, 198.51.100.7")
    status, headers, body = await door.ask(pieces=pieces, headers=[forwarded])
    assert (status, body) == (200, BODY)
    assert headers == {b"content-type": b"application/json", b"content-length": b"12"}
    assert door.handed_on == []
    ((who, name, key, act),) = door.written
    assert (who.username, name, key) == ("ann", "a", None)
    assert act == Act(
        action="make_thing",
        address="198.51.100.7",
        user_id=7,
        username="ann",
        key_prefix=f"gpudev_{door.key.key_id}",
    )


@pytest.mark.parametrize(
    "unusual",
    [
        {"headers": [(b"prefer", b"wait=5")]},
        {"headers": [(b"transfer-encoding", b"chunked")]},
        {"headers": [(b"idempotency-key", b"a b")]},
        {"headers": [(b"idempotency-key", b"a"), (b"idempotency-key", b"b")]},
        {"headers": [(b"authorization", b"Bearer x")]},
        {"query_string": b"a=1"},
        {"path": f"{PATH}/"},
        {"method": "PUT"},
        {"without": "content-type"},
        {"without": "content-length"},
        {"without": "authorization"},
        {"body": b""},
        {"body": b'{"name":5}'},
        {"body": b"x" * 101},
    ],
    ids=str,
)
@pytest.mark.parametrize("pieces", [1, 2])
async def test_whatever_is_unusual_is_the_frameworks_with_its_body(
    door: Door, unusual: dict[str, Any], pieces: int
) -> None:
    status, _, _ = await door.ask(pieces=pieces, **unusual)
    assert (status, door.handed_on, door.written) == (299, [unusual.get("body", BODY)], [])
    assert current_act() is None


async def test_a_key_that_is_not_remembered_is_the_frameworks_to_check(door: Door) -> None:
    door.identities.evict(door.key.key_id)
    assert (await door.ask())[0] == 299
    assert (door.handed_on, door.written) == ([BODY], [])


async def test_a_write_that_was_begun_is_never_handed_on(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    # one that was used before keeps the settings of its first use
    monkeypatch.setattr(errors, "log", structlog.get_logger())
    door.error = Conflict("It is taken", retry_after_seconds=3)
    status, headers, body = await door.ask()
    assert (status, headers[b"retry-after"], body) == (409, b"3", b'{"detail":"It is taken"}')

    door.error = RuntimeError("secret detail")
    with capture_logs() as logs:
        status, headers, body = await door.ask()
    assert (status, b"secret" in body) == (500, False)
    assert [(line["event"], line["path"]) for line in logs] == [("unexpected_error", PATH)]
    assert (len(door.written), door.handed_on) == (2, [])


async def test_a_replay_is_marked_and_equal_requests_have_one_fingerprint(door: Door) -> None:
    door.replayed = True
    for body in (BODY, BODY, b'{"name":"b"}'):
        _, headers, _ = await door.ask(body, headers=[(b"idempotency-key", b"k")])
        assert headers[b"idempotent-replayed"] == b"true"
    first, same, other = [key for _, _, key, _ in door.written]
    assert first == same
    assert first is not None
    assert other is not None
    assert (first.key, first.user_id) == (other.key, other.user_id) == ("k", 7)
    assert first.fingerprint != other.fingerprint


async def test_a_body_that_does_not_come_is_not_waited_for(door: Door) -> None:
    status, _, body = await door.ask(BODY, pieces=0)
    assert (status, body) == (408, b'{"detail":"The body did not arrive in time"}')
    assert (door.written, door.handed_on) == ([], [])
