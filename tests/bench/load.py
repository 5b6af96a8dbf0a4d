"""Closed-loop HTTP load over raw sockets, in a process of its own: `python -m tests.bench.load`, a plan on stdin.

A client library would cost more than the servers that are measured.
"""

import asyncio
import sys
import time

import msgspec
import uvloop


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
    """Answers other than 200."""


async def measure(plan: Plan) -> Result:
    """Send the request over and over on every connection."""
    request = plan.request.encode()
    latencies: list[float] = []
    answered = errors = 0
    due = time.perf_counter()
    begin = time.perf_counter() + plan.warmup_seconds
    end = begin + plan.seconds

    async def client() -> None:
        nonlocal answered, errors, due
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
        while time.perf_counter() < end:
            if plan.rate is not None:
                due += 1 / plan.rate
                await asyncio.sleep(due - time.perf_counter())
            started = time.perf_counter()
            writer.write(request)
            status = await _read_answer(reader)
            finished = time.perf_counter()
            answered += 1
            if started >= begin:
                latencies.append(finished - started)
                errors += status != 200
        writer.close()

    await asyncio.gather(*(client() for _ in range(plan.connections)))
    latencies.sort()
    return Result(
        requests=answered,
        requests_per_second=len(latencies) / plan.seconds,
        p50_milliseconds=1000 * latencies[len(latencies) // 2],
        p99_milliseconds=1000 * latencies[int(len(latencies) * 0.99)],
        errors=errors,
    )


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        while (size := int((await reader.readline()).strip(), 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        start = lowered.index(b"content-length:") + 15
        await reader.readexactly(int(lowered[start : lowered.index(b"\r\n", start)]))
    return int(head[9:12])


def main() -> None:
    """Entry: a plan in, a result out."""

    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(plan))))


if __name__ == "__main__":
    main()
