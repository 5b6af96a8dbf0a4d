"""Many submissions: together in one request, or at once in many."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from services.jobs.domain.job import Job
from services.jobs.domain.submission import read_submission
from services.jobs.operations.insert_jobs import new_job
from services.jobs.storage.submissions import GIVEN
from shared.contracts.auth import Identity
from shared.contracts.disks import Claim, ClaimRefusal, ClaimReply
from tests.support.jobs import NOW, Client, JobsWorld, body

BATCH = "/v1/jobs/batch"


async def listed(client: Client) -> list[dict[str, Any]]:
    answer = await client.get("/v1/jobs?limit=500")
    return list(answer.json()["jobs"])


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def test_jobs_of_a_batch_are_queued_in_their_order(world: JobsWorld, client: Client) -> None:
    names = [f"run-{number}" for number in range(20)]
    answer = await client.post(BATCH, json={"jobs": [body(name=name, env_vars={"SEED": name}) for name in names]})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["total"], told["message"]) == (20, "20 jobs submitted successfully to queue")
    jobs = [UUID(job["job_id"]) for job in told["jobs"]]
    assert [(await world.row(job_id))["name"] for job_id in jobs] == names
    assert {job["status"] for job in told["jobs"]} == {"queued"}
    for job, job_id in zip(told["jobs"], jobs, strict=True):
        (event,) = await world.events(job_id)
        assert job["message"] == f"Job submitted successfully to queue (message ID: {event.messageid})"
    numbers = [(await world.events(job_id))[0].messageid for job_id in jobs]
    assert numbers == sorted(numbers)
    submitted = [(await world.row(job_id))["created_at"] for job_id in jobs]
    assert submitted == sorted(set(submitted)), "the queue goes by the time, and by the random id where it is the same"
    assert [job["job_id"] for job in await listed(client)] == [str(job_id) for job_id in reversed(jobs)]
    assert [entry["status"] for entry in (await client.get(f"/v1/jobs/{jobs[3]}/history")).json()["history"]] == [
        "queued"
    ]


async def test_what_is_wrong_with_entries_names_their_index_and_none_is_accepted(client: Client) -> None:
    bad = {"image": "debian:12", "instance_type": "p5.48xlarge", "duration_hours": 99, "env_vars": {"KEY": 1}}
    answer = await client.post(BATCH, json={"jobs": [body(), bad, {"image": "no image", "secret": "s3cret"}]})
    assert answer.status_code == 400
    found = {tuple(problem["loc"]): problem["type"] for problem in answer.json()["detail"]}
    assert found == {
        ("body", "jobs", 1, "duration_hours"): "less_than_equal",
        ("body", "jobs", 1, "env_vars", "KEY"): "string_type",
        ("body", "jobs", 2, "image"): "value_error",
        ("body", "jobs", 2, "instance_type"): "missing",
        ("body", "jobs", 2, "secret"): "extra_forbidden",
    }
    assert "s3cret" not in answer.text
    assert await listed(client) == []


@pytest.mark.parametrize(
    ("sent", "where", "kind"),
    [
        ({"jobs": []}, ["body", "jobs"], "too_short"),
        ({"jobs": [{}] * 501}, ["body", "jobs"], "too_long"),
        ({"jobs": {}}, ["body", "jobs"], "list_type"),
        ({}, ["body", "jobs"], "missing"),
        ({"jobs": [3]}, ["body", "jobs", 0], "dict_type"),
        ([body()], ["body"], "dict_type"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused(client: Client, sent: Any, where: list[Any], kind: str) -> None:
    answer = await client.post(BATCH, json=sent)
    assert answer.status_code == 400
    assert [(problem["loc"], problem["type"]) for problem in answer.json()["detail"]] == [(where, kind)]


async def test_a_batch_with_an_id_that_is_taken_is_refused_as_a_whole(world: JobsWorld, client: Client) -> None:
    taken, own = str(uuid4()), str(uuid4())
    theirs = body(env_vars={"RESERVATION_ID": taken})
    assert (await client.post("/v1/jobs/submit", json=theirs, headers=world.people.bearer("bob"))).status_code == 200
    mine = body(env_vars={"RESERVATION_ID": own})
    answer = await client.post(BATCH, json={"jobs": [mine, body(), theirs]})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("Entry 2: ")
    assert await listed(client) == []
    twice = await client.post(BATCH, json={"jobs": [mine, mine]})
    assert twice.json()["detail"][0]["loc"] == ["body", "jobs", 1, "env_vars", "RESERVATION_ID"]


async def test_a_batch_whose_jobs_have_ids_is_answered_again_without_a_key(client: Client) -> None:
    sent = {"jobs": [body(env_vars={"RESERVATION_ID": str(uuid4())}) for _ in range(3)]}
    first, again = await client.post(BATCH, json=sent), await client.post(BATCH, json=sent)
    assert first.json() == again.json()
    assert len(await listed(client)) == 3


async def test_a_key_is_that_of_the_whole_batch(client: Client) -> None:
    sent, headers = {"jobs": [body(), body()]}, {"Idempotency-Key": "sweep"}
    answers = [await client.post(BATCH, json=sent, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]
    other = await client.post(BATCH, json={"jobs": [body()]}, headers=headers)
    assert other.status_code == 422
    assert len(await listed(client)) == 2


async def test_a_batch_is_within_the_users_limit_or_refused(world: JobsWorld) -> None:
    async with world.service(max_waiting_jobs_per_user=3) as client:
        assert (await client.post(BATCH, json={"jobs": [body(), body()]})).status_code == 200
        refused = await client.post(BATCH, json={"jobs": [body(), body()]})
        assert refused.status_code == 409
        assert len(await listed(client)) == 2


async def test_entries_claim_their_disks_and_two_cannot_have_one(world: JobsWorld, client: Client) -> None:
    with_disks = {"jobs": [body(disk_name="a"), body(), body(disk_name="b")]}
    claim = Claim(disk_id=uuid4(), disk_name="a", size_gb=100, ready=False)
    async with world.disks_answering(ClaimReply(claim=claim)) as asked:
        answer = await client.post(BATCH, json=with_disks)
        assert [one.disk_name for one in asked] == ["a", "b"]
        statuses = [(await world.row(UUID(job["job_id"])))["status"] for job in answer.json()["jobs"]]
        assert statuses == ["pending", "queued", "pending"]
        both = await client.post(BATCH, json={"jobs": [body(disk_name="a"), body(disk_name="a")]})
        assert both.json()["detail"][0]["loc"] == ["body", "jobs", 1, "disk_name"]
    refusal = ClaimRefusal(kind="conflict", text="Disk 'b' is in use")
    async with world.disks_answering(ClaimReply(refusal=refusal)):
        refused = await client.post(BATCH, json=with_disks)
    assert (refused.status_code, refused.json()["detail"]) == (409, "Entry 0: Disk 'b' is in use")
    assert len(await listed(client)) == 3


async def test_submits_at_once_each_get_their_own_job(world: JobsWorld, client: Client) -> None:
    keys = [None, "one", "two", "two", None, "one", "three", *([None] * 30)]
    answers = await asyncio.gather(
        *(
            client.post(
                "/v1/jobs/submit",
                json=body(name=f"job-{key}" if key else f"job-{number}"),
                headers={"Idempotency-Key": key} if key else {},
            )
            for number, key in enumerate(keys)
        )
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    accepted = [answer for answer in answers if answer.status_code == 200]
    of_key = {
        key: {a.json()["job_id"] for a, k in zip(answers, keys, strict=True) if k == key and a.status_code == 200}
        for key in ("one", "two", "three")
    }
    assert [len(jobs) for jobs in of_key.values()] == [1, 1, 1]
    jobs = {answer.json()["job_id"] for answer in accepted}
    assert len(jobs) == 32 + 3
    assert {job["job_id"] for job in await listed(client)} == jobs
    for answer in accepted:
        (event,) = await world.events(UUID(answer.json()["job_id"]))
        assert answer.json()["message"].endswith(f"(message ID: {event.messageid})")


def test_a_new_job_differs_from_others_only_in_what_is_written(world: JobsWorld) -> None:
    everything = {
        "image": "debian:12",
        "instance_type": "p5.48xlarge",
        "disk_name": "d",
        "command": "true",
        "name": "n",
        "github_user": "ann",
        "jupyter_enabled": True,
        "working_dir": "/w",
        "env_vars": {"A": "b"},
    }
    claim = Claim(disk_id=uuid4(), disk_name="d", size_gb=1, ready=False, volume_id="v", availability_zone="z")
    owner = Identity(user_id=1, username="alice", key_id="k", expires_at=NOW)
    made = new_job(
        job_id=uuid4(),
        owner=owner,
        submission=read_submission(everything),
        claim=claim,
        mac=b"",
        now=NOW,
        context=world.context(),
    ).job
    defaults = {field.name: field.default for field in msgspec.structs.fields(Job)}
    factories = {field.name: field.default_factory for field in msgspec.structs.fields(Job)}
    for name in set(defaults) - GIVEN:
        expected = defaults[name] if defaults[name] is not msgspec.NODEFAULT else factories[name]()
        assert getattr(made, name) == expected, name
