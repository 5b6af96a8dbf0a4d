"""`make bench-placement`: durable leases a second, and the latency of availability and explain, by the queue's length.

Real PostgreSQL with its durability on, 1,000 nodes of 8 GPUs, jobs of 1, 2, 4 and 8 GPUs. The reference, in the same
run, is bare asyncpg that writes the same rows of `leases` in transactions of the same size, and nothing else.
"""

import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from deploy.local.ports import free_ports
from deploy.local.postgres import DURABLE, Postgres
from deploy.local.state import new_password
from services.capacity.context import Context
from services.capacity.domain.availability import count_availability
from services.capacity.domain.estimates import MOST_JOBS
from services.capacity.operations.announce import announce_queue
from services.capacity.operations.explain import explain_job
from services.capacity.operations.read import read_snapshot
from services.capacity.operations.schedule import MOST_GRANTS, schedule_jobs
from shared.database import Database, migrate
from tests.support.capacity import Capacity
from tests.support.servers import PostgresServer, ServerProcess

NODES = 1000
QUEUE_LENGTHS = (1_000, 10_000, 50_000)
_SIZES = (1, 1, 2, 1, 4, 1, 2, 8)
_NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)


async def fill(connection: Any, waiting: int) -> None:
    """An empty fleet and this many jobs in the queue."""
    await connection.execute("TRUNCATE nodes, places, leases, line_counts, outbox")
    await connection.executemany(
        "INSERT INTO nodes (name, uid, resource_version, gpu_type, gpus, ready, schedulable, version, seen_at) "
        "VALUES ($1, $1, 1, 'h100', 8, true, true, 1, $2)",
        [(f"node-{number:04}", _NOW) for number in range(NODES)],
    )
    columns = (
        "job_id",
        "state",
        "user_id",
        "gpu_type",
        "gpu_count",
        "duration_seconds",
        "submitted_at",
        "ready",
        "cancelling",
        "status",
        "job_version",
        "epoch",
    )
    await connection.copy_records_to_table(
        "places",
        columns=columns,
        records=[
            (
                UUID(int=number),
                "waiting",
                number % 200,
                "h100",
                _SIZES[number % 8],
                3600,
                _NOW + timedelta(seconds=number),
                True,
                False,
                "queued",
                1,
                0,
            )
            for number in range(waiting)
        ],
    )
    await connection.execute("ANALYZE places")
    await connection.execute("ANALYZE nodes")


async def measure_latency(context: Context) -> float:
    """Median of availability, in ms."""
    taken = []
    for _ in range(40):
        began = time.perf_counter()
        count_availability(await read_snapshot(context.database))
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


async def schedule_all(context: Context) -> tuple[int, float]:
    """Rounds until nothing more is placed: jobs and seconds."""
    placed, began = 0, time.perf_counter()
    while True:
        done = await schedule_jobs(context, now=_NOW)
        placed += len(done.granted)
        if not done.more:
            return placed, time.perf_counter() - began


async def measure_explain(context: Context, connection: Any) -> float:
    """Slowest of the head, the last of those with an estimate, and the last of all, in ms; 0 when nobody waits."""
    rows = await connection.fetch("SELECT job_id FROM places WHERE state = 'waiting' ORDER BY submitted_at")
    taken = [0.0]
    for row in [*rows[:1], *rows[MOST_JOBS - 1 : MOST_JOBS], *rows[-1:]]:
        began = time.perf_counter()
        await explain_job(context, job_id=row["job_id"], now=_NOW)
        taken.append(1000 * (time.perf_counter() - began))
    return max(taken)


async def write_bare(connection: Any) -> tuple[int, float]:
    """The same leases by asyncpg alone: jobs and seconds."""
    rows = await connection.fetch("SELECT * FROM leases ORDER BY job_id, gpu_index")
    await connection.execute("TRUNCATE leases")
    jobs: dict[UUID, list[Any]] = {}
    for row in rows:
        jobs.setdefault(row["job_id"], []).append(tuple(row))
    kept, began = list(jobs.values()), time.perf_counter()
    for first in range(0, len(kept), MOST_GRANTS):
        batch = [row for job in kept[first : first + MOST_GRANTS] for row in job]
        async with connection.transaction():
            await connection.executemany("INSERT INTO leases VALUES ($1, $2, $3, $4, $5)", batch)
    return len(kept), time.perf_counter() - began


async def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        postgres = Postgres(directory=Path(folder) / "postgres", port=free_ports(1)[0], password=new_password())
        postgres.initialise()
        process = ServerProcess(postgres.part(Path(folder) / "postgres.log", DURABLE))
        process.start()
        try:
            await _measure(PostgresServer(postgres.dsn(), process))
        finally:
            process.stop()


async def _measure(server: PostgresServer) -> None:
    dsn = server.make_service_database("capacity")
    await asyncio.to_thread(migrate.upgrade, "capacity", dsn)
    database, connection = Database(dsn, pool_size=3), await asyncpg.connect(dsn)
    context = Capacity(dsn, database).context
    await fill(connection, 10)
    print(f"availability with 10 waiting: {await measure_latency(context):.1f} ms (median)")
    heads = f"{'waiting':>8} {'placed':>7} {'jobs/s':>8} {'bare/s':>8} {'ratio':>6} {'avail. ms':>10} {'tell s':>7}"
    print(f"{heads} {'explain ms':>11}")
    for waiting in QUEUE_LENGTHS:
        await fill(connection, waiting)
        latency = await measure_latency(context)
        jobs, seconds = await schedule_all(context)
        began = time.perf_counter()
        await announce_queue(context, now=_NOW)
        told = time.perf_counter() - began
        explained = await measure_explain(context, connection)
        bare, bare_seconds = await write_bare(connection)
        rate, reference = jobs / seconds, bare / bare_seconds
        rates = f"{rate:>8.0f} {reference:>8.0f} {rate / reference:>6.2f}"
        print(f"{waiting:>8} {jobs:>7} {rates} {latency:>10.1f} {told:>7.2f} {explained:>11.0f}")
    await connection.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main())
