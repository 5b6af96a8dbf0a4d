"""The disks service on real servers: an application with a stand-in for auth, jobs' events, a look into AWS."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from nats.aio.client import Client

from deploy.local.region import AVAILABILITY_ZONE, REGION
from services.disks.adapters.ec2 import Ec2
from services.disks.app import create_app
from services.disks.context import Context
from services.disks.domain.aws_objects import TAG_USER
from services.disks.domain.claim import NewClaim
from services.disks.domain.disk import NewDisk
from services.disks.settings import DisksSettings
from services.disks.storage.tables import operations
from shared.api_key import ApiKey, new_api_key
from shared.contracts.auth import VERIFY_SUBJECT, Identity, VerifyReply, VerifyRequest
from shared.contracts.disks import (
    CLAIM_SUBJECT,
    CONTENT_SUBJECT,
    ClaimReply,
    ClaimRequest,
    ContentReply,
    ContentReport,
    DiskClaimed,
    Listing,
)
from shared.contracts.events import CloudEvent, EventData, event_subject
from shared.contracts.jobs import JobEnded, JobStatus, JobSubmitted
from shared.database import Database, Statement
from shared.database.migrate import upgrade
from shared.database.tables import outbox
from shared.encryption import Cipher
from shared.messaging import Broker
from shared.messaging.outbox import envelope
from tests.support.harness import empty, eventually, flushed, nats_client, new_secret_keys
from tests.support.servers import MotoServer, NatsServer, PostgresServer, stand_in_url

EventT = TypeVar("EventT", bound=EventData)

_EVENTS = Statement(
    sa.select(outbox).where(outbox.c.entity_id == sa.bindparam("entity_id")).order_by(outbox.c.entity_version)
)
_FAILURES = Statement(sa.select(operations.c.failures).where(operations.c.id == sa.bindparam("id")))
_user_ids = count(int.from_bytes(os.urandom(3)) + 1000)
"""Tests share one database and one AWS; each has users of its own."""


@dataclass(frozen=True)
class User:
    """Somebody with a key."""

    user_id: int
    username: str
    key: ApiKey

    @property
    def headers(self) -> dict[str, str]:
        """Of a request."""
        return {"Authorization": f"Bearer {self.key.text}"}


class Auth:
    """Stands in for the auth service on NATS: knows the users of one test."""

    def __init__(self, nats_client: Client) -> None:
        self._nats = nats_client
        self._identities: dict[str, Identity] = {}

    async def listen(self) -> None:
        """Answer `auth.verify`."""
        await self._nats.subscribe(VERIFY_SUBJECT, cb=self._answer)
        await flushed(self._nats)

    def add_user(self, *, is_operator: bool = False) -> User:
        """A new user and a key of theirs."""
        key, user_id = new_api_key(), new_user_id()
        user = User(user_id, f"user-{user_id}", key)
        self.know(user, is_operator=is_operator)
        return user

    def know(self, user: User, *, is_operator: bool = False) -> None:
        """Vouch for a user of before."""
        self._identities[user.key.hash] = Identity(
            user_id=user.user_id,
            username=user.username,
            key_id=user.key.key_id,
            expires_at=now() + timedelta(hours=1),
            is_operator=is_operator,
        )

    async def _answer(self, message: Any) -> None:
        asked = msgspec.json.decode(message.data, type=VerifyRequest)
        identity = self._identities.get(asked.key_hash)
        await message.respond(msgspec.json.encode(VerifyReply(identity=identity, refusal=None if identity else "no")))


class Jobs:
    """Stands in for the jobs service: its RPC to disks and its events."""

    def __init__(self, nats_client: Client) -> None:
        self._nats = nats_client

    async def claim(
        self, user: User, disk_name: str, *, job_id: UUID | None = None, size_gb: int | None = None, **asked_for: Any
    ) -> ClaimReply:
        """Ask for a disk for a job, by default a new one."""
        request = ClaimRequest(
            user_id=user.user_id,
            username=user.username,
            disk_name=disk_name,
            job_id=job_id or uuid4(),
            size_gb=size_gb,
            **asked_for,
        )
        message = await self._nats.request(CLAIM_SUBJECT, msgspec.json.encode(request), timeout=60)
        return msgspec.json.decode(message.data, type=ClaimReply)

    async def submitted(self, user: User, job_id: UUID, disk_id: UUID | None) -> None:
        """The job is submitted."""
        await self._publish(job_submitted(user, job_id, disk_id))

    async def ended(self, user: User, job_id: UUID, *, epoch: int = 0) -> None:
        """The job has ended; epoch 0: it never had a lease, and so no pod."""
        await self._publish(job_ended(user, job_id, epoch))

    async def tell_content(self, job_id: UUID, disk_id: UUID, listing: Listing, *, epoch: int = 1) -> bool:
        """Tell what is on a disk; whether it was kept."""
        report = ContentReport(job_id=job_id, disk_id=disk_id, epoch=epoch, taken_at=now(), listing=listing)
        message = await self._nats.request(CONTENT_SUBJECT, msgspec.json.encode(report), timeout=60)
        return msgspec.json.decode(message.data, type=ContentReply).stored

    async def listen_to(self, subject: str) -> list[CloudEvent]:
        """What is published from now on, as it comes."""
        heard: list[CloudEvent] = []

        async def hear(message: Any) -> None:
            heard.append(msgspec.json.decode(message.data, type=CloudEvent))

        await self._nats.subscribe(subject, cb=hear)
        await flushed(self._nats)
        return heard

    async def _publish(self, data: EventData) -> None:
        event = cloud_event(data)
        await self._nats.jetstream().publish(event_subject(data), msgspec.json.encode(event))


class Stage:
    """The running service and everybody around it."""

    def __init__(self, client: httpx.AsyncClient, auth: Auth, jobs: Jobs, cloud: Any, database: Database) -> None:
        self.client = client
        self.auth = auth
        self.jobs = jobs
        self.database = database
        self._cloud = cloud

    async def create(self, user: User, name: str, **more: Any) -> dict[str, Any]:
        """Create a disk; the answer."""
        response = await self.client.post("/v1/disks", json={"disk_name": name, **more}, headers=user.headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def get(self, user: User, path: str) -> httpx.Response:
        """GET below /v1/disks."""
        return await self.client.get(f"/v1/disks{path}", headers=user.headers)

    async def ended_operation(self, user: User, name: str, operation_id: str) -> dict[str, Any]:
        """The operation once its outcome is known."""

        async def ended() -> dict[str, Any] | None:
            state: dict[str, Any] = (await self.get(user, f"/{name}/operations/{operation_id}")).json()
            return state if state["completed"] else None

        result: dict[str, Any] = await eventually(ended, f"operation {operation_id} ended")
        return result

    async def attempted(self, operation_id: str) -> None:
        """Return once AWS was asked in vain for the operation."""
        await eventually(
            lambda: self.database.fetch_value(_FAILURES, id=UUID(operation_id)), "an attempt that failed", seconds=20
        )

    async def volumes(self, user: User) -> list[dict[str, Any]]:
        """What AWS has of the user's."""
        return await volumes_of(self._cloud, user.user_id)

    async def snapshots(self, user: User) -> list[dict[str, Any]]:
        """What AWS has of the user's, foreign copies included."""
        return await snapshots_of_user(self._cloud, user.user_id)

    async def claimed_by(self, disk_id: UUID, job_id: UUID) -> None:
        """Return once the job has been told that it can use the disk."""

        async def told() -> bool:
            kept = [event for event in await self.events(disk_id) if event.type == DiskClaimed.type_name()]
            return any(msgspec.json.decode(event.data, type=DiskClaimed).job_id == job_id for event in kept)

        await eventually(told, f"job {job_id} is told")

    async def events(self, disk_id: UUID | str) -> list[CloudEvent]:
        """The disk's events, in the order of its versions, as the service recorded them."""
        return await events_of(self.database, disk_id)

    async def event(self, disk_id: UUID | str, kind: type[EventT], *, seconds: float = 60.0) -> EventT:
        """The first event of a kind about the disk, once it is recorded."""

        async def recorded() -> EventT | None:
            for event in await self.events(disk_id):
                if event.type == kind.type_name():
                    return msgspec.json.decode(event.data, type=kind)
            return None

        result: EventT = await eventually(recorded, f"{kind.__name__} of {disk_id}", seconds=seconds)
        return result


