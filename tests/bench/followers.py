"""Clients that follow logs: `python -m tests.bench.followers`, a plan on stdin; until it is ended."""

import asyncio
import sys

import msgspec
import uvloop

OPEN_AT_ONCE = 20


class FollowPlan(msgspec.Struct, kw_only=True):
    port: int
    key: str
    clients: list[list[str]]
    """The jobs that each of them follows."""


async def follow(plan: FollowPlan) -> None:
    """Say `following` when every log has told something, then read on; a stream that ends ends everything."""
    room = asyncio.Semaphore(OPEN_AT_ONCE)
    told = 0
    jobs = [job for client in plan.clients for job in client]

    async def one(job: str) -> None:
        nonlocal told
        async with room:
            reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
            head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {plan.key}\r\n\r\n"
            writer.write(f"GET /v1/jobs/{job}/logs?follow=true HTTP/1.1\r\n{head}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer.split(b"\r\n")[0], answer
            await reader.readline()
        told += 1
        if told == len(jobs):
            print("following", flush=True)
        while await reader.read(1 << 16):
            pass
        raise ConnectionResetError(job)

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(one(job))


def main() -> None:
    """Entry."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=FollowPlan)
    uvloop.run(follow(plan))


if __name__ == "__main__":
    main()
