"""Clients that follow events: `python -m tests.bench.event_followers`, a plan on stdin, and the lags on stdout."""

import asyncio
import json
import sys
import time
from datetime import datetime

import msgspec
import uvloop

_OPEN_AT_ONCE = 50


class EventPlan(msgspec.Struct, kw_only=True):
    port: int
    keys: list[str]
    """Of each client."""
    seconds: float
    """From when all follow."""


async def follow(plan: EventPlan) -> list[float]:
    """Seconds from each event's time to its coming, of every client together."""
    room = asyncio.Semaphore(_OPEN_AT_ONCE)
    lags: list[float] = []
    begun = 0

    async def one(key: str) -> None:
        nonlocal begun
        async with room:
            reader, writer = await asyncio.open_connection("127.0.0.1", plan.port, limit=1 << 20)
            head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n"
            writer.write(f"GET /v1/events HTTP/1.1\r\n{head}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer.split(b"\r\n")[0], answer
            await reader.readuntil(b"\n\n")
        begun += 1
        if begun == len(plan.keys):
            print("following", flush=True)
        while line := await reader.readline():
            if line.startswith(b"data: "):
                moment = datetime.fromisoformat(json.loads(line[6:])["time"]).timestamp()
                lags.append(time.time() - moment)
        raise ConnectionResetError

    tasks = [asyncio.create_task(one(key)) for key in plan.keys]
    ended, _ = await asyncio.wait(tasks, timeout=plan.seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in ended:
        task.result()
    for task in tasks:
        task.cancel()
    return lags


def main() -> None:
    """Entry."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=EventPlan)
    sys.stdout.write(json.dumps(uvloop.run(follow(plan))) + "\n")


if __name__ == "__main__":
    main()
