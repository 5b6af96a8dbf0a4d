"""The four endpoints, with Kubernetes away: only what touches pods may need it."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import sqlalchemy as sa

from shared.contracts.capacity import JobQueued
from shared.contracts.disks import Claim, ClaimRefusal, ClaimReply
from shared.contracts.jobs import JobSubmitted
from shared.database import Statement
from shared.database.migrate import check
from shared.database.tables import outbox
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body, job_of

CONTRACT_FIELDS = [
    "job_id",
    "reservation_id",
    "user_id",
    "status",
    "gpu_type",
    "gpu_count",
    "instance_type",
    "duration_hours",
    "created_at",
    "expires_at",
    "name",
    "pod_name",
    "node_ip",
    "node_port",
    "ssh_command",
    "jupyter_enabled",
    "jupyter_url",
    "jupyter_token",
    "github_user",
]
ADDED_FIELDS = [
    "image",
    "command",
    "disk_name",
    "exit_code",
    "failure_reason",
    "status_reason",
    "current_detailed_status",
    "queue_position",
    "estimated_start_time",
    "estimated_wait_minutes",
    "launched_at",
    "ended_at",
    "updated_at",
    "secondary_users",
    "warning",
    "jupyter_port",
    "ebs_volume_id",
    "env_var_names",
    "access_error",
    "jupyter_error",
    "home",
    "working_dir",
    "grace_seconds",
    "ssh_host_keys",
]

PUBLISHED = Statement(sa.select(outbox.c.published_at).where(outbox.c.entity_id == sa.bindparam("job_id")))


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def test_the_contracts_example_is_taken(world: JobsWorld, client: Client) -> None:
    example = {
        "image": "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime",
        "instance_type": "p5.48xlarge",
        "duration_hours": 4,
        "env_vars": {"WANDB_API_KEY": "secret", "EXPERIMENT": "training-v1"},
        "command": "python train.py --epochs 100",
    }
    answer = await client.post("/v1/jobs/submit", json=example)
    assert answer.status_code == 200
    told = answer.json()
    [event] = await world.events(told["job_id"])
    assert told == {
        "job_id": told["job_id"],
        "status": "queued",
        "message": f"Job submitted successfully to queue (message ID: {event.messageid})",
        "estimated_start_time": None,
        "queue_position": None,
        "status_reason": "Its place in the queue is being computed",
    }
    job = await job_of(client, told["job_id"])
    assert list(job) == CONTRACT_FIELDS + ADDED_FIELDS
    assert (job["gpu_type"], job["gpu_count"], job["duration_hours"]) == ("h100", 8, 4.0)
    assert job["env_var_names"] == ["EXPERIMENT", "WANDB_API_KEY"]


async def test_a_job_says_what_it_waits_for_also_before_its_place_is_known(world: JobsWorld, client: Client) -> None:
    await connected(client)
    job_id = await world.submit(client)

    async def told() -> tuple[object, object]:
        job, [listed] = await job_of(client, job_id), (await client.get("/v1/jobs")).json()["jobs"]
        assert listed == job
        return job["queue_position"], job["status_reason"]

    assert await told() == (None, "Its place in the queue is being computed")
    assert (await client.get(f"/v1/jobs/{job_id}/history")).json()["history"][0]["reason"] is None
    await world.capacity_says(JobQueued(job_id=job_id, gpu_type="h100", position=3, reason="Waiting for others"))

    async def known() -> bool:
        return bool((await job_of(client, job_id))["queue_position"] == 3)

    await eventually(known, "its place is known")
    assert await told() == (3, "Waiting for others")
    await world.update(job_id, "queue_position = NULL, status_reason = 'Queued again: its node is gone'")
    assert await told() == (None, "Queued again: its node is gone. Its place in the queue is being computed")


async def test_the_history_tells_each_status_with_its_time_and_reason(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    told = (await client.get(f"/v1/jobs/{job_id}/history")).json()
    assert list(told) == ["job_id", "history"]
    assert [(entry["status"], entry["reason"]) for entry in told["history"]] == [
        ("queued", None),
        ("cancelled", "Cancelled by its user"),
    ]
    job = await job_of(client, job_id)
    assert [entry["at"] for entry in told["history"]] == [job["created_at"], job["ended_at"]]


async def test_the_username_carries_the_configured_domain(world: JobsWorld) -> None:
    async with world.service(user_email_domain="meta.com") as client:
        job = await job_of(client, await world.submit(client))
    assert job["user_id"] == "alice@meta.com"


async def test_another_users_job_is_not_found_like_a_missing_one(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    other = world.people.bearer("mallory")
    for method, path in (("GET", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel")):
        theirs = await client.request(method, path.format(job_id), headers=other)
        missing = await client.request(method, path.format(uuid4()), headers=other)
        prefix = await client.request(method, path.format(str(job_id)[:8]), headers=other)
        assert theirs.status_code == missing.status_code == prefix.status_code == 404
        assert theirs.content == missing.content == prefix.content
    assert (await client.get("/v1/jobs", headers=other)).json()["total"] == 0
    assert await world.announced(job_id) == ["submitted"]


async def test_a_beginning_of_an_id_finds_the_job_and_two_are_a_conflict(world: JobsWorld, client: Client) -> None:
    first, second = "abcdef01-0000-4000-8000-000000000001", "abcdef01-1000-4000-8000-000000000002"
    await world.submit(client, env_vars={"RESERVATION_ID": first})
    assert (await client.get("/v1/jobs/abcdef01")).json()["job_id"] == first
    await world.submit(client, env_vars={"RESERVATION_ID": second})
    assert (await client.get("/v1/jobs/abcdef01")).status_code == 409
    assert (await client.post("/v1/jobs/abcdef01/cancel")).status_code == 409
    assert (await client.get("/v1/jobs/abcdef01-0")).json()["job_id"] == first


@pytest.mark.parametrize(
    "text", ["abcdef0", "abcdef0_", "abcdef0%25", "%25%25%25%25%25%25%25%25", "________", "x" * 300]
)
async def test_what_is_no_beginning_of_an_id_is_not_found(world: JobsWorld, client: Client, text: str) -> None:
    await world.submit(client, env_vars={"RESERVATION_ID": "abcdef01-0000-4000-8000-000000000001"})
    answer = await client.get(f"/v1/jobs/{text}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Job not found"})


async def test_the_list_is_newest_first_with_the_total_of_all_pages(world: JobsWorld, client: Client) -> None:
    ids = [str(await world.submit(client)) for _ in range(5)]
    await client.post(f"/v1/jobs/{ids[0]}/cancel")
    page = (await client.get("/v1/jobs?limit=2&offset=1")).json()
    assert ([job["job_id"] for job in page["jobs"]], page["total"]) == ([ids[3], ids[2]], 5)
    beyond = (await client.get("/v1/jobs?offset=50")).json()
    assert beyond == {"jobs": [], "total": 5, "limit": 50, "offset": 50}
    some = (await client.get("/v1/jobs?status=cancelled,active")).json()
    assert ([job["job_id"] for job in some["jobs"]], some["total"]) == ([ids[0]], 1)
    for no_filter in ("status=", "status=%20"):
        assert (await client.get(f"/v1/jobs?{no_filter}")).json()["total"] == 5


@pytest.mark.parametrize(
    "query",
    [
        "status=running",
        "status=active,,queued",
        "limit=0",
        "limit=501",
        "limit=x",
        "offset=-1",
        "offset=99999999999999999999",
        "limit=1.5",
    ],
)
async def test_a_bad_query_is_refused(client: Client, query: str) -> None:
    answer = await client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"][0] == "query"


async def test_cancelling_a_queued_job_ends_it_at_once_and_again_gives_the_same_answer(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit(client)
    first = await client.post(f"/v1/jobs/{job_id}/cancel")
    events = await world.events(job_id)
    assert first.json() == {
        "job_id": str(job_id),
        "action": "cancel",
        "status": "requested",
        "message": f"Cancellation request submitted (message ID: {events[1].messageid})",
    }
    assert (await job_of(client, job_id))["status"] == "cancelled"
    again = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()) == (200, first.json())
    assert await world.announced(job_id) == ["submitted", "cancel_requested", "ended"]
    assert await world.history(job_id) == ["queued", "cancelled"]


async def test_cancelling_a_job_that_ended_by_itself_is_a_conflict_that_names_the_state(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit(client)
    await world.update(job_id, "status = 'failed', outcome = 'failed', released_at = now(), ended_at = now()")
    answer = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()) == (409, {"detail": "The job has already ended: it is failed"})


async def test_the_clients_own_id_is_kept_and_its_retry_answers_the_same_job(world: JobsWorld, client: Client) -> None:
    mine = str(uuid4())
    request = body(env_vars={"RESERVATION_ID": mine, "KEY": "v"})
    first, again = [await client.post("/v1/jobs/submit", json=request) for _ in range(2)]
    assert first.json()["job_id"] == mine
    assert (again.status_code, again.json()) == (200, first.json())
    other = await client.post("/v1/jobs/submit", json=body(env_vars={"RESERVATION_ID": mine, "KEY": "w"}))
    theirs = await client.post("/v1/jobs/submit", json=request, headers=world.people.bearer("bob"))
    assert (other.status_code, theirs.status_code) == (409, 409)
    assert theirs.json() == other.json()  # whose it is shows nowhere
    assert await world.announced(UUID(mine)) == ["submitted"]


async def test_the_same_submission_twice_at_once_makes_one_job(client: Client) -> None:
    request = body(env_vars={"RESERVATION_ID": str(uuid4())})
    answers = await asyncio.gather(*(client.post("/v1/jobs/submit", json=request) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert (await client.get("/v1/jobs")).json()["total"] == 1


async def test_an_idempotency_key_gives_the_first_answer_again(client: Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await client.post("/v1/jobs/submit", json=body(), headers=headers)
    again = await client.post("/v1/jobs/submit", json=body(), headers=headers)
    other = await client.post("/v1/jobs/submit", json=body(name="x"), headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert other.status_code == 422
    assert (await client.get("/v1/jobs")).json()["total"] == 1


async def test_jobs_that_are_written_together_have_their_own_numbers_with_a_key_and_without(
    world: JobsWorld, client: Client
) -> None:
    keys: list[dict[str, str]] = [{"Idempotency-Key": f"k{n}"} if n % 3 == 0 else {} for n in range(30)]
    await client.get("/v1/jobs")  # from now on the key is remembered
    answers = await asyncio.gather(*(client.post("/v1/jobs/submit", json=body(), headers=key) for key in keys))
    for answer, key in zip(answers, keys, strict=True):
        (event,) = await world.events(UUID(answer.json()["job_id"]))
        assert answer.json()["message"].endswith(f"(message ID: {event.messageid})")
        if key:
            again = await client.post("/v1/jobs/submit", json=body(), headers=key)
            assert (again.json(), again.headers["idempotent-replayed"]) == (answer.json(), "true")
    assert len({answer.json()["message"] for answer in answers}) == 30


async def test_an_idempotency_key_that_came_with_a_clients_own_id_is_used_up(client: Client) -> None:
    request = body(env_vars={"RESERVATION_ID": str(uuid4())})
    first = await client.post("/v1/jobs/submit", json=request)
    again = await client.post("/v1/jobs/submit", json=request, headers={"Idempotency-Key": "k1"})
    other = await client.post("/v1/jobs/submit", json=body(), headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.json()) == (200, first.json())
    assert other.status_code == 422


async def test_a_repeated_submission_is_not_refused_for_its_own_claim_on_the_disk(
    world: JobsWorld, client: Client
) -> None:
    await connected(client)
    request, headers = body(disk_name="d", disk_size_gb=100), {"Idempotency-Key": "k1"}
    async with world.disks_answering(claim(ready=True)):
        first = await client.post("/v1/jobs/submit", json=request, headers=headers)
    async with world.disks_answering(ClaimReply(refusal=ClaimRefusal(kind="conflict", text="in use"))) as asked:
        again = await client.post("/v1/jobs/submit", json=request, headers=headers)
        other = await client.post("/v1/jobs/submit", json=body(disk_name="d"), headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    assert (other.status_code, asked) == (422, [])


async def test_all_problems_of_form_and_of_meaning_are_listed(client: Client) -> None:
    answer = await client.post(
        "/v1/jobs/submit",
        json={
            "image": "Not An Image",
            "instance_type": "p5.48XLARGE",
            "duration_hours": True,
            "gpu_count": 3,
            "disk_size_gb": 9,
            "disk_name": "a b",
            "surprise": 1,
            "env_vars": {"OK": "x", "9BAD": "x", "RESERVATION_ID": 5},
            "name": "Upper",
            "github_user": "a--b",
        },
    )
    assert answer.status_code == 400
    assert {tuple(problem["loc"]) for problem in answer.json()["detail"]} == {
        ("body", "image"),
        ("body", "instance_type"),
        ("body", "duration_hours"),
        ("body", "gpu_count"),
        ("body", "disk_size_gb"),
        ("body", "disk_name"),
        ("body", "surprise"),
        ("body", "env_vars", "9BAD"),
        ("body", "env_vars", "RESERVATION_ID"),
        ("body", "name"),
        ("body", "github_user"),
    }


async def test_submit_needs_neither_broker_nor_cluster_and_the_event_goes_out_on_return(
    world: JobsWorld, client: Client, nats_server: Any
) -> None:
    nats_server.process.kill()
    job_id = await world.submit(client)
    assert (await job_of(client, job_id))["status"] == "queued"
    nats_server.process.start()

    async def published() -> bool:
        return await world.database.fetch_value(PUBLISHED, job_id=str(job_id)) is not None

    await eventually(published, "the event is published")


async def connected(client: Client) -> None:
    """The service's own connection to NATS is made in the background."""

    async def up() -> bool:
        health = (await client.get("/health/jobs")).json()
        return bool(health["queue"] == "healthy")

    await eventually(up, "the service is connected")


