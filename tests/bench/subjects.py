"""What a case is sent to: a stack of this checkout or of an earlier commit, or the bare reference."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx

from deploy.local import part as parts
from deploy.local.ingress import Ingress
from deploy.local.ports import free_ports
from shared.routes import SERVICES
from tests.bench.cases import Case
from tests.support.stack import ROOT, ApiUser, LocalStack, running_stack, users

JOBS = 10_000


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where one request goes."""

    port: int
    request: str
    processes: tuple[int, ...]
    """Those whose CPU time, with that of all their descendants, is what it costs."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One of those that are compared."""

    name: str
    stack: LocalStack
    """Whose tables are read, also by the reference."""
    key: str
    job: str
    direct: dict[str, int]
    """Service to the port of its process."""
    ingress: int
    bare: bool = False
    processes: tuple[int, ...] = field(default=())

    def target(self, case: Case, way: str) -> Target:
        """Of a case, `direct` to the service or through the `ingress`."""
        path = f"/v1/jobs/{case.bare}" if self.bare else None
        return Target(
            port=self.direct[case.service] if way == "direct" else self.ingress,
            request=case.request(self.key, self.job, path=path),
            processes=self.processes,
        )


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A worktree of a commit, which goes with the block. It runs on the packages that are installed here."""
    with tempfile.TemporaryDirectory(prefix="gpudev-bench-") as folder:
        path = Path(folder) / "checkout"
        _git("worktree", "add", "--quiet", "--detach", str(path), commit)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True)


@contextmanager
def stack_of(name: str, code: Path = ROOT) -> Iterator[Subject]:
    """A stack of the checkout `code`, with a user who has 10,000 ended jobs."""
    with running_stack(checkout=code, GPUDEV_LOG_LEVEL="warning") as stack:
        user, job = asyncio.run(_prepare(stack))
        running = stack.state.running()
        assert running is not None
        yield Subject(
            name=name,
            stack=stack,
            key=user.key,
            job=job,
            direct={service: stack.parts()[f"{service}-1"].port or 0 for service in SERVICES},
            ingress=stack.port,
            processes=(running.pid,),
        )


async def _prepare(stack: LocalStack) -> tuple[ApiUser, str]:
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
def reference_of(subject: Subject) -> Iterator[Subject]:
    """The bare reference on the tables of a subject, with an ingress like the stack's own before it."""
    with (
        _reference_server(subject) as server,
        ingress(subject.stack, {service: [server.port] for service in SERVICES}) as front,
    ):
        yield Subject(
            name="bare",
            stack=subject.stack,
            key=subject.key,
            job=subject.job,
            direct=dict.fromkeys(SERVICES, server.port),
            ingress=front.port,
            bare=True,
            processes=(*subject.processes, server.pid, front.pid),
        )


@dataclass(frozen=True)
class _Server:
    port: int
    pid: int


@contextmanager
def _reference_server(subject: Subject) -> Iterator[_Server]:
    """The reference on the server program that the services have."""
    port = free_ports(1)[0]
    environment = {
        **os.environ,
        "BENCH_JOBS": subject.stack.dsn("jobs"),
        "BENCH_CAPACITY": subject.stack.dsn("capacity"),
        "BENCH_JOB": subject.job,
    }
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--no-ws", "--log-level", "warning"]
    application = ["--interface", "asgi", "--factory", "tests.bench.reference:create_app"]
    process = subprocess.Popen([sys.executable, "-m", "granian", *application, *arguments], cwd=ROOT, env=environment)
    try:
        _await_answer(port)
        yield _Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _await_answer(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/get", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the reference does not answer"
            time.sleep(0.1)
        else:
            return


@contextmanager
def ingress(stack: LocalStack, backends: Mapping[str, Sequence[int]]) -> Iterator[_Server]:
    """One like the stack's own before other servers: service to ports."""
    own_port, error_port = free_ports(2)
    front = Ingress(
        directory=stack.state.root / f"bench-ingress-{own_port}",
        port=own_port,
        backends=backends,
        error_port=error_port,
        read_seconds=20,
    )
    part = front.part(stack.state.logs / f"bench-ingress-{own_port}.log")
    process = parts.spawn(part)
    try:
        parts.await_ready(process, part)
        yield _Server(front.port, process.pid)
    finally:
        parts.stop(process, part)
