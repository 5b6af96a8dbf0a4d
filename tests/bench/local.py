"""`make bench-local`: how soon the local stack is ready, what it takes at rest, and how soon a job runs.

At rest: CPU time over BENCH_SECONDS (60) and a share of the memory, by part. Jobs: one alone and 20 submitted at once,
BENCH_ROUNDS (5) times, from the client's call to the answer of a held read that says `active`; the parts of that time
by the job's own history, and the CPU time of all 20 by part of the stack, but for what has ended of the pods by then.
"""

import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import asyncpg

from tests.bench.cpu import cpu_by_process
from tests.bench.stopping import end_in_order
from tests.support.stack import ApiUser, LocalStack, running_stack, until, users

SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
_TYPES = ("p5.48xlarge", "p4d.24xlarge")
_JOBS = 20
_SETTLE_SECONDS = 15.0
_PARTS = "SELECT status, min(at) AS at FROM job_history WHERE job_id = $1 GROUP BY status"


def start_seconds() -> tuple[float, float]:
    """Of the first start, which makes the database, and of a start on what is there."""
    with running_stack(GPUDEV_LOG_LEVEL="warning") as stack:
        first = _ready_seconds(stack)
        stack.stop()
        stack.state.env.unlink(missing_ok=True)
        return first, stack.start()


def _ready_seconds(stack: LocalStack) -> float:
    """Between the start of the process and the moment at which the stack said that it is ready."""
    running = stack.state.running()
    assert running is not None
    ticks = int(Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    began = time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
    return stack.state.env.stat().st_mtime - began


def show_rest(stack: LocalStack) -> None:
    """A line for each part: of one core, and its share of memory."""
    running = stack.state.running()
    assert running is not None
    roots = {"make run": running.pid} | {name: part.pid for name, part in stack.parts().items()}
    before = {name: cpu_by_process((pid,)) for name, pid in roots.items()}
    time.sleep(SECONDS)
    used = {name: cpu_by_process((pid,)) for name, pid in roots.items()}
    own = set(used["make run"]) - set().union(*(used[name] for name in roots if name != "make run"))
    total_cpu = total_memory = 0.0
    for name in roots:
        pids = own if name == "make run" else used[name]
        cpu = sum(used[name][pid] - before[name].get(pid, 0.0) for pid in pids) / SECONDS
        memory = sum(map(_memory, pids))
        total_cpu, total_memory = total_cpu + cpu, total_memory + memory
        print(f"{name:<20} {100 * cpu:6.2f} % {memory:8.1f} MB")
    print(f"{'all':<20} {100 * total_cpu:6.2f} % {total_memory:8.1f} MB")


def _memory(pid: int) -> float:
    """Megabytes; what processes share is divided among them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


async def run_job(user: ApiUser, instance_type: str) -> tuple[str, float]:
    """Id of a job, and seconds from the submit until its owner was told that it is active."""
    began = time.perf_counter()
    job_id = await user.submit(instance_type=instance_type, gpu_count=1, command="sleep 600")
    held: dict[str, str] = {}
    while True:
        answer = await user.client.get(f"/v1/jobs/{job_id}", headers=held)
        if answer.status_code == 200 and answer.json()["status"] == "active":
            return job_id, time.perf_counter() - began
        held = {"Prefer": "wait=20", "If-None-Match": answer.headers["etag"]}


async def show_jobs(stack: LocalStack) -> None:
    """Time to a running pod, and where it goes."""
    alone: list[float] = []
    taken: list[float] = []
    parts: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    async with users(stack, "bench") as (user,):
        free = await user.free()
        for _ in range(ROUNDS):
            job = await run_job(user, _TYPES[0])
            alone.append(job[1])
            await _cancel(user, [job], free)
            before = _cpu_of_parts(stack)
            jobs = await asyncio.gather(*(run_job(user, _TYPES[number % len(_TYPES)]) for number in range(_JOBS)))
            for name, seconds in _cpu_of_parts(stack).items():
                cpu[name].append(seconds - before[name])
            taken += [seconds for _, seconds in jobs]
            await _note_parts(stack, [job_id for job_id, _ in jobs], parts)
            await _cancel(user, jobs, free)
    _show("one alone, submit to active", alone)
    _show(f"{_JOBS} at once, as told", taken)
    for name, found in parts.items():
        _show(f"  {name}", found)
    print("CPU seconds:", ", ".join(f"{name} {statistics.median(found):.2f}" for name, found in cpu.items()))


async def _cancel(user: ApiUser, jobs: Sequence[tuple[str, float]], free: int) -> None:
    for job_id, _ in jobs:
        (await user.client.post(f"/v1/jobs/{job_id}/cancel")).raise_for_status()
    await until(lambda: _is(user, free), "all GPUs given back", seconds=60)


def _cpu_of_parts(stack: LocalStack) -> dict[str, float]:
    return {name: sum(cpu_by_process((part.pid,)).values()) for name, part in stack.parts().items()}


async def _is(user: ApiUser, free: int) -> bool:
    return await user.free() == free


async def _note_parts(stack: LocalStack, job_ids: Sequence[str], parts: dict[str, list[float]]) -> None:
    connection = await asyncpg.connect(stack.dsn("jobs"))
    for job_id in job_ids:
        at = {row["status"]: row["at"].timestamp() for row in await connection.fetch(_PARTS, UUID(job_id))}
        job = await connection.fetchrow("SELECT created_at, launched_at FROM jobs WHERE id = $1", UUID(job_id))
        parts["submitted to GPUs granted"].append(at["preparing"] - job["created_at"].timestamp())
        parts["granted to active"].append(at["active"] - at["preparing"])
    await connection.close()


def _show(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    print(f"{name:<28} p50 {p50:6.3f} s  p99 {p99:6.3f} s  ({len(ordered)} jobs)")


def main() -> None:
    """Print all of it."""
    end_in_order()
    first, again = start_seconds()
    print(f"ready after {first:.1f} s the first time, {again:.1f} s again")
    with running_stack(GPUDEV_LOG_LEVEL="warning") as stack:
        time.sleep(_SETTLE_SECONDS)
        show_rest(stack)
        asyncio.run(show_jobs(stack))


if __name__ == "__main__":
    main()
