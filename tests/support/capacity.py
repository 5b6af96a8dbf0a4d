"""The capacity service on real servers, and a scripted Kubernetes API whose watches break on request."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web

from services.capacity.app import create_app
from services.capacity.context import Context, KnownFleet
from services.capacity.domain.availability import TypeAvailability, count_availability
from services.capacity.domain.fleet import NodeFacts
from services.capacity.domain.placement import SchedulingPolicy
from services.capacity.operations.announce import announce_queue
from services.capacity.operations.apply_job_events import Versioned, apply_job_events
from services.capacity.operations.read import read_snapshot
from services.capacity.operations.record_cluster import record_nodes
from services.capacity.operations.schedule import RoundOutcome, schedule_jobs
from services.capacity.settings import CapacitySettings
from services.capacity.storage import tables
from shared.contracts.events import CloudEvent, EventData
from shared.contracts.jobs import JobEnded, JobEvent, JobStatus, JobSubmitted
from shared.database import Database, Statement, migrate
from shared.database.tables import outbox
from shared.messaging.outbox import envelope
from tests.support.harness import empty, new_secret_keys
from tests.support.servers import PostgresServer

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
_EVENTS = Statement(
    sa.select(outbox)
    .where(outbox.c.entity_id == sa.bindparam("entity_id"), outbox.c.type.like("dev.gpudev.capacity.%"))
    .order_by(outbox.c.id)
)
_LEASES = Statement(sa.select(tables.leases).order_by(tables.leases.c.node, tables.leases.c.gpu_index))
_ENTRY = Statement(sa.select(tables.queue_entries).where(tables.queue_entries.c.job_id == sa.bindparam("job_id")))


def facts(name: str, gpu_type: str | None = "h100", gpus: int = 8, **changes: Any) -> NodeFacts:
    """A healthy node."""
    node = NodeFacts(
        name=name,
        uid=f"uid-{name}",
        resource_version=1,
        instance_type=None,
        gpu_type=gpu_type,
        zone=None,
        gpus=gpus,
        ready=True,
        schedulable=True,
    )
    return msgspec.structs.replace(node, **changes)


def submitted(gpu_count: int = 8, gpu_type: str = "h100", *, at: datetime = NOW, **changes: Any) -> JobSubmitted:
    """A job's first event."""
    event = JobSubmitted(
        job_id=uuid4(),
        user_id=1,
        username="alice",
        status=JobStatus.QUEUED,
        instance_type="p5.48xlarge",
        gpu_type=gpu_type,
        gpu_count=gpu_count,
        duration_seconds=3600,
        submitted_at=at,
        waits_for_disk=False,
    )
    return msgspec.structs.replace(event, **changes)


def about(event: JobEvent, kind: type[JobEvent], status: JobStatus, **fields: Any) -> JobEvent:
    """A later event of the same job."""
    return kind(job_id=event.job_id, user_id=event.user_id, username=event.username, status=status, **fields)


def ended(event: JobEvent, *, epoch: int = 1) -> JobEvent:
    """The job's last event."""
    return about(event, JobEnded, JobStatus.COMPLETED, ended_at=NOW, epoch=epoch)


@dataclass
class Bell:
    """Counts how often it is rung."""

    rung: int = 0
    listener: Callable[[], None] | None = None
    """Called with each ring."""

    def wake(self) -> None:
        """Ring."""
        self.rung += 1
        if self.listener is not None:
            self.listener()


