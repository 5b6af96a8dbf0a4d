"""`make bench-sizes`: what calls take in a large lab beside small ones, in turns, one at a time.

Small: the stack's own fleet, 10,000 ended jobs of the asking user, one waiting job. Wide: the same with 1,000 nodes, as
some answers tell of each node. Large: 1,000 nodes, 1,000,000 ended jobs of 500 users, 100,000 of them the asking
user's, and 50,000 that wait. All nodes are cordoned, so that what waits is looked at in each round of the queue and
stays.

`python -m tests.bench.sizes fill` fills the labs and keeps them in the folder BENCH_LABS; `measure` measures them
there, however often and with whatever code. Without a word both happen, in a folder that goes at the end.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec

from deploy.local.cluster_part import DEMO_FLEET
from tests.bench.stopping import end_in_order
from tests.support.harness import eventually
from tests.support.stack import LocalStack

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CALLS = int(os.environ.get("BENCH_CALLS", "60"))
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
"""Of the large lab; less than 1 to try this out."""
_START_SECONDS = 300.0
_BITE = 50_000
_PAGE = 50
_FAILED = 5_000
"""One in so many of the asking user's jobs has failed."""
_COPY_JOBS = (
    "INSERT INTO jobs SELECT (jsonb_populate_record(one, jsonb_build_object('id', given.id, 'user_id', $3 + given.turn "
    "% $4, 'created_at', one.created_at - given.turn * interval '1 second'))).* "
    "FROM jobs AS one, unnest($1::uuid[]) WITH ORDINALITY AS given(id, turn) WHERE one.id = $2"
)
_COPY_ENTRIES = (
    "INSERT INTO places SELECT (jsonb_populate_record(one, jsonb_build_object('job_id', given.id, 'user_id', $3 + "
    "given.turn % $4, 'submitted_at', one.submitted_at - given.turn * interval '1 second'))).* "
    "FROM places AS one, unnest($1::uuid[]) WITH ORDINALITY AS given(id, turn) WHERE one.job_id = $2 "
    "ON CONFLICT DO NOTHING"  # who looks for waiting jobs without an entry may have been faster
)


@dataclass(frozen=True, kw_only=True)
class Size:
    name: str
    nodes: int
    """0: the stack's own fleet."""
    own: int
    """Ended jobs of the asking user."""
    others: int
    users: int
    waiting: int


