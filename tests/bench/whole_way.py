"""`make bench-submits`: submits at a steady rate, and where the CPU time of a job goes, process by process.

The whole way of a job is its submit, its event on the stream, and its entry in the queue, with what that entails: its
position is announced, and noted on the job. A backlog that grows at any of these says that the rate is too high.
BENCH_RATE submits a second (600) for BENCH_SECONDS (60); with BENCH_BATCH=500 each request brings so many jobs.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import asyncpg
import msgspec

from tests.bench.cases import CASES, SUBMIT, Case
from tests.bench.cpu import cpu_by_process
from tests.bench.load import Plan, Result
from tests.bench.stopping import end_in_order
from tests.support.stack import ROOT, SERVICES, LocalStack, running_stack, users

RATE = float(os.environ.get("BENCH_RATE", "600"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
BATCH = int(os.environ.get("BENCH_BATCH", "0"))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "16"))
_LOOK_SECONDS = 5.0
_CATCH_UP_SECONDS = float(os.environ.get("BENCH_CATCH_UP_SECONDS", "120"))
_UNPUBLISHED = "SELECT count(*) FROM outbox WHERE published_at IS NULL"


def cpu_by_part(stack: LocalStack) -> dict[str, float]:
    """CPU seconds that each part of the stack has used; PostgreSQL's by the service whose connections they are."""
    used: dict[str, float] = defaultdict(float)
    for part, running in stack.parts().items():
        for pid, seconds in cpu_by_process((running.pid,)).items():
            used[_name(part, pid)] += seconds
    return used


def _name(part: str, pid: int) -> str:
    if part != "postgres":
        return part
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
    except OSError:
        return part
    role = words[1] if len(words) > 1 and words[0] == "postgres:" else ""
    return f"postgres for {role.removeprefix('gpudev_')}" if role.startswith("gpudev_") else f"postgres {role}".strip()


async def backlog(stack: LocalStack) -> dict[str, int]:
    """What waits at each step, and how many have come how far."""
    waiting = {}
    for service in SERVICES:
        connection = await asyncpg.connect(stack.dsn(service))
        waiting[f"{service} outbox"] = await connection.fetchval(_UNPUBLISHED)
        if service == "capacity":
            waiting["entries"] = await connection.fetchval("SELECT count(*) FROM places")
        if service == "jobs":
            waiting["jobs"] = await connection.fetchval("SELECT count(*) FROM jobs")
            waiting["without position"] = await connection.fetchval(
                "SELECT count(*) FROM jobs WHERE status = 'queued' AND queue_position IS NULL"
            )
        await connection.close()
    return waiting


def plan_of(stack: LocalStack, key: str) -> Plan:
    """What is sent to the one replica of jobs."""
    case = next(case for case in CASES if case.name == "submit")
    if BATCH:
        body = '{"jobs":[' + ",".join([SUBMIT] * BATCH) + "]}"
        case = Case(name="batch", service="jobs", line="POST /v1/jobs/batch", bare="submit", body=body)
    return Plan(
        port=stack.parts()["jobs-1"].port or 0,
        request=case.request(key, ""),
        seconds=SECONDS,
        rate=RATE / (BATCH or 1),
        connections=CONNECTIONS,
    )


async def load(stack: LocalStack, plan: Plan) -> Result:
    """Run a plan in a process of its own; the backlog is told meanwhile."""
    began = time.monotonic()
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    told = asyncio.create_task(program.communicate(msgspec.json.encode(plan)))
    while not told.done():
        await asyncio.wait([told], timeout=_LOOK_SECONDS)
        print(f"{time.monotonic() - began:6.1f}", await backlog(stack), flush=True)
    return msgspec.json.decode((await told)[0], type=Result)


async def catch_up(stack: LocalStack) -> float:
    """Seconds until every job has its entry and every event is published."""
    began = time.monotonic()
    while time.monotonic() < began + _CATCH_UP_SECONDS:
        waiting = await backlog(stack)
        if waiting["entries"] >= waiting["jobs"] and not sum(waiting[f"{one} outbox"] for one in SERVICES):
            break
        await asyncio.sleep(0.5)
    return time.monotonic() - began


def show(before: dict[str, float], after: dict[str, float], jobs: int, seconds: float) -> None:
    """A line for each part that did something."""
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    for name, cpu in [*sorted(used.items(), key=lambda one: -one[1]), ("all", sum(used.values()))]:
        if cpu > 0:
            print(f"{name:<28} {1e6 * cpu / jobs:8.0f} us/job {100 * cpu / seconds:6.1f} %")


async def main() -> None:
    """Print the table."""
    end_in_order()
    with running_stack(GPUDEV_LOG_LEVEL="warning") as stack:
        async with users(stack, "bench") as (user,):
            await user.availability()
        before, jobs_before = cpu_by_part(stack), (await backlog(stack))["jobs"]
        began = time.monotonic()
        result = await load(stack, plan_of(stack, user.key))
        took = time.monotonic() - began
        jobs = (await backlog(stack))["jobs"] - jobs_before
        answers = f"answered p50 {result.p50_milliseconds:.1f} ms, p99 {result.p99_milliseconds:.1f} ms"
        print(f"{jobs} jobs in {took:.1f} s: {jobs / took:.0f} a second, {answers}, {result.errors:.0f} errors")
        late = await catch_up(stack)
        print(f"caught up {late:.1f} s later; until then, of two cores:")
        show(before, cpu_by_part(stack), jobs, took + late)


if __name__ == "__main__":
    asyncio.run(main())
