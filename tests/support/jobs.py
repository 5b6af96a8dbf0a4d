"""The jobs service on real servers. Its peers, capacity and disks, are played by the test over real NATS."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from kubernetes import client as kubernetes_client
from kubernetes import config
from litestar import Litestar

from deploy.local.namespace import ensure_namespace
from deploy.local.region import AVAILABILITY_ZONE
from services.jobs import storage
from services.jobs.adapters.github import GitHub
from services.jobs.adapters.kubernetes import Cluster
from services.jobs.app import create_app
from services.jobs.context import Context, WakeUps
from services.jobs.domain.facts import PodGone
from services.jobs.domain.job import Job
from services.jobs.domain.pod import Meta
from services.jobs.operations.insert_jobs import group_of_submissions
from services.jobs.operations.transition import apply_fact
from services.jobs.settings import JobsSettings
from shared.api_key import ApiKey, new_api_key
from shared.clock import utc_now
from shared.contracts.auth import Identity
from shared.contracts.capacity import LeaseGranted
from shared.contracts.disks import CLAIM_SUBJECT, Claim, ClaimReply, ClaimRequest
from shared.contracts.events import CloudEvent, EventData, event_subject
from shared.contracts.jobs import JobStatus
from shared.database import Database, Statement, migrate
from shared.database.tables import outbox
from shared.encryption import Cipher
from shared.errors import Forbidden, Unauthenticated, Unavailable
from shared.messaging import Broker, Relay
from shared.messaging.outbox import envelope
from tests.support.harness import empty, eventually, flushed, new_secret_keys, running
from tests.support.servers import NatsServer, PostgresServer, stand_in_url

Client = httpx.AsyncClient
NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
IMAGE = "docker.io/library/debian:bookworm"
_END = datetime(2100, 1, 1, tzinfo=UTC)
_EVENTS = Statement(sa.select(outbox).where(outbox.c.entity_id == sa.bindparam("job_id")).order_by(outbox.c.id))
_HISTORY = Statement(
    sa.select(storage.tables.job_history.c.status)
    .where(storage.tables.job_history.c.job_id == sa.bindparam("job_id"))
    .order_by(storage.tables.job_history.c.revision)
)
_WORK = ("env_sealed", "request_mac", "due_at", "worked_until", "worked_by")
_ROW = Statement(
    sa.select(*storage.jobs.JOB_COLUMNS, *(storage.tables.jobs.c[name] for name in _WORK))
    .select_from(storage.jobs.WITH_ACCESS)
    .where(storage.tables.jobs.c.id == sa.bindparam("job_id"))
)
_UPDATE = "UPDATE jobs SET {what}, revision = revision + 1 WHERE id = '{job_id}'"


ACTIVE = "status = 'active', launched_at = now(), expires_at = now() + interval '1 hour', detail = 'running'"


def later(**by: float) -> datetime:
    """Now, or so much later."""
    return datetime.now(UTC) + timedelta(**by)


def a_job(**changes: Any) -> Job:
    """A queued job."""
    job = Job(
        id=UUID("3f2a0000-0000-4000-8000-000000000001"),
        user_id=1,
        username="alice",
        image=IMAGE,
        instance_type="p5.48xlarge",
        gpu_type="h100",
        gpu_count=8,
        duration_seconds=3600,
        status=JobStatus.QUEUED,
        submit_message_id=1,
        created_at=NOW,
        updated_at=NOW,
    )
    return msgspec.structs.replace(job, **changes)


def body(**changes: Any) -> dict[str, Any]:
    """A submission."""
    return {"image": IMAGE, "instance_type": "p5.48xlarge", "gpu_count": 1, **changes}


@dataclass
class People:
    """Users and their keys."""

    keys: dict[str, tuple[ApiKey, Identity]] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    """Hashes of the keys of users who are disabled."""
    away: bool = False
    """Auth does not answer."""

    def bearer(self, username: str) -> dict[str, str]:
        """Headers of a user's request; "olga" is an operator."""
        if username not in self.keys:
            identity = Identity(
                user_id=len(self.keys) + 1,
                username=username,
                key_id=username,
                expires_at=_END,
                is_operator=username == "olga",
            )
            self.keys[username] = (new_api_key(), identity)
        return {"Authorization": f"Bearer {self.keys[username][0].text}"}

    async def verify(self, key_hash: str) -> Identity:
        """As auth would."""
        if self.away:
            raise Unavailable("Keys cannot be checked now")
        if key_hash in self.disabled:
            raise Forbidden("This user is disabled")
        for key, identity in self.keys.values():
            if key.hash == key_hash:
                return identity
        raise Unauthenticated


