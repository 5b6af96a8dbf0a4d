"""`make bench-events`: from a change to 1,000 clients that follow events, and what that costs the replica.

The lag counts from the time in the event, which is that of the change, before its commit. Reads of a job go on beside
it, at first without the clients.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec

from tests.bench.cpu import cpu_seconds
from tests.bench.event_followers import EventPlan
from tests.support.stack import ROOT, ApiUser, running_stack, users

CLIENTS = int(os.environ.get("BENCH_CLIENTS", "1000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
SUBMITS_A_SECOND = float(os.environ.get("BENCH_SUBMITS", "5"))
USERS = 10
LIMIT_SECONDS = 1.0
_WARM_SECONDS = 60.0


def p99(values: list[float]) -> float:
    """Of many values."""
    return statistics.quantiles(values, n=100)[98]


def megabytes(pid: int) -> float:
    """Of a process, resident."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def load(members: list[ApiUser], seconds: float) -> list[float]:
    """Jobs that are submitted and cancelled, three events each; seconds of each read in between."""
    reads: list[float] = []
    turns = itertools.cycle(members)
    ends = time.monotonic() + seconds
    while (began := time.monotonic()) < ends:
        user = next(turns)
        job_id = await user.submit(attempts=3)
        asked = time.monotonic()
        await user.job(job_id)
        reads.append(time.monotonic() - asked)
        await user.client.post(f"/v1/jobs/{job_id}/cancel")
        await asyncio.sleep(max(0.0, 1 / SUBMITS_A_SECOND - (time.monotonic() - began)))
    return reads


async def measure() -> bool:
    """Print the table; whether the lag is what it may be."""
    settings = {"GPUDEV_MAX_EVENT_STREAMS": str(CLIENTS), "GPUDEV_TOOLS_IMAGE": "", "GPUDEV_LOG_LEVEL": "warning"}
    with running_stack(**settings) as stack:
        async with users(stack, *(f"bench{number}" for number in range(USERS))) as members:
            alone = await load(members, SECONDS / 2)
            part = stack.parts()["jobs-1"]
            before = megabytes(part.pid)
            keys = [user.key for user, _ in zip(itertools.cycle(members), range(CLIENTS), strict=False)]
            plan = EventPlan(port=part.port or 0, keys=keys, seconds=SECONDS + _WARM_SECONDS)
            followers = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.bench.event_followers", cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=1 << 26
            )
            assert followers.stdin is not None
            assert followers.stdout is not None
            followers.stdin.write(msgspec.json.encode(plan) + b"\n")
            assert await followers.stdout.readline() == b"following\n"
            begun = cpu_seconds((part.pid,))
            reads = await load(members, SECONDS)
            cores, memory = (cpu_seconds((part.pid,)) - begun) / SECONDS, megabytes(part.pid)
            lags = json.loads(await followers.stdout.readline())
            await followers.wait()
    print(f"{CLIENTS} clients, {len(lags)} events sent in {SECONDS:g} s")
    print(f"lag: p50 {statistics.median(lags) * 1000:.0f} ms, p99 {p99(lags) * 1000:.0f} ms, most {max(lags):.2f} s")
    print(f"the replica: {cores:.2f} of a core, {memory:.0f} MB ({before:.0f} MB before)")
    print(f"read of a job: p99 {p99(reads) * 1000:.0f} ms, without the clients {p99(alone) * 1000:.0f} ms")
    return p99(lags) < LIMIT_SECONDS and len(lags) > CLIENTS


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure()) else 1)
