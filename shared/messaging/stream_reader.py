"""Reading the event stream by its sequence, without a consumer: what was read leaves nothing behind at the broker."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from nats.js.errors import NotFoundError

from shared.contracts.events import STREAM, SUBJECT_ROOT
from shared.errors import BrokerUnavailable, InvalidInput, Problem
from shared.messaging.broker import UNREACHABLE, Broker

EVERYTHING = f"{SUBJECT_ROOT}.>"
_AT_ONCE = 64
"""Messages that are asked for before the first of them has come."""
_NO_MESSAGE = 10037
"""JetStream's code: there is no such message; any other absence is the stream's."""
_MARK_BYTES = 8
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")


class Position(msgspec.Struct, frozen=True):
    """Where in the stream a reader is: which event it has read last.

    The mark tells whether it is still that event of that stream: one that was lost and refilled may have others under
    the same sequence, or others before it.
    """

    sequence: int
    """0: before the first event."""
    mark: bytes = bytes(_MARK_BYTES)
    """Of the stream and the event's id; zeros when it is not known, as the stream does not hold the event any more."""

    @property
    def token(self) -> str:
        """As clients have it: opaque, and the same from every replica."""
        return base64.urlsafe_b64encode(self.sequence.to_bytes(8) + self.mark).rstrip(b"=").decode()

    @classmethod
    def read(cls, token: str) -> "Position":
        """The position of a token.

        Raises:
            InvalidInput: It is none of ours.
        """
        if not _TOKEN.fullmatch(token):
            text = "This is no id of an event of this stream"
            raise InvalidInput([Problem("value_error", ("header", "Last-Event-ID"), text)])
        raw = base64.urlsafe_b64decode(token + "==")
        return cls(int.from_bytes(raw[:8]), raw[8:])


class StoredEvent(msgspec.Struct, frozen=True):
    """One message of the stream."""

    sequence: int
    subject: str
    mark: bytes
    former_mark: bytes
    """As releases gave it that did not tell streams apart."""
    body: bytes

    @property
    def position(self) -> Position:
        """Of a reader that has read this event last."""
        return Position(self.sequence, self.mark)


class Bounds(msgspec.Struct, frozen=True):
    """What the stream holds now."""

    created: str
    first: int
    last: int
    """One less than `first` when it holds nothing."""


class StreamReader:
    """Reads the stream from its leader, so never what may be undone.

    Args:
        broker: The service's.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._created = ""
        """Of the stream whose bounds were asked for last; positions are of this one."""

    async def bounds(self) -> Bounds:
        """First and last sequence; the stream is made when it is not there.

        Raises:
            BrokerUnavailable: It does not answer.
        """
        try:
            info = await self._broker.ensure_stream()
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__) from error
        self._created, state = str(info.created), info.state
        return Bounds(self._created, max(1, state.first_seq), state.last_seq)

    async def read(self, after: int, *, subject: str = EVERYTHING) -> Sequence[StoredEvent]:
        """The next events after a sequence, in order and without a gap, as many as come easily; empty at the end.

        Args:
            after: Sequence of the last event that was read.
            subject: Only events on it. What is not everything is read one by one.

        Raises:
            BrokerUnavailable: It does not answer.
        """
        found: list[StoredEvent] = []
        window = 1
        while len(found) < _AT_ONCE:
            # the next one, wherever it is: a message that was deleted leaves a hole
            one = await self._get(after + 1, next_on=subject)
            if one is None:
                return found
            found.append(one)
            after = one.sequence
            if subject != EVERYTHING:
                continue
            window = min(_AT_ONCE, 4 * window)
            for following in await asyncio.gather(*(self._get(after + n) for n in range(1, window))):
                if following is None:
                    break
                found.append(following)
                after = following.sequence
            else:
                continue
            if window < _AT_ONCE:
                return found  # nearly always the end; the next read looks further
        return found

    async def holds(self, position: Position) -> bool:
        """Whether the event that was read last is still where it was, in the same stream.

        Raises:
            BrokerUnavailable: It does not answer.
        """
        found = await self._get(position.sequence)
        return found is not None and position.mark in {found.mark, found.former_mark}

    async def find(self, sequence: int) -> StoredEvent | None:
        """The event of a sequence; None when there is none.

        Raises:
            BrokerUnavailable: It does not answer.
        """
        return await self._get(sequence)

    async def _get(self, sequence: int, next_on: str | None = None) -> StoredEvent | None:
        try:
            message: Any = await self._broker.jetstream.get_msg(
                STREAM, seq=sequence, subject=next_on, next=next_on is not None
            )
        except NotFoundError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise BrokerUnavailable(cause="NoStream") from error
        except UNREACHABLE as error:
            raise BrokerUnavailable(cause=type(error).__name__) from error
        body = message.data or b""
        event_id = (message.headers or {}).get("Nats-Msg-Id")
        name = body if event_id is None else event_id.encode()
        mark, former_mark = _mark(self._created.encode() + name), _mark(name)
        return StoredEvent(message.seq, message.subject, mark, former_mark, body)


def _mark(name: bytes) -> bytes:
    return hashlib.sha256(name).digest()[:_MARK_BYTES]
