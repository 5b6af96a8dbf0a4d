"""What the services are measured against: raw ASGI on the same server, asyncpg, plain SQL, nothing else.

The statements are in `reference_sql` and stay as they are, so that figures of different commits can be compared.
"""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from services.jobs import storage as jobs
from shared.contracts.jobs import JobStatus, JobSubmitted
from shared.database.connection import _prepare_connection
from shared.messaging.outbox import Draft, draft_columns

_ALL_STATUSES = None
_GET, _LIST, _AVAILABILITY, _SUBMIT = (
    (Path(__file__).parent / "reference_sql" / f"{name}.sql").read_text()
    for name in ("get", "list", "availability", "submit")
)
_SUBMIT_NAMES = _SUBMIT.partition("\n\n")[0].replace("-- ", "").split()
"""Its parameters in their order, as its first lines have them."""


def create_app() -> Any:
    """The application; DSNs and the job that is read come from BENCH_ variables."""
    return Reference(os.environ["BENCH_JOBS"], os.environ["BENCH_CAPACITY"], UUID(os.environ["BENCH_JOB"]))


class Reference:
    """An ASGI application of five paths."""

    def __init__(self, jobs_dsn: str, capacity_dsn: str, job_id: UUID) -> None:
        self._dsns = (jobs_dsn, capacity_dsn)
        self._job_id = job_id
        self._jobs: Any = None
        self._capacity: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        name = scope["path"].rpartition("/")[2]
        body = await getattr(self, name)(receive) if name else b"{}"  # a bare path is asked whether it lives
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self._jobs, self._capacity = [
            await asyncpg.create_pool(dsn, min_size=0, max_size=10, init=_prepare_connection, reset=_nothing)
            for dsn in self._dsns
        ]
        row = await self._jobs.fetchrow(jobs.jobs.FIND.sql, self._job_id)
        self._job = jobs.jobs.to_job(row)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def get(self, _: Any) -> bytes:
        """One job."""
        rows = await self._jobs.fetch(_GET, self._job.user_id, self._job_id, self._job_id)
        return msgspec.json.encode(dict(rows[0]))

    async def list(self, _: Any) -> bytes:
        """Fifty jobs and how many there are."""
        rows = await self._jobs.fetch(_LIST, self._job.user_id, _ALL_STATUSES, 50, 0)
        return msgspec.json.encode([dict(row) for row in rows])

    async def availability(self, _: Any) -> bytes:
        """The snapshot behind availability and cluster status."""
        return msgspec.json.encode(dict(await self._capacity.fetchrow(_AVAILABILITY)))

    async def submit(self, receive: Any) -> bytes:
        """The rows of one submit."""
        msgspec.json.decode((await receive())["body"])
        now = datetime.now(UTC)
        job_id = uuid4()
        data = JobSubmitted(
            job_id=job_id,
            user_id=self._job.user_id,
            username="bench",
            status=JobStatus.QUEUED,
            instance_type="p5.48xlarge",
            gpu_type="none",
            gpu_count=8,
            duration_seconds=3600,
            submitted_at=now,
            waits_for_disk=True,
        )
        values = (
            msgspec.structs.asdict(msgspec.structs.replace(self._job, id=job_id, node=None))
            | draft_columns(Draft(data=data, version=1, occurred_at=now))
            | {"request_mac": b"", "env_sealed": None, "due_at": now}
        )
        number = await self._jobs.fetchval(_SUBMIT, *(values[name] for name in _SUBMIT_NAMES))
        return msgspec.json.encode({"job_id": job_id, "message": number, "at": time.time()})


async def _nothing(_: Any) -> None:
    """As the services' pools do."""