@dataclass
class Capacity:
    """The service's operations on a database of their own; no loop runs."""

    dsn: str
    database: Database
    scheduler: Bell = field(default_factory=Bell)
    announcer: Bell = field(default_factory=Bell)
    outbox: Bell = field(default_factory=Bell)
    sequences: dict[UUID, int] = field(default_factory=dict)
    policy: SchedulingPolicy = field(default_factory=SchedulingPolicy)
    submitted: list[JobSubmitted] = field(default_factory=list)
    known_fleet: KnownFleet = field(default_factory=KnownFleet)

    @property
    def context(self) -> Context:
        """What the operations work with; times are the test's own."""
        return Context(
            database=self.database,
            outbox=self.outbox,
            settings=capacity_settings(),
            policy=self.policy,
            clock=partial(datetime.now, UTC),
            scheduler=self.scheduler,
            announcer=self.announcer,
            known_fleet=self.known_fleet,
        )

    async def nodes(self, *nodes: NodeFacts, now: datetime = NOW) -> int:
        """Kubernetes says this of these nodes."""
        return await record_nodes(self.context, nodes, complete=True, now=now)

    async def apply(self, event: JobEvent, *, sequence: int | None = None) -> None:
        """An event of the jobs service arrives; its sequence is the next of the job."""
        if sequence is None:
            sequence = self.sequences[event.job_id] = self.sequences.get(event.job_id, 0) + 1
        await self.apply_together((event, sequence))

    async def apply_together(self, *events: tuple[JobEvent, int]) -> None:
        """Events of the jobs service, with their sequences, arrive in one batch."""
        async with self.database.transaction() as tx:
            await apply_job_events(self.context, tx, [Versioned(*one) for one in events], now=NOW)

    async def submit(self, gpu_count: int = 8, gpu_type: str = "h100", **changes: Any) -> JobSubmitted:
        """A job is submitted."""
        event = submitted(gpu_count, gpu_type, **changes)
        await self.apply(event)
        self.submitted.append(event)
        return event

    async def schedule(self, now: datetime = NOW) -> RoundOutcome:
        """Rounds of the scheduler until nothing is left to do, and then a round of announcements."""
        outcome = await schedule_jobs(self.context, now=now)
        while outcome.more:
            outcome = await schedule_jobs(self.context, now=now)
        if outcome.ran:
            await announce_queue(self.context, now=now)
        return outcome

    async def entry_row(self, job_id: UUID) -> Any:
        """The job's row."""
        return await self.database.fetch_one(_ENTRY, job_id=job_id)

    async def leases(self) -> list[tuple[str, int, UUID]]:
        """Every lease: node, index, job."""
        return [(row["node"], row["gpu_index"], row["job_id"]) for row in await self.database.fetch_all(_LEASES)]

    async def leased_by(self, job_id: UUID) -> list[tuple[str, int]]:
        """Node and index of each GPU of a job."""
        return [(node, index) for node, index, owner in await self.leases() if owner == job_id]

    async def events(self, entity_id: object) -> list[CloudEvent]:
        """Capacity's events about a job, node or GPU type, oldest first."""
        rows = await self.database.fetch_all(_EVENTS, entity_id=str(entity_id))
        return [envelope(row, "/gpudev/capacity") for row in rows]

    async def told(self, entity_id: object) -> list[str]:
        """Names of those events."""
        return [event.type.split(".")[3] for event in await self.events(entity_id)]

    async def available(self, gpu_type: str = "h100") -> TypeAvailability:
        """What the endpoint would say of a type."""
        types = count_availability(await read_snapshot(self.context.database))
        return {entry.gpu_type: entry for entry in types}[gpu_type]


@pytest.fixture(scope="session")
def capacity_schema(postgres_server: PostgresServer) -> Iterator[str]:
    """Capacity's migrated schema."""
    dsn = postgres_server.make_service_database("capacity")
    migrate.upgrade("capacity", dsn)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
async def capacity_dsn(capacity_schema: str) -> str:
    """The schema, empty."""
    await empty(capacity_schema)
    return capacity_schema


@pytest.fixture
async def capacity(capacity_dsn: str) -> AsyncIterator[Capacity]:
    """The operations on an empty schema."""
    capacity = Capacity(capacity_dsn, Database(capacity_dsn, pool_size=6))
    yield capacity
    await capacity.database.close()


def capacity_settings(**changes: Any) -> CapacitySettings:
    """Settings with nothing behind them."""
    settings = CapacitySettings(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        nats_url="nats://127.0.0.1:1",
        secret_keys=new_secret_keys(),
        log_level="error",
        watch_seconds=2.0,
    )
    return msgspec.structs.replace(settings, **changes)


