"""`make bench`: requests per second and latencies of reads and writes, each beside a bare reference in the same run.

The runs of a pair alternate, so that a machine that changes its pace changes both.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import asyncpg
import httpx
import msgspec

from deploy.local import part as parts
from deploy.local.ingress import Ingress
from deploy.local.ports import free_ports
from shared.routes import SERVICES
from tests.bench.load import Plan, Result
from tests.bench.stopping import end_in_order
from tests.support.stack import ROOT, ApiUser, LocalStack, running_stack, users

JOBS = 10_000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
SUBMIT = b'{"image":"debian:12","instance_type":"p6-b200.48xlarge","duration_hours":1,"command":"true"}'
"""Of a type that the fleet has not: the job stays queued and costs nothing more."""

CASES = (
    ("get job", "jobs", "GET /v1/jobs/{job}", "get"),
    ("list 50 of 10,000", "jobs", "GET /v1/jobs?limit=50", "list"),
    ("availability", "capacity", "GET /v1/gpu/availability", "availability"),
    ("cluster status", "capacity", "GET /v1/cluster/status", "availability"),
    ("submit", "jobs", "POST /v1/jobs/submit", "submit"),
)


HEAD = (
    f"{'':<18} {'way':<8} {'req/s':>7} {'p50 ms':>7} {'p99 ms':>7} | {'bare':>7} {'p50 ms':>7} {'p99 ms':>7} "
    f"| {'ratio':>6} {'errors':>7}"
)


def request(line: str, key: str, job: str) -> str:
    """An HTTP/1.1 request; POSTs carry the submit."""
    body = SUBMIT.decode() if line.startswith("POST") else ""
    return (
        f"{line.format(job=job)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def run(port: int, text: str) -> Result:
    """One measurement in a process of its own."""
    plan = msgspec.json.encode(Plan(port=port, request=text, seconds=SECONDS))
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"], cwd=ROOT, input=plan, capture_output=True, check=True
    )
    return msgspec.json.decode(done.stdout, type=Result)


async def prepare(stack: LocalStack) -> tuple[ApiUser, str]:
    """A user with 10,000 ended jobs, of which one is read."""
    async with users(stack, "bench") as (user,):
        job_id = await user.submit(command="true", gpu_count=1)
        await user.wait(job_id)
    connection = await asyncpg.connect(stack.dsn("jobs"))
    await connection.execute(
        "INSERT INTO jobs SELECT (jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid(), "
        "'created_at', one.created_at - number * interval '1 minute'))).* "
        "FROM jobs AS one, generate_series(1, $1) AS number WHERE one.id = $2",
        JOBS - 1,
        UUID(job_id),
    )
    await connection.execute("ANALYZE")
    await connection.close()
    return user, job_id


@contextmanager
def reference_server(stack: LocalStack, job: str) -> Iterator[int]:
    """The reference on the same server program; its port."""
    port = free_ports(1)[0]
    environment = {
        **os.environ,
        "BENCH_JOBS": stack.dsn("jobs"),
        "BENCH_CAPACITY": stack.dsn("capacity"),
        "BENCH_JOB": job,
    }
    command = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "asgi",
        "--factory",
        "tests.bench.reference:create_app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--loop",
        "uvloop",
        "--no-ws",
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/get", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "the reference does not answer"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def ingress_of(stack: LocalStack, port: int) -> Iterator[int]:
    """An ingress like the stack's own in front of the reference; its port."""
    own_port, error_port = free_ports(2)
    ingress = Ingress(
        directory=stack.state.root / "bench-ingress",
        port=own_port,
        backends={service: [port] for service in SERVICES},
        error_port=error_port,
        read_seconds=20,
    )
    part = ingress.part(stack.state.logs / "bench-ingress.log")
    process = parts.spawn(part)
    try:
        parts.await_ready(process, part)
        yield ingress.port
    finally:
        parts.stop(process, part)


def median(results: list[Result]) -> Result:
    """Median of each figure."""
    fields = Result.__struct_fields__
    return Result(**{name: statistics.median(getattr(result, name) for result in results) for name in fields})


def show(name: str, way: str, result: Result, reference: Result) -> None:
    """One line of the table."""
    ratio = result.requests_per_second / reference.requests_per_second
    print(
        f"{name:<18} {way:<8} {result.requests_per_second:>7.0f} {result.p50_milliseconds:>7.2f} "
        f"{result.p99_milliseconds:>7.2f} | {reference.requests_per_second:>7.0f} {reference.p50_milliseconds:>7.2f} "
        f"{reference.p99_milliseconds:>7.2f} | {ratio:>6.2f} {result.errors + reference.errors:>7.0f}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    end_in_order()
    with running_stack(GPUDEV_LOG_LEVEL="warning") as stack:
        print(f"Filling: {JOBS} jobs ...", flush=True)
        user, job = asyncio.run(prepare(stack))
        ports = {
            service: part.port or 0 for service in ("jobs", "capacity") for part in [stack.parts()[f"{service}-1"]]
        }
        with reference_server(stack, job) as reference_port, ingress_of(stack, reference_port) as ingress_port:
            print(HEAD, flush=True)
            for name, service, line, path in CASES:
                text = request(line, user.key, job)
                bare = request(f"{line.split()[0]} /v1/jobs/{path}", user.key, job)
                pairs = {
                    "direct": ((ports[service], text), (reference_port, bare)),
                    "ingress": ((stack.port, text), (ingress_port, bare)),
                }
                for way, (ours, reference) in pairs.items():
                    measured = [(run(*ours), run(*reference)) for _ in range(ROUNDS)]
                    show(name, way, median([one for one, _ in measured]), median([one for _, one in measured]))


if __name__ == "__main__":
    main()