def claim(*, ready: bool) -> ClaimReply:
    volume = "vol-1" if ready else None
    disk = Claim(disk_id=uuid4(), disk_name="d", size_gb=100, ready=ready, volume_id=volume, availability_zone="az1")
    return ClaimReply(claim=disk)


@pytest.mark.parametrize(("ready", "status"), [(True, "queued"), (False, "pending")])
async def test_a_job_with_a_disk_waits_for_it_only_when_it_must(
    world: JobsWorld, client: Client, ready: bool, status: str
) -> None:
    await connected(client)
    async with world.disks_answering(claim(ready=ready)) as asked:
        answer = await client.post("/v1/jobs/submit", json=body(disk_name="d", disk_size_gb=100))
    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert told["status"] == "queued", "the contract's answer, whatever it waits for"
    shown = await job_of(client, told["job_id"])
    assert (shown["status"], shown["status_reason"]) == (status, told["status_reason"])
    assert [(str(request.job_id), request.size_gb) for request in asked] == [(told["job_id"], 100)]
    [event] = await world.events(told["job_id"])
    submitted = msgspec.json.decode(event.data, type=JobSubmitted)
    assert (submitted.waits_for_disk, submitted.availability_zone) == (not ready, "az1")


@pytest.mark.parametrize(
    ("kind", "status", "detail"),
    [
        ("conflict", 409, "no"),
        ("invalid", 400, [{"type": "value_error", "loc": ["body", "disk_size_gb"], "msg": "no"}]),
        ("unavailable", 503, "no"),
    ],
)
async def test_a_refused_disk_refuses_the_job(
    world: JobsWorld, client: Client, kind: str, status: int, detail: Any
) -> None:
    await connected(client)
    async with world.disks_answering(ClaimReply(refusal=ClaimRefusal(kind=kind, text="no"))):
        answer = await client.post("/v1/jobs/submit", json=body(disk_name="d"))
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert (await client.get("/v1/jobs")).json()["total"] == 0


async def test_without_the_disks_service_a_job_with_a_disk_is_told_to_come_back(client: Client) -> None:
    answer = await client.post("/v1/jobs/submit", json=body(disk_name="d"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_the_tables_in_code_are_those_of_the_migrations(jobs_schema: str) -> None:
    await asyncio.to_thread(check, "jobs", jobs_schema)
