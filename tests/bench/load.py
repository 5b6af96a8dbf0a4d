"""HTTP load over raw sockets, in a process of its own: `python -m tests.bench.load`, a plan on stdin.

A client library would cost more than the servers that are measured. Requests of a steady rate come from clients that
have machines of their own: where the kernel allows it, this process never waits for a core there. How late it was all
the same, it measures itself: the kernel says when an answer came.
"""

import gc
import math
import os
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec

_WORST = 5
_GOOD = frozenset({b"200", b"304"})
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)\r\n")
"""As our services and Traefik write it."""
_CHUNKED = b"transfer-encoding: chunked"
_LAST_CHUNK = b"\r\n0\r\n\r\n"
"""With the end of what comes before it: a header's value may end in 0."""
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
_READ_BYTES = 1 << 16
_ANCILLARY_BYTES = 64
_WAIT_SECONDS = 30.0
"""For anything at all."""
_ROUNDING = 1e-6
"""Of a request: less than that is none."""


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
    core: float
    """Of a core, what the load itself took from those that it measures."""
    errors: float
    """Answers that are neither 200 nor 304."""
    worst: list[tuple[float, float]]
    """The slowest requests: second of the measurement in which each was due, and its milliseconds."""
    measured: tuple[float, float]
    """Beginning and end of what counts, by the monotonic clock."""
    slowest: list[tuple[float, float]]
    """Of the slowest hundredth, when each was due and when its answer was read, by the same clock."""
    pid: int


class _Answer(NamedTuple):
    due: float
    read: float
    late: float
    """Seconds of the load's own, in sending and in reading."""
    status: bytes


class _Connection:
    """One request at a time; what it needs is kept here, since objects for each would take cores from the server."""

    __slots__ = ("_answer", "_clocks", "_due", "_free_since", "_late", "_receive", "_send", "close", "fileno")

    def __init__(self, port: int, clocks: float) -> None:
        """`clocks`: the kernel's time of an answer less this is the monotonic clock's."""
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        connection.setblocking(False)
        self._send, self._receive = connection.sendall, connection.recvmsg
        self.close, self.fileno = connection.close, connection.fileno
        self._clocks = clocks
        self._due = self._late = self._free_since = 0.0
        self._answer = b""

    def send(self, request: bytes, due: float) -> None:
        sent = time.perf_counter()
        self._send(request)
        self._due, self._late = due, sent - max(due, self._free_since)

    def read(self) -> _Answer | None:
        """The answer, if it has come to its end.

        Raises:
            ConnectionError: The server closed the connection.
        """
        data, ancillary, _, _ = self._receive(_READ_BYTES, _ANCILLARY_BYTES)
        if not data:
            raise ConnectionError("the server has closed a connection")
        answer = self._answer + data if self._answer else data
        if not is_whole(answer):
            self._answer = answer
            return None
        self._answer = b""
        self._free_since = read = time.perf_counter()
        return _Answer(self._due, read, self._late + self._late_reading(ancillary, read), answer[9:12])

    def _late_reading(self, ancillary: list[tuple[int, int, bytes]], read: float) -> float:
        for _, kind, value in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                came: float = seconds + nanoseconds / 1e9 - self._clocks
                return max(0.0, read - came)
        return 0.0


class _Clients:
    """Connections that send one request each at a time."""

    def __init__(self, plan: Plan) -> None:
        self._request = plan.request.encode()
        # neither clock is set while a measurement lasts
        clocks = time.clock_gettime(time.CLOCK_REALTIME) - time.perf_counter()
        self._idle = deque(_Connection(plan.port, clocks) for _ in range(plan.connections))
        self._all = {connection.fileno(): connection for connection in self._idle}
        self._readable = select.epoll(plan.connections)
        for number in self._all:
            self._readable.register(number, select.EPOLLIN)

    @property
    def idle(self) -> bool:
        """Whether another request can be sent."""
        return bool(self._idle)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return len(self._idle) < len(self._all)

    def close(self) -> None:
        """End all connections."""
        self._readable.close()
        for connection in self._all.values():
            connection.close()

    def send(self, due: float) -> None:
        """One request, on the connection that nobody has used for longest."""
        self._idle.popleft().send(self._request, due)

    def answers(self, seconds: float | None) -> Iterator[_Answer]:
        """What ends within so long, as soon as something comes.

        Args:
            seconds: None: until something comes.

        Raises:
            ConnectionError: The server closed a connection.
            TimeoutError: It sent nothing for half a minute.
        """
        for number, _ in self._events(seconds):
            connection = self._all[number]
            answer = connection.read()
            if answer is not None:
                self._idle.append(connection)
                yield answer

    def _events(self, seconds: float | None) -> list[tuple[int, int]]:
        if seconds is None:
            events = self._readable.poll(_WAIT_SECONDS)
            if not events:
                raise TimeoutError(f"no answer for {_WAIT_SECONDS:.0f} s")
            return events
        # epoll itself would wait for whole milliseconds
        if seconds > 0 and not select.select((self._readable,), (), (), seconds)[0]:
            return []
        return self._readable.poll(0)


def is_whole(answer: bytes) -> bool:
    """Whether an HTTP/1.1 answer has come to its end."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return False
    length = _LENGTH.search(answer, 0, end + 2)
    if length is not None:
        return len(answer) >= end + len(_HEAD_END) + int(length[1])
    return _CHUNKED not in answer[:end].lower() or answer.endswith(_LAST_CHUNK)


def measure(plan: Plan) -> Result:
    """Send the request over and over on every connection.

    Raises:
        ConnectionError: The server closed a connection.
        TimeoutError: It answered nothing for half a minute.
    """
    with closing(_Clients(plan)) as clients:
        first, spent = time.perf_counter(), time.process_time()
        if plan.rate is None:
            answers = _as_many_as_are_answered(plan, clients, first)
        else:
            answers = _at_rate(plan, clients, first, plan.rate)
        core = (time.process_time() - spent) / (time.perf_counter() - first)
    return _result(plan, first + plan.warmup_seconds, answers, core)


def _as_many_as_are_answered(plan: Plan, clients: _Clients, first: float) -> list[_Answer]:
    now = first
    end = first + plan.warmup_seconds + plan.seconds
    answers: list[_Answer] = []
    while clients.busy or now < end:
        while clients.idle and now < end:
            clients.send(now)
            now = time.perf_counter()
        answers += clients.answers(None)
        now = time.perf_counter()
    return answers


def _at_rate(plan: Plan, clients: _Clients, first: float, rate: float) -> list[_Answer]:
    """Each request has its time, whatever becomes of those before it."""
    now = first
    # those that are due before the end; by sums of the clock's time, which are rounded, there might be one more
    whole = math.ceil(rate * (plan.warmup_seconds + plan.seconds) - _ROUNDING)
    answers: list[_Answer] = []
    sent = 0
    while clients.busy or sent < whole:
        while (due := first + sent / rate) <= now and sent < whole and clients.idle:
            clients.send(due)
            sent += 1
            now = time.perf_counter()
        answers += clients.answers(due - now if clients.idle and sent < whole else None)
        now = time.perf_counter()
    return answers


def _result(plan: Plan, begin: float, answers: list[_Answer], core: float) -> Result:
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
        core=core,
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
