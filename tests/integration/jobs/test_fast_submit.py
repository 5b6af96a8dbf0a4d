"""A submit is answered alike before the framework and by it: what is sent back, and what is written."""

from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from shared.audit import audit_endpoint
from shared.contracts.audit import AuditQuery
from shared.contracts.disks import ClaimRefusal, ClaimReply
from shared.database import Statement
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body

FRAMEWORK = {"Prefer": "respond-async"}
"""A preference that means nothing, and is none of the usual: the route itself answers."""
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"json": body()},
    "everything": {
        "json": body(
            name="run-1",
            command="echo hello",
            duration_hours=0.5,
            env_vars={"A": "b"},
            github_user="demo",
            jupyter_enabled=True,
            working_dir="/data",
        )
    },
    "key": {"json": body(), "headers": {"Idempotency-Key": "a"}},
    "key again": {"json": body(), "headers": {"Idempotency-Key": "a"}},
    "key of another request": {"json": body(name="other"), "headers": {"Idempotency-Key": "a"}},
    "unusable key": {"json": body(), "headers": {"Idempotency-Key": "a b"}},
    "no such field": {"json": body(surprise=1)},
    "no meaning": {"json": body(instance_type="p9", gpu_count=3)},
    "too long": {"json": body(duration_hours=60)},
    "too many GPUs": {"json": body(gpu_count=8)},
    "a disk in use": {"json": body(disk_name="data")},
    "no JSON": {"content": b"{", "headers": {"Content-Type": "application/json"}},
    "no body": {},
    "another type": {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
    "too large": {"content": b'{"image":"' + b"x" * (1 << 20) + b'"}', "headers": {"Content-Type": "application/json"}},
    "a bad key": {"json": body(), "headers": {"Authorization": "Bearer x"}},
    "a given id": {"json": body(), "headers": {"X-Request-Id": "mine"}},
}
_WRITTEN = Statement(
    sa.text(
        "SELECT jobs.*, job_access.*, outbox.type, outbox.entity_version, outbox.data, "
        "outbox.request_id IS NULL AS anonymous FROM jobs JOIN job_access ON job_id = jobs.id "
        "JOIN outbox ON entity_id = jobs.id::text ORDER BY outbox.id"
    )
)
_OWN = {"id", "job_id", "submit_message_id", "created_at", "updated_at", "due_at", "request_mac", "env_sealed"}
_OWN |= {"jupyter_token_sealed", "jupyter_requested_at", "data", "users"}


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def answers(
    world: JobsWorld, username: str, headers: dict[str, str]
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """To all of the requests of a user; then what was written of jobs, and in the audit."""
    refused = ClaimReply(refusal=ClaimRefusal(kind="conflict", text="The disk is in use"))
    found = {}
    async with world.service(username, tools_image="tools:1", max_gpus_per_user=4, max_total_hours=48) as client:

        async def up() -> bool:
            return bool((await client.get("/health/jobs")).json()["queue"] == "healthy")

        await eventually(up, "the service is connected")
        await client.get("/v1/jobs")  # from now on the key is remembered
        async with world.disks_answering(refused):
            for name, request in REQUESTS.items():
                given = {**request, "headers": {**headers, **request.get("headers", {})}}
                found[name] = told(await client.post("/v1/jobs/submit", **given))
    rows = [
        {name: value for name, value in row.items() if name not in _OWN | {"user_id", "username"}}
        for row in await world.database.fetch_all(_WRITTEN)
        if row["username"] == username
    ]
    entries = (await audit_endpoint(world.database)(AuditQuery(limit=100, username=username))).entries
    return found, rows, [(one.action, one.object_kind, one.object_name, one.address) for one in entries]


def told(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body, without what no two answers have in common."""
    headers = dict(answer.headers)
    if headers["x-request-id"] != "mine":
        assert len(headers.pop("x-request-id")) == 32
    content = msgspec.json.decode(answer.content)
    if answer.status_code == 200:
        headers.pop("content-length")
        content["message"] = content["message"].rstrip("0123456789)")
        assert len(content.pop("job_id")) == 36
    return answer.status_code, headers, content


async def test_both_ways_answer_and_write_alike(world: JobsWorld) -> None:
    fast, rows, entries = await answers(world, "fay", {})
    slow, rows_of_framework, entries_of_framework = await answers(world, "finn", FRAMEWORK)
    for name, answer in fast.items():
        assert answer == slow[name], name
    assert {name: answer[0] for name, answer in fast.items()} == {
        **dict.fromkeys(("plain", "everything", "key", "key again", "a given id"), 200),
        "key of another request": 422,
        **dict.fromkeys(("unusable key", "no such field", "no meaning", "too long", "no JSON", "no body"), 400),
        **dict.fromkeys(("too many GPUs", "a disk in use"), 409),
        "another type": 415,
        "too large": 413,
        "a bad key": 401,
    }
    assert len(rows) == 4
    assert rows == rows_of_framework
    assert (
        entries
        == entries_of_framework
        == [("submit_job", "job", name, "127.0.0.1") for name in (None, None, "run-1", None)]
    )


async def test_a_write_has_one_effect_though_two_ways_lead_to_it(client: Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    await client.get("/v1/jobs")
    first = await client.post("/v1/jobs/submit", json=body(), headers=headers)
    again = await client.post("/v1/jobs/submit", json=body(), headers={**headers, **FRAMEWORK})
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json() == first.json()
    assert (await client.get("/v1/jobs")).json()["total"] == 1