class Silent:
    """Is woken and does nothing: for operations without the service around them."""

    def wake(self) -> None:
        """Do nothing."""


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def new_user_id() -> int:
    """The id of a user that no other test has."""
    return next(_user_ids)


def new_disk(user_id: int, name: str = "data", *, size_gb: int = 100, at: datetime | None = None) -> NewDisk:
    """A user's wish for a disk."""
    return NewDisk(
        disk_id=uuid4(),
        operation_id=uuid4(),
        user_id=user_id,
        username=f"user-{user_id}",
        name=name,
        size_gb=size_gb,
        availability_zone=AVAILABILITY_ZONE,
        requested_at=at or now(),
    )


def disks_context(
    settings: DisksSettings,
    database: Database,
    *,
    ec2: Ec2 | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Context:
    """What operations work with, without the service around them; users have no limits worth the name."""
    boundless = msgspec.structs.replace(settings, max_disks_per_user=10_000, max_disk_gb_per_user=10**9)
    return Context(
        database=database,
        broker=Broker(settings.nats_url, name="test"),
        outbox=Silent(),
        cipher=Cipher(settings.secret_keys),
        clock=clock or now,
        ec2=ec2 or Ec2(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url),
        settings=boundless,
    )


def new_claim(
    user_id: int,
    name: str = "data",
    *,
    job_id: UUID | None = None,
    size_gb: int | None = None,
    at: datetime | None = None,
) -> NewClaim:
    """A job's claim to a disk, by default a new job's."""
    return NewClaim(
        job_id=job_id or uuid4(),
        user_id=user_id,
        username=f"user-{user_id}",
        disk_name=name,
        size_gb=size_gb,
        at=at or now(),
        provisional_for=timedelta(seconds=60),
        availability_zone=AVAILABILITY_ZONE,
    )


def cloud_event(data: EventData) -> CloudEvent:
    """An event of another service."""
    return CloudEvent(
        id=uuid4(),
        source=f"/gpudev/{data.DOMAIN}",
        type=data.type_name(),
        subject=data.entity_id,
        time=datetime.now(UTC),
        sequence=1,
        messageid=1,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )


def job_submitted(user: User, job_id: UUID, disk_id: UUID | None) -> JobSubmitted:
    """The event of a job that names a disk, or none."""
    return JobSubmitted(
        job_id=job_id,
        user_id=user.user_id,
        username=user.username,
        status=JobStatus.PENDING,
        instance_type="p5.48xlarge",
        gpu_type="h100",
        gpu_count=8,
        duration_seconds=3600,
        submitted_at=datetime.now(UTC),
        waits_for_disk=True,
        disk_id=disk_id,
    )


def job_ended(user: User, job_id: UUID, epoch: int = 0) -> JobEnded:
    """The event of a job that is over."""
    return JobEnded(
        job_id=job_id,
        user_id=user.user_id,
        username=user.username,
        status=JobStatus.COMPLETED,
        ended_at=datetime.now(UTC),
        epoch=epoch,
    )


async def volumes_of(cloud: Any, user_id: int) -> list[dict[str, Any]]:
    """The volumes in AWS with the user's tag."""
    filters = [{"Name": f"tag:{TAG_USER}", "Values": [str(user_id)]}]
    answer = await asyncio.to_thread(cloud.describe_volumes, Filters=filters)
    found: list[dict[str, Any]] = answer["Volumes"]
    return found


async def snapshots_of_user(cloud: Any, user_id: int) -> list[dict[str, Any]]:
    """The snapshots in AWS with the user's tag."""
    filters = [{"Name": f"tag:{TAG_USER}", "Values": [str(user_id)]}]
    answer = await asyncio.to_thread(cloud.describe_snapshots, Filters=filters)
    found: list[dict[str, Any]] = answer["Snapshots"]
    return found


async def events_of(database: Database, disk_id: UUID | str) -> list[CloudEvent]:
    """A disk's events in the order of its versions."""
    rows = await database.fetch_all(_EVENTS, entity_id=str(disk_id))
    return [envelope(row, "/gpudev/disks") for row in rows]


@pytest.fixture(scope="session")
def disks_schema(postgres_server: PostgresServer) -> Iterator[str]:
    """The service's migrated schema."""
    dsn = postgres_server.make_service_database("disks")
    upgrade("disks", dsn)
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
async def disks_dsn(disks_schema: str) -> str:
    """The schema, empty."""
    await empty(disks_schema)
    return disks_schema


@pytest.fixture
def disks_settings(
    disks_dsn: str, nats_server: NatsServer, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> DisksSettings:
    """Settings of a service whose servers all run."""
    moto_server.process.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_server.service_keys.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_server.service_keys.secret_access_key)
    return DisksSettings(
        database_url=disks_dsn,
        nats_url=nats_server.service_url("disks"),
        secret_keys=new_secret_keys(),
        aws_region=REGION,
        aws_endpoint_url=moto_server.endpoint_url,
        availability_zone=AVAILABILITY_ZONE,
        log_level="error",
    )


@pytest.fixture
async def disks_database(disks_settings: DisksSettings) -> AsyncIterator[Database]:
    """The service's database, without the service."""
    database = Database(disks_settings.database_url, pool_size=10)
    yield database
    await database.close()


@pytest.fixture
async def ec2(disks_settings: DisksSettings) -> AsyncIterator[Ec2]:
    """The adapter, without the service."""
    adapter = Ec2(region=disks_settings.aws_region, endpoint_url=disks_settings.aws_endpoint_url)
    yield adapter
    await adapter.close()


@asynccontextmanager
async def serving(settings: DisksSettings) -> AsyncIterator[httpx.AsyncClient]:
    """One replica, in the test's own event loop."""
    app: Any = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    started, stop = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        # in one task of its own: fixtures are entered and left in different ones, which cancel scopes forbid
        async with app.lifespan():
            started.set()
            await stop.wait()

    holding = asyncio.create_task(hold())
    await started.wait()
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://disks.local") as client:
            yield client
    finally:
        stop.set()
        await holding


@asynccontextmanager
async def disks_stage(settings: DisksSettings, database: Database, cloud: Any) -> AsyncIterator[Stage]:
    """The service, running for the length of a block."""
    async with nats_client(stand_in_url(settings.nats_url)) as stand_in:
        auth = Auth(stand_in)
        await auth.listen()
        async with serving(settings) as client:
            await eventually(lambda: _healthy(client), "the service is healthy")
            yield Stage(client=client, auth=auth, jobs=Jobs(stand_in), cloud=cloud, database=database)


async def _healthy(client: httpx.AsyncClient) -> bool:
    answer = (await client.get("/health/disks")).json()
    return bool(answer["status"] == "healthy" and answer["unprocessed_messages"] is not None)


@pytest.fixture
async def disks(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> AsyncIterator[Stage]:
    """The service with everybody around it."""
    async with disks_stage(disks_settings, disks_database, moto_server.client("ec2")) as stage:
        yield stage


class RefusingAws:
    """An EC2 that answers every call with one error."""

    def __init__(self, *, status: int, code: str) -> None:
        self._status = status
        self._body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>told so</Message></Error></Errors></Response>"
        )
        self.calls = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve for the length of a block; the endpoint's URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        self.calls += 1
        answer = (
            f"HTTP/1.1 {self._status} X\r\nConnection: close\r\nContent-Length: {len(self._body)}\r\n\r\n{self._body}"
        )
        writer.write(answer.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