def new_disk_claimed(volume_id: str | None = None) -> ClaimReply:
    """A job has a disk that is ready, and empty."""
    claim = Claim(
        disk_id=uuid4(),
        disk_name="data",
        size_gb=10,
        ready=True,
        volume_id=volume_id or f"vol-{uuid4().hex[:17]}",
        availability_zone=AVAILABILITY_ZONE,
    )
    return ClaimReply(claim=claim)


@dataclass
class JobsWorld:
    """Database, broker and cluster of one test, and what it plays of the other services."""

    settings: JobsSettings
    database: Database
    broker: Broker
    cluster: Cluster
    node: str
    people: People = field(default_factory=People)
    sequences: dict[UUID, int] = field(default_factory=dict)

    @asynccontextmanager
    async def service(self, username: str = "alice", **changes: Any) -> AsyncIterator[Client]:
        """A replica of the service, and a client that sends this user's key."""
        app = create_app(msgspec.structs.replace(self.settings, **changes), self.people.verify)
        # in this loop: Litestar's own test client blocks it, and the peers that the test plays could not answer
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
        async with _living(app), httpx.AsyncClient(transport=transport, base_url="http://jobs") as client:
            client.headers.update(self.people.bearer(username))
            yield client

    def context(self) -> Context:
        """As the service has them, for tests that call operations."""
        relay = Relay(database=self.database, broker=self.broker, service="jobs")
        cipher = Cipher(self.settings.secret_keys)
        return Context(
            database=self.database,
            outbox=relay,
            broker=self.broker,
            cipher=cipher,
            settings=self.settings,
            clock=utc_now,
            wake_ups=WakeUps(self.broker),
            submissions=group_of_submissions(self.database, cipher),
        )

    @asynccontextmanager
    async def disks_answering(self, reply: ClaimReply) -> AsyncIterator[list[ClaimRequest]]:
        """The disks service answers every claim like this; what it was asked."""
        asked: list[ClaimRequest] = []

        async def answer(message: Any) -> None:
            asked.append(msgspec.json.decode(message.data, type=ClaimRequest))
            await message.respond(msgspec.json.encode(reply))

        subscription = await self.broker.client.subscribe(CLAIM_SUBJECT, cb=answer)
        await flushed(self.broker.client)
        yield asked
        await subscription.unsubscribe()

    async def submit(self, client: Client, **changes: Any) -> UUID:
        """Submit a job; its id."""
        answer = await client.post("/v1/jobs/submit", json=body(**changes))
        assert answer.status_code == 200, answer.text
        return UUID(answer.json()["job_id"])

    async def submit_active(self, client: Client, **changes: Any) -> UUID:
        """Submit a job that the table calls active, though it has no pod; its id."""
        job_id = await self.submit(client, **changes)
        await self.update(job_id, ACTIVE)
        return job_id

    async def find_pod_gone(self, job_id: UUID) -> None:
        """Another replica sees that a job's pod is gone, which ends a job that is ending."""
        job = storage.jobs.to_job(await self.row(job_id))
        assert await apply_fact(job=job, fact=PodGone(job.epoch), now=later(), context=self.context()) is not None

    async def publish(self, data: EventData, *, sequence: int, event_id: UUID | None = None) -> UUID:
        """Publish another service's event; its id."""
        event = CloudEvent(
            id=event_id or uuid4(),
            source=f"/gpudev/{data.DOMAIN}",
            type=data.type_name(),
            subject=data.entity_id,
            time=datetime.now(UTC),
            sequence=sequence,
            messageid=1,
            data=msgspec.Raw(msgspec.json.encode(data)),
        )
        await self.broker.jetstream.publish(event_subject(data), msgspec.json.encode(event))
        return event.id

    async def capacity_says(self, data: Any) -> UUID:
        """Publish capacity's next event of a job."""
        sequence = self.sequences[data.job_id] = self.sequences.get(data.job_id, 0) + 1
        return await self.publish(data, sequence=sequence)

    async def grant(self, job_id: UUID, *, epoch: int = 1, node: str | None = None) -> UUID:
        """Capacity gives the job its GPUs."""
        lease = LeaseGranted(job_id=job_id, epoch=epoch, node=node or self.node, gpu_count=1)
        return await self.capacity_says(lease)

    async def row(self, job_id: UUID) -> Any:
        """The whole row."""
        return await self.database.fetch_one(_ROW, job_id=job_id)

    async def update(self, job_id: UUID, what: str) -> None:
        """Transition the row behind the service's back, such as its end for a job that should expire now."""
        await self.database.execute(Statement(sa.text(_UPDATE.format(what=what, job_id=job_id))))

    async def events(self, job_id: UUID) -> list[CloudEvent]:
        """The job's events in the outbox."""
        rows = await self.database.fetch_all(_EVENTS, job_id=str(job_id))
        return [envelope(row, "/gpudev/jobs") for row in rows]

    async def announced(self, job_id: UUID) -> list[str]:
        """Names of the job's events; their versions rise by one."""
        events = await self.events(job_id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return [event.type.split(".")[3] for event in events]

    async def history(self, job_id: UUID) -> list[str]:
        """The statuses that the job went through."""
        return [row["status"] for row in await self.database.fetch_all(_HISTORY, job_id=job_id)]

    async def objects(self, job_id: UUID | None = None) -> list[tuple[str, Meta]]:
        """Pods, services and secrets of ours in the cluster."""
        found = []
        for kind in ("pods", "services", "secrets"):
            metas, _ = await self.cluster.list_objects(kind)
            found += [(kind, meta) for meta in metas if job_id is None or meta.labels["gpudev/job-id"] == str(job_id)]
        return found


@asynccontextmanager
async def _living(app: Litestar) -> AsyncIterator[None]:
    """Start and stop the app in one task, as anyio wants it: pytest-asyncio ends fixtures in another."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            started.set()
            await stop.wait()

    task = asyncio.create_task(live())
    await started.wait()
    try:
        yield
    finally:
        stop.set()
        await task


async def job_of(client: Client, job_id: UUID) -> dict[str, Any]:
    """The job as its owner sees it."""
    answer: httpx.Response = await client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until_status(client: Client, job_id: UUID, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
    """Wait until the job has one of the statuses; the job then."""
    last: dict[str, Any] = {}

    async def reached() -> bool:
        last.update(await job_of(client, job_id))
        return last["status"] in statuses

    try:
        await eventually(reached, f"job is {' or '.join(statuses)}", seconds=seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {last}") from error
    return last


@pytest.fixture(scope="session")
def jobs_schema(postgres_server: PostgresServer) -> Iterator[str]:
    """Jobs' migrated schema."""
    dsn = postgres_server.make_service_database("jobs")
    migrate.upgrade("jobs", dsn)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
async def jobs_dsn(jobs_schema: str) -> str:
    """The schema, empty."""
    await empty(jobs_schema)
    return jobs_schema


@pytest.fixture(scope="session")
def jobs_kubeconfig(request: pytest.FixtureRequest) -> Path:
    """A cluster with GPU nodes: GPUDEV_TEST_KUBECONFIG, else the simulator."""
    if given := os.environ.get("GPUDEV_TEST_KUBECONFIG"):
        return Path(given)
    kubeconfig: Path = request.getfixturevalue("cluster_simulator").kubeconfig
    return kubeconfig


def _core_api(kubeconfig: str) -> Any:
    load: Any = config.load_kube_config
    load(config_file=kubeconfig)
    return kubernetes_client.CoreV1Api()


def first_gpu_node(kubeconfig: str) -> str:
    """Name of a node that has GPUs. Blocks."""
    nodes: Any = _core_api(kubeconfig).list_node(_request_timeout=60).items
    return str(next(n.metadata.name for n in nodes if int(n.status.allocatable.get("nvidia.com/gpu", "0"))))


@asynccontextmanager
async def open_world(dsn: str, nats_url: str, kubeconfig: str, namespace: str) -> AsyncIterator[JobsWorld]:
    """Everything connected and closed again."""
    settings = JobsSettings(
        database_url=dsn,
        nats_url=nats_url,
        secret_keys=new_secret_keys(),
        kubeconfig=kubeconfig,
        namespace=namespace,
        log_level="error",
        grace_seconds=1,
        resync_seconds=1.0,
        sweep_seconds=1.0,
        image_fault_seconds=1.0,
        unschedulable_seconds=0.5,
    )
    database = Database(dsn, pool_size=4)
    broker = Broker(stand_in_url(nats_url), name="test")
    cluster = Cluster(kubeconfig=kubeconfig, namespace=namespace)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        stack.push_async_callback(cluster.close)
        await stack.enter_async_context(running(broker.run))
        await eventually(lambda: broker.connected, "broker connected")
        await broker.ensure_stream()
        yield JobsWorld(settings, database, broker, cluster, "no-node")


@pytest.fixture
async def jobs_world(jobs_dsn: str, nats_server: NatsServer, jobs_kubeconfig: Path) -> AsyncIterator[JobsWorld]:
    """With a namespace of its own in a cluster."""
    namespace = f"jobs-{uuid4().hex[:10]}"
    await asyncio.to_thread(ensure_namespace, str(jobs_kubeconfig), namespace)
    async with open_world(jobs_dsn, nats_server.service_url("jobs"), str(jobs_kubeconfig), namespace) as world:
        world.node = await asyncio.to_thread(first_gpu_node, str(jobs_kubeconfig))
        yield world
        await kube(world).give_gpus_back()


@pytest.fixture
async def jobs_without_cluster(jobs_dsn: str, nats_server: NatsServer) -> AsyncIterator[JobsWorld]:
    """With a cluster that is away: what needs none must work all the same."""
    async with open_world(jobs_dsn, nats_server.service_url("jobs"), "/nowhere/kubeconfig", "none") as world:
        yield world


class Kube:
    """The cluster as its operators and kubelets see it. Blocks a thread, not the loop."""

    def __init__(self, settings: JobsSettings) -> None:
        self._api = _core_api(settings.kubeconfig or "")
        self._namespace = settings.namespace

    async def events(self) -> list[tuple[str, str]]:
        """Reason and object of each event in the namespace."""
        found = await asyncio.to_thread(self._api.list_namespaced_event, self._namespace, _request_timeout=60)
        return [(event.reason, event.involved_object.name) for event in found.items]

    async def give_gpus_back(self) -> None:
        """Delete every pod of the namespace at once: other tests need its GPUs."""
        delete = self._api.delete_collection_namespaced_pod
        await asyncio.to_thread(delete, self._namespace, grace_period_seconds=0, _request_timeout=60)

    async def run_out_of_memory(self, name: str) -> None:
        """End a pod's containers as the kernel does when memory runs out; the simulator's only."""
        api = self._api.api_client
        path = f"/simulator/pods/{self._namespace}/{name}/oom"
        request = api.param_serialize("POST", path, auth_settings=["BearerToken"])
        answer = await asyncio.to_thread(api.call_api, *request)
        assert answer.status == httpx.codes.OK, answer.read()

    async def drain(self, node: str, pod: str) -> None:
        """Cordon a node and evict a pod from it, as `kubectl drain` does."""
        await self._set_unschedulable(node, unschedulable=True)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self._namespace}}
        evict = self._api.create_namespaced_pod_eviction
        await asyncio.to_thread(evict, pod, self._namespace, body, _request_timeout=60)

    async def uncordon(self, node: str) -> None:
        """Let the node have pods again."""
        await self._set_unschedulable(node, unschedulable=False)

    async def _set_unschedulable(self, node: str, *, unschedulable: bool) -> None:
        body = {"spec": {"unschedulable": unschedulable}}
        await asyncio.to_thread(self._api.patch_node, node, body, _request_timeout=60)

    async def change_service(self, name: str, patch: dict[str, Any]) -> None:
        """Transition a Service by hand."""
        change = self._api.patch_namespaced_service
        await asyncio.to_thread(change, name, self._namespace, patch, _request_timeout=60)

    async def set_finalizers(self, name: str, finalizers: list[str]) -> None:
        """Keep a pod that is deleted, or let it go."""
        patch = self._api.patch_namespaced_pod
        body = {"metadata": {"finalizers": finalizers or None}}  # an empty list would be merged
        await asyncio.to_thread(patch, name, self._namespace, body, _request_timeout=60)

    async def set_pod_status(self, name: str, status: dict[str, Any]) -> None:
        """Write what a kubelet would; `containerStatuses` may be the reason of a container's end."""
        reason = status.get("containerStatuses")
        if isinstance(reason, str):
            ended = {"name": "main", "image": "", "imageID": "", "ready": False, "restartCount": 0}
            terminated = {"terminated": {"exitCode": 137, "reason": reason}}
            status = {**status, "containerStatuses": [{**ended, "state": terminated}]}
        patch = self._api.patch_namespaced_pod_status
        await asyncio.to_thread(patch, name, self._namespace, {"status": status}, _request_timeout=60)


def github_of(world: JobsWorld) -> GitHub:
    """As the service has it."""
    return GitHub(url=world.settings.github_url, seconds=world.settings.github_seconds)


def kube(world: JobsWorld) -> Kube:
    """The operator's view of a world's cluster."""
    return Kube(world.settings)


@contextmanager
def cluster_faults(*wanted: dict[str, Any]) -> Iterator[None]:
    """The simulator's API server has these faults for the length of the block."""
    _want_faults(list(wanted))
    try:
        yield
    finally:
        _want_faults([])


def _want_faults(wanted: list[dict[str, Any]]) -> None:
    api = kubernetes_client.ApiClient()
    request = api.param_serialize("PUT", "/simulator/faults", body=wanted, auth_settings=["BearerToken"])
    assert api.call_api(*request).status == httpx.codes.OK