class ScriptedCluster:
    """The few paths of the Kubernetes API that capacity reads, with the ways in which they fail in the field.

    Not a simulator: nothing runs, nothing is validated. It exists for what a well-behaved API server cannot be asked
    for: silence on an open connection, an empty list that is wrong, a 410 on every watch.
    """

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[str, dict[str, Any]] = {"nodes": {}, "pods": {}}
        self.history: list[tuple[int, str, str, Any]] = []
        self.failing: int | None = None
        """Status of every answer; None: it works."""
        self.watch_status: int | None = None
        """Status told inside each watch; None: watches work."""
        self.silent = False
        """Watches stay open, past their end, and say nothing."""
        self.empty_lists = False
        self.lists = 0
        self.gets: list[str] = []
        self._changed = asyncio.Condition()
        self._closed = False

    async def close(self) -> None:
        """End every watch."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def put_node(self, name: str, instance_type: str = "p5.48xlarge", gpus: int = 8, **spec: Any) -> None:
        """Make or change a node."""
        ready = str(spec.pop("ready", True))
        await self._put(
            "nodes",
            name,
            {
                "metadata": {"name": name, "labels": {"node.kubernetes.io/instance-type": instance_type}},
                "spec": spec,
                "status": {
                    "allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)},
                    "conditions": [{"type": "Ready", "status": ready}],
                },
            },
        )

    async def put_pod(self, name: str, node: str | None, gpus: int, phase: str = "Running", **metadata: Any) -> None:
        """Make or change a pod; `cpu` is what it asks for besides."""
        limits = {"nvidia.com/gpu": str(gpus), "cpu": metadata.pop("cpu", "0")}
        await self._put(
            "pods",
            name,
            {
                "metadata": {"name": name, "namespace": "elsewhere", **metadata},
                "spec": {"nodeName": node, "containers": [{"name": "main", "resources": {"limits": limits}}]},
                "status": {"phase": phase},
            },
        )

    async def remove(self, kind: str, name: str) -> None:
        """Delete an object."""
        removed = self.objects[kind].pop(name)
        await self._record(kind, "DELETED", removed)

    async def _put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        known = self.objects[kind].get(name)
        body["metadata"]["uid"] = known["metadata"]["uid"] if known else str(uuid4())
        self.objects[kind][name] = body
        await self._record(kind, "MODIFIED" if known else "ADDED", body)

    async def _record(self, kind: str, event: str, body: dict[str, Any]) -> None:
        async with self._changed:
            self.version += 1
            body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
            if event != "DELETED":
                self.objects[kind][body["metadata"]["name"]] = body
            self.history.append((self.version, kind, event, body))
            self._changed.notify_all()

    def application(self) -> web.Application:
        """The API."""
        application = web.Application()
        application.router.add_get("/api/v1/{kind}", self._answer)
        application.router.add_get("/api/v1/nodes/{name}", self._node)
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.failing is not None:
            return web.Response(status=self.failing)
        kind = request.match_info["kind"]
        if request.query.get("watch") in {"true", "True"}:
            return await self._watch(request, kind)
        self.lists += 1
        items = [] if self.empty_lists else list(self.objects[kind].values())
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _node(self, request: web.Request) -> web.Response:
        if self.failing is not None:
            return web.Response(status=self.failing)
        name = request.match_info["name"]
        self.gets.append(name)
        node = self.objects["nodes"].get(name)
        if node is None:
            status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": f'nodes "{name}" not found'}
            return web.json_response(status, status=404)
        return web.json_response(node)

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.watch_status is not None:
            status = {"kind": "Status", "code": self.watch_status, "reason": "Expired"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                await self._stream(response, kind, int(request.query["resourceVersion"]))
        except TimeoutError:
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or not self.silent)
        return response

    async def _stream(self, response: web.StreamResponse, kind: str, since: int) -> None:
        while not self._closed:
            pending = [entry for entry in self.history if entry[0] > since]
            since = self.version
            for _, of, event, body in pending:
                if of == kind:
                    await response.write(json.dumps({"type": event, "object": body}).encode() + b"\n")
            async with self._changed:
                await self._changed.wait_for(partial(self._has_news, since))

    def _has_news(self, since: int) -> bool:
        return self._closed or (self.version > since and not self.silent)


@asynccontextmanager
async def scripted_cluster(directory: Path) -> AsyncIterator[tuple[ScriptedCluster, str]]:
    """A scripted API on a port of its own, and the path of its kubeconfig."""
    cluster = ScriptedCluster()
    runner = web.AppRunner(cluster.application(), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    path = directory / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "test", "user": {"token": "unused"}}],
            }
        )
    )
    try:
        yield cluster, str(path)
    finally:
        await cluster.close()
        await runner.cleanup()


@asynccontextmanager
async def serving(settings: CapacitySettings) -> AsyncIterator[httpx.AsyncClient]:
    """One replica with its loops, on the event loop of the test (Litestar's test client has one of its own)."""
    app: Any = create_app(settings)
    up, done = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            up.set()
            await done.wait()

    living = asyncio.create_task(live())
    await up.wait()
    try:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://capacity.local") as client:
            yield client
    finally:
        done.set()
        await living


def cloud_event(data: EventData, sequence: int) -> CloudEvent:
    """An event as the jobs service would publish it."""
    return CloudEvent(
        id=uuid4(),
        source="/gpudev/jobs",
        type=data.type_name(),
        subject=data.entity_id,
        time=datetime.now(UTC),
        sequence=sequence,
        messageid=sequence,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )


def later(**span: float) -> datetime:
    """A time after NOW."""
    return NOW + timedelta(**span)
