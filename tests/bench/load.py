"""HTTP load over raw sockets, in a process of its own: `python -m tests.bench.load`, a plan on stdin.

A client library would cost more than the servers that are measured.
"""

import asyncio
import sys
import time
from itertools import count

import msgspec
import uvloop

_WORST = 5
_GOOD = frozenset({200, 304})


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
    errors: float
    """Answers that are neither 200 nor 304."""
    worst: list[tuple[float, float]]
    """The slowest requests: second of the measurement in which each was due, and its milliseconds."""


async def measure(plan: Plan) -> Result:
    """Send the request over and over on every connection."""
    request = plan.request.encode()
    latencies: list[tuple[float, float]] = []
    answered = errors = 0
    first = time.perf_counter()
    begin = first + plan.warmup_seconds
    end = begin + plan.seconds
    turns = count()

    async def due() -> float:
        """Wait until the next request is to be sent; when that was."""
        now = time.perf_counter()
        if plan.rate is None:
            return now
        at = first + next(turns) / plan.rate
        await asyncio.sleep(max(0.0, at - now))
        return at

    async def client() -> None:
        nonlocal answered, errors
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
        while (started := await due()) < end:
            writer.write(request)
            status = await _read_answer(reader)
            finished = time.perf_counter()
            answered += 1
            if started >= begin:
                latencies.append((finished - started, started - begin))
                errors += status not in _GOOD
        writer.close()

    await asyncio.gather(*(client() for _ in range(plan.connections)))
    latencies.sort()
    return Result(
        requests=answered,
        requests_per_second=len(latencies) / plan.seconds,
        p50_milliseconds=1000 * latencies[len(latencies) // 2][0],
        p99_milliseconds=1000 * latencies[int(len(latencies) * 0.99)][0],
        errors=errors,
        worst=[(round(at, 3), round(1000 * took, 1)) for took, at in latencies[: -_WORST - 1 : -1]],
    )


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        while (size := int((await reader.readline()).strip(), 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readline()
    elif b"content-length:" in lowered:
        start = lowered.index(b"content-length:") + 15
        await reader.readexactly(int(lowered[start : lowered.index(b"\r\n", start)]))
    return int(head[9:12])


def main() -> None:
    """Entry: a plan in, a result out."""

    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(plan))))


if __name__ == "__main__":
    main()
