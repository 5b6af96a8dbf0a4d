"""`make bench-logs`: p99 of `GET /v1/jobs/{id}` while 100 clients follow 1,000 running jobs, beside its idle p99.

Both in the same run and in turn, on the same 1,000 jobs, so that a machine that changes its pace changes both.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from deploy.local.ports import accepts, free_ports
from tests.bench.cases import CASES
from tests.bench.followers import FollowPlan
from tests.bench.load import Plan, Result
from tests.bench.stopping import end_in_order
from tests.bench.talking_cluster import PREFIX
from tests.support.fault_proxy import write_kubeconfig
from tests.support.stack import ROOT, ApiUser, LocalStack, running_stack, users

JOBS, CLIENTS = 1000, 100
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
LIMIT = 2.0
"""Followed at most so many times the idle p99."""


@contextmanager
def program(module: str, *arguments: str, **pipes: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of ours for the length of a block."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, **pipes)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def talking_cluster(folder: Path) -> Iterator[Path]:
    """Its kubeconfig."""
    port = free_ports(1)[0]
    with program("tests.bench.talking_cluster", str(port)):
        deadline = time.monotonic() + 20
        while not accepts(port):
            assert time.monotonic() < deadline, "the cluster does not answer"
            time.sleep(0.1)
        write_kubeconfig(folder / "kubeconfig", port)
        yield folder / "kubeconfig"


async def prepare(stack: LocalStack) -> tuple[ApiUser, list[str]]:
    """A user and their running jobs: rows as the service writes them, of pods that the cluster has."""
    async with users(stack, "bench") as (user,):
        first = await user.submit(gpu_count=1)
    connection = await asyncpg.connect(stack.dsn("jobs"))
    rows = await connection.fetch(
        "INSERT INTO jobs SELECT (jsonb_populate_record(one, jsonb_build_object('id', ids.id, 'status', 'active', "
        "'detail', 'running', 'node', 'n1', 'epoch', 1, 'pod_name', pod, 'pod_uid', pod, 'granted_at', now(), "
        "'launched_at', now(), 'expires_at', now() + interval '10 hours', 'due_at', now()))).* FROM jobs AS one, "
        "LATERAL (SELECT gen_random_uuid() AS id FROM generate_series(1, $1)) AS ids, "
        "LATERAL (SELECT $3 || ids.id || '-1' AS pod) AS pods WHERE one.id = $2 RETURNING id",
        JOBS,
        UUID(first),
        PREFIX,
    )
    await connection.execute("ANALYZE jobs")
    await connection.close()
    return user, [str(row["id"]) for row in rows]


@contextmanager
def following(port: int, key: str, jobs: list[str]) -> Iterator[None]:
    """Every job is followed for the length of a block, and none of the streams ends in it."""
    plan = FollowPlan(port=port, key=key, clients=[jobs[number::CLIENTS] for number in range(CLIENTS)])
    with program("tests.bench.followers", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(plan) + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"following\n"
        yield
        assert process.poll() is None, "a stream ended"


def measure(port: int, key: str, job: str) -> Result:
    """One reader of one job, in a process of its own."""
    text = next(case for case in CASES if case.name == "get job").request(key, job)
    plan = msgspec.json.encode(Plan(port=port, request=text, connections=1, seconds=SECONDS))
    command = [sys.executable, "-m", "tests.bench.load"]
    done = subprocess.run(command, cwd=ROOT, input=plan, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Result)


def show(name: str, result: Result) -> None:
    """One line of the table."""
    figures = f"{result.p50_milliseconds:>8.2f} {result.p99_milliseconds:>8.2f} {result.requests_per_second:>8.0f}"
    print(f"{name:<10} {figures} {result.errors:>7}", flush=True)


def main() -> None:
    """Print the table; exit code 1 when reading is slowed more than it may be."""
    end_in_order()
    settings = {
        "GPUDEV_LOG_LEVEL": "warning",
        "GPUDEV_MAX_FOLLOWED_LOGS": str(JOBS),
        # looks at a thousand pods would hide in both figures what the streams cost
        "GPUDEV_RESYNC_SECONDS": "60",
    }
    idle: list[Result] = []
    followed: list[Result] = []
    with (
        TemporaryDirectory() as folder,
        talking_cluster(Path(folder)) as kubeconfig,
        running_stack(GPUDEV_KUBECONFIG=str(kubeconfig), **settings) as stack,
    ):
        user, jobs = asyncio.run(prepare(stack))
        port = stack.parts()["jobs-1"].port or 0
        print(f"{'':<10} {'p50 ms':>8} {'p99 ms':>8} {'req/s':>8} {'errors':>7}", flush=True)
        for _ in range(ROUNDS):
            idle.append(measure(port, user.key, jobs[0]))
            show("idle", idle[-1])
            with following(port, user.key, jobs):
                followed.append(measure(port, user.key, jobs[0]))
            show("followed", followed[-1])
    ratio = statistics.median(
        loaded.p99_milliseconds / alone.p99_milliseconds for alone, loaded in zip(idle, followed, strict=True)
    )
    print(f"p99 while {CLIENTS} clients follow {JOBS} jobs: {ratio:.2f} times the idle one (at most {LIMIT})")
    errors = sum(result.errors for result in idle + followed)
    sys.exit(ratio > LIMIT or errors > 0)


if __name__ == "__main__":
    main()
