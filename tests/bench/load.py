"""HTTP load over raw sockets, in a process of its own: `python -m tests.bench.load`, a plan on stdin.

A client library would cost more than the servers that are measured. Requests of a steady rate come from clients that
have machines of their own: where the kernel allows it, this process never waits for a core there. How late it was all
the same, it measures itself: the kernel says when an answer came.
"""

import gc
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from contextlib import closing, suppress
from dataclasses import dataclass, field

import msgspec

_WORST = 5
_GOOD = frozenset({200, 304})
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"
"""With the end of what comes before it: a header's value may end in 0."""
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
_READ_BYTES = 1 << 18
_WAIT_SECONDS = 30.0
"""For anything at all."""


class Plan(msgspec.Struct, kw_only=True):
    port: int
    request: str
    """The whole HTTP/1.1 request, keep-alive."""
    connections: int = 8
    warmup_seconds: float = 1.0
    seconds: float = 4.0
    rate: float | None = None
    """Requests a second at most, all connections together; None: as many as there are answers."""


class Result(msgspec.Struct, kw_only=True):
    requests: float
    """Answered, those of the warm-up too."""
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    """From when it was due until its answer was read."""
    served_p50_milliseconds: float
    served_p99_milliseconds: float
    """Likewise, without what the load itself was late in sending and in reading."""
    errors: float
    """Answers that are neither 200 nor 304."""
    worst: list[tuple[float, float]]
    """The slowest requests: second of the measurement in which each was due, and its milliseconds."""
    measured: tuple[float, float]
    """Beginning and end of what counts, by the monotonic clock."""
    slowest: list[tuple[float, float]]
    """Of the slowest hundredth, when each was due and when its answer was read, by the same clock."""
    pid: int


@dataclass(slots=True)
class _Request:
    due: float
    sent: float
    late: float
    """Seconds by which the load sent it too late."""
    answer: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Answer:
    due: float
    read: float
    late: float
    """Seconds of the load's own, in sending and in reading."""
    status: int


class _Clients:
    """Connections that send one request each at a time."""

    def __init__(self, plan: Plan) -> None:
        self._request = plan.request.encode()
        self._idle = deque((_connect(plan.port), 0.0) for _ in range(plan.connections))
        self._busy: dict[socket.socket, _Request] = {}
        # the kernel tells by the other clock; neither is set while a measurement lasts
        self._clocks = time.clock_gettime(time.CLOCK_REALTIME) - time.perf_counter()

    @property
    def idle(self) -> bool:
        """Whether another request can be sent."""
        return bool(self._idle)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._busy)

    def close(self) -> None:
        """End all connections."""
        for connection in [*self._busy, *(connection for connection, _ in self._idle)]:
            connection.close()

    def send(self, due: float) -> None:
        """One request, on a connection that nobody uses."""
        connection, free_since = self._idle.popleft()
        sent = time.perf_counter()
        connection.sendall(self._request)
        self._busy[connection] = _Request(due, sent, sent - max(due, free_since))

    def answers(self, seconds: float) -> list[_Answer]:
        """What ends within so long, as soon as something comes.

        Raises:
            ConnectionError: The server closed a connection.
            TimeoutError: It sent nothing for half a minute.
        """
        readable, _, _ = select.select(self._busy, [], [], seconds)
        if not readable and seconds >= _WAIT_SECONDS:
            raise TimeoutError(f"no answer for {_WAIT_SECONDS:.0f} s")
        return [answer for connection in readable if (answer := self._read(connection)) is not None]

    def _read(self, connection: socket.socket) -> _Answer | None:
        data, ancillary, _, _ = connection.recvmsg(_READ_BYTES, 64)
        if not data:
            raise ConnectionError("the server has closed a connection")
        request = self._busy[connection]
        request.answer += data
        if not is_whole(request.answer):
            return None
        read = time.perf_counter()
        came = next((_TIMESPEC.unpack(value) for _, kind, value in ancillary if kind == _SO_TIMESTAMPNS), None)
        late_reading = read - (came[0] + came[1] / 1e9 - self._clocks) if came else 0.0
        del self._busy[connection]
        self._idle.append((connection, read))
        return _Answer(request.due, read, request.late + max(0.0, late_reading), int(request.answer[9:12]))


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return connection


def is_whole(answer: bytearray) -> bool:
    """Whether an HTTP/1.1 answer has come to its end."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return False
    head = bytes(answer[:end]).lower()
    if b"transfer-encoding: chunked" in head:
        return answer.endswith(_LAST_CHUNK)
    _, found, length = head.partition(b"content-length:")
    return not found or len(answer) >= end + len(_HEAD_END) + int(length.split(b"\r\n", 1)[0])


def measure(plan: Plan) -> Result:
    """Send the request over and over on every connection.

    Raises:
        ConnectionError: The server closed a connection.
        TimeoutError: It answered nothing for half a minute.
    """
    with closing(_Clients(plan)) as clients:
        return _measure(plan, clients)


def _measure(plan: Plan, clients: _Clients) -> Result:
    first = time.perf_counter()
    begin = first + plan.warmup_seconds
    end = begin + plan.seconds
    answers: list[_Answer] = []
    sent = 0
    while True:
        now = time.perf_counter()
        due = now if plan.rate is None else first + sent / plan.rate
        while clients.idle and due <= now and due < end:
            clients.send(due)
            sent += 1
            now = time.perf_counter()
            due = now if plan.rate is None else first + sent / plan.rate
        if due >= end and not clients.busy:
            return _result(plan, begin, answers)
        until_next = max(0.0, due - now) if clients.idle and due < end else _WAIT_SECONDS
        answers += clients.answers(until_next)


def _result(plan: Plan, begin: float, answers: list[_Answer]) -> Result:
    counted = [one for one in answers if one.due >= begin]
    slowest = sorted(counted, key=lambda one: one.due - one.read)[: max(1, len(counted) // 100)]
    took = sorted(1000 * (one.read - one.due) for one in counted)
    served = sorted(1000 * (one.read - one.due - one.late) for one in counted)
    return Result(
        requests=len(answers),
        requests_per_second=len(counted) / plan.seconds,
        p50_milliseconds=took[len(took) // 2],
        p99_milliseconds=took[int(len(took) * 0.99)],
        served_p50_milliseconds=served[len(served) // 2],
        served_p99_milliseconds=served[int(len(served) * 0.99)],
        errors=sum(one.status not in _GOOD for one in counted),
        worst=[(round(one.due - begin, 3), round(1000 * (one.read - one.due), 1)) for one in slowest[:_WORST]],
        measured=(begin, begin + plan.seconds),
        slowest=[(one.due, one.read) for one in slowest],
        pid=os.getpid(),
    )


def _never_wait_for_a_core() -> None:
    """Have the kernel run this process whenever it can run, where it may be asked for that."""
    with suppress(AttributeError, PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def main() -> None:
    """Entry: a plan in, a result out."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()
    if plan.rate is not None:
        _never_wait_for_a_core()
    sys.stdout.buffer.write(msgspec.json.encode(measure(plan)))


if __name__ == "__main__":
    main()