SMALL = Size(name="small", nodes=0, own=10_000, others=0, users=1, waiting=0)
WIDE = Size(name="wide", nodes=int(1_000 * SCALE), own=10_000, others=0, users=1, waiting=0)
LARGE = Size(
    name="large",
    nodes=int(1_000 * SCALE),
    own=int(100_000 * SCALE),
    others=int(900_000 * SCALE),
    users=500,
    waiting=int(50_000 * SCALE),
)
SIZES = (SMALL, WIDE, LARGE)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A stack that was filled."""

    size: Size
    jobs: httpx.AsyncClient
    capacity: httpx.AsyncClient
    ended: str
    waiting: str

    async def timed(self, method: str, path: str, body: object = None, *, service: str = "jobs") -> float:
        """Milliseconds until the answer is there."""
        client = self.jobs if service == "jobs" else self.capacity
        began = time.perf_counter()
        answer = await client.request(method, path, json=body)
        took = 1000 * (time.perf_counter() - began)
        answer.raise_for_status()
        return took


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """What a lab that was filled is asked with and for."""

    key: str
    ended: str
    waiting: str


async def fill(stack: LocalStack, size: Size) -> Filled:
    """An ended and a waiting job of the asking user, and as many copies of them as the size says."""
    cluster = stack.cluster_api()
    user = await stack.login("bench")
    ended = await user.submit(command="true", gpu_count=1)
    await user.wait(ended)
    for node in cluster.list_node().items:
        cluster.patch_node(node.metadata.name, {"spec": {"unschedulable": True}})
    waiting = await user.submit(command="true", gpu_count=1)
    await _await_entry(stack, waiting)
    own = int(await stack.user_id("bench"))
    one = Owners(first=own, count=1)
    others = Owners(first=own + 1, count=size.users)
    own_ids = _new_ids(size.own)
    await _copy(stack, _Copies("jobs", _COPY_JOBS, ended, own_ids), one)
    await stack.execute("jobs", "UPDATE jobs SET status = 'failed' WHERE id = ANY($1)", own_ids[::_FAILED])
    await _copy(stack, _Copies("jobs", _COPY_JOBS, ended, _new_ids(size.others)), others)
    ids = _new_ids(size.waiting)
    # what waits at capacity without a job would be taken for lost
    await _copy(stack, _Copies("jobs", _COPY_JOBS, waiting, ids), others)
    await _copy(stack, _Copies("capacity", _COPY_ENTRIES, waiting, ids), others)
    for service in ("jobs", "capacity"):
        await stack.execute(service, "VACUUM ANALYZE")
    return Filled(key=user.key, ended=ended, waiting=waiting)


async def _await_entry(stack: LocalStack, job_id: str) -> None:
    connection = await asyncpg.connect(stack.dsn("capacity"))
    query = "SELECT true FROM places WHERE job_id = $1 AND ready"
    await eventually(lambda: connection.fetchval(query, UUID(job_id)), "the queue has the waiting job")
    await connection.close()


@dataclass(frozen=True, kw_only=True)
class Owners:
    """Users of consecutive ids."""

    first: int
    count: int


@dataclass(frozen=True)
class _Copies:
    """Of a job's row in a service's table, under these ids."""

    service: str
    statement: str
    job_id: str
    ids: list[UUID]


def _new_ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


async def _copy(stack: LocalStack, copies: _Copies, owners: Owners) -> None:
    connection = await asyncpg.connect(stack.dsn(copies.service))
    for first in range(0, len(copies.ids), _BITE):
        some = copies.ids[first : first + _BITE]
        await connection.execute(copies.statement, some, UUID(copies.job_id), owners.first, owners.count)
        print(f"{copies.service}: {first + len(some)} of {len(copies.ids)} rows", flush=True)
    await connection.close()


@contextmanager
def _running(size: Size, folder: Path) -> Iterator[LocalStack]:
    """A stack of this size, on what its folder has."""
    nodes = ",".join(["p5.48xlarge"] * size.nodes) if size.nodes else DEMO_FLEET
    stack = LocalStack(folder / size.name, GPUDEV_LOG_LEVEL="warning", GPUDEV_NODES=nodes)
    try:
        stack.start(seconds=_START_SECONDS)
        yield stack
    finally:
        stack.stop()


def fill_all(folder: Path) -> None:
    """Fill the labs that are not filled yet, one after the other."""
    for size in SIZES:
        known = folder / f"{size.name}.json"
        if not known.exists():
            with _running(size, folder) as stack:
                known.write_bytes(msgspec.json.encode(asyncio.run(fill(stack, size))))
            print(f"{size.name}: filled", flush=True)


@contextmanager
def lab(size: Size, folder: Path) -> Iterator[Lab]:
    """A lab that was filled."""
    filled = msgspec.json.decode((folder / f"{size.name}.json").read_bytes(), type=Filled)
    with _running(size, folder) as stack:
        headers = {"Authorization": f"Bearer {filled.key}"}
        clients = {
            service: httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{stack.parts()[f'{service}-1'].port}",
                headers=headers,
                timeout=60,
                trust_env=False,
            )
            for service in ("jobs", "capacity")
        }
        yield Lab(
            size=size, jobs=clients["jobs"], capacity=clients["capacity"], ended=filled.ended, waiting=filled.waiting
        )


def _page(number: int) -> str:
    return f"/v1/jobs?limit={_PAGE}&offset={_PAGE * (number - 1)}"


async def _submit(lab: Lab) -> tuple[float, float]:
    """A submit, and the cancel of its job."""
    body = {"image": "debian:12", "instance_type": "p5.48xlarge", "duration_hours": 1, "command": "true"}
    began = time.perf_counter()
    answer = await lab.jobs.post("/v1/jobs/submit", json=body)
    took = 1000 * (time.perf_counter() - began)
    answer.raise_for_status()
    return took, await lab.timed("POST", f"/v1/jobs/{answer.json()['job_id']}/cancel")


READS: dict[str, Callable[[Lab], Awaitable[float]]] = {
    "get": lambda lab: lab.timed("GET", f"/v1/jobs/{lab.ended}"),
    "list, first page": lambda lab: lab.timed("GET", _page(1)),
    # the small lab has 200
    "list, page 1,000": lambda lab: lab.timed("GET", _page(min(1_000, lab.size.own // _PAGE))),
    "list, completed": lambda lab: lab.timed("GET", _page(1) + "&status=completed"),
    "list, failed": lambda lab: lab.timed("GET", _page(1) + "&status=failed"),
    "list, queued": lambda lab: lab.timed("GET", _page(1) + "&status=queued"),
    "availability": lambda lab: lab.timed("GET", "/v1/gpu/availability", service="capacity"),
    "cluster status": lambda lab: lab.timed("GET", "/v1/cluster/status", service="capacity"),
    "explain": lambda lab: lab.timed("GET", f"/v1/jobs/{lab.waiting}/explain"),
}


async def measure(labs: list[Lab]) -> None:
    """A line for each call."""
    taken: dict[str, dict[str, list[float]]] = {
        name: {lab.size.name: [] for lab in labs} for name in (*READS, "submit", "cancel")
    }
    for _ in range(ROUNDS):
        for lab in labs:
            for name, read in READS.items():
                taken[name][lab.size.name] += [await read(lab) for _ in range(CALLS)]
            for _ in range(CALLS):
                submit, cancel = await _submit(lab)
                taken["submit"][lab.size.name].append(submit)
                taken["cancel"][lab.size.name].append(cancel)
    print(f"{'ms: median, p99':<20}" + "".join(f"{lab.size.name:>10} {'':>8}" for lab in labs) + "   ratios to small")
    for name, found in taken.items():
        figures = [_figures(found[lab.size.name]) for lab in labs]
        columns = "".join(f"{median:>10.2f} {p99:>8.2f}" for median, p99 in figures)
        print(f"{name:<20}{columns}   " + " ".join(f"{median / figures[0][0]:.2f}" for median, _ in figures[1:]))


def _figures(taken: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    return statistics.median(taken), sorted(taken)[int(len(taken) * 0.99)]


def measure_all(folder: Path) -> None:
    """Print the table."""
    with ExitStack() as running:
        asyncio.run(measure([running.enter_context(lab(size, folder)) for size in SIZES]))


def main(step: str | None) -> None:
    """Do one step, in the folder of the labs, or both, in one that goes at the end."""
    end_in_order()
    steps = {"fill": fill_all, "measure": measure_all}
    if step is not None:
        steps[step](Path(os.environ["BENCH_LABS"]))
        return
    with tempfile.TemporaryDirectory(prefix="gpudev-labs-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        for each in steps.values():
            each(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
