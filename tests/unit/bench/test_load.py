"""The load knows where an answer ends, keeps its rate, and calls late only what it was itself."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.bench import load
from tests.bench.load import Plan, is_whole, measure

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
_REQUEST = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        _ANSWER,
        b"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Total: 10\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_an_answer_is_whole_with_its_last_byte_and_not_before(answer: bytes) -> None:
    assert is_whole(answer)
    assert not any(is_whole(answer[:length]) for length in range(len(answer)))


@contextmanager
def _server(hold_seconds: float) -> Iterator[int]:
    """Answers one connection, each request after so long, in two pieces; its port."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with closing(connection):
            while connection.recv(4096):
                time.sleep(hold_seconds)
                connection.sendall(_ANSWER[:20])
                time.sleep(0.001)
                connection.sendall(_ANSWER[20:])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
    thread.join()


def test_a_steady_rate_is_kept_and_what_the_server_holds_is_not_the_loads_own() -> None:
    with _server(0.02) as port:
        result = measure(Plan(port=port, request=_REQUEST, connections=1, warmup_seconds=0.1, seconds=0.5, rate=10))

    assert (result.requests, result.requests_per_second, result.errors) == (6, 10, 0)
    assert result.served_p50_milliseconds >= 20
    assert result.p50_milliseconds >= result.served_p50_milliseconds
    assert result.worst[0][1] == pytest.approx(1000 * (result.slowest[0][1] - result.slowest[0][0]), abs=0.1)


def test_how_many_requests_a_rate_has_is_the_same_whenever_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, begin = time.perf_counter, 16.0
    assert begin + 0.01 + 0.05 > begin + 6 / 100, "rounded, the end is after the seventh request would be due"
    shift = begin - clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + shift)
    with _server(0) as port:
        plan = Plan(port=port, request=_REQUEST, connections=1, warmup_seconds=0.01, seconds=0.05)
        with closing(load._Clients(plan)) as clients:
            assert len(load._at_rate(plan, clients, begin, 100)) == 6


def test_a_request_that_waits_for_a_connection_waits_for_the_server() -> None:
    with _server(0.05) as port:
        result = measure(Plan(port=port, request=_REQUEST, connections=1, warmup_seconds=0, seconds=0.2, rate=100))

    # the twentieth was due after 0.19 s, and sent when the nineteen before it were answered
    assert result.requests == 20
    assert result.worst[0][1] >= 800
    assert result.served_p99_milliseconds >= 800
