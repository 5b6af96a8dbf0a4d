"""What is asked of jobs and webhooks leaves an entry each, also where new jobs are written many at once."""

import asyncio
from typing import Any
from uuid import UUID

from shared.audit import audit_endpoint
from shared.contracts.audit import AuditEntry, AuditQuery
from tests.support.audited import changing_routes
from tests.support.jobs import ACTIVE, JobsWorld

FROM = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7"}
"""The ingress adds the last one; what stands before it the client may have written."""
JOB = {"image": "debian:12", "instance_type": "p5.48xlarge", "gpu_count": 1, "name": "training"}


async def entries(world: JobsWorld, username: str) -> list[AuditEntry]:
    """Of a user, oldest first."""
    return (await audit_endpoint(world.database)(AuditQuery(limit=100, username=username))).entries[::-1]


async def test_submits_leave_an_entry_each_with_who_and_from_where(jobs_without_cluster: JobsWorld) -> None:
    world = jobs_without_cluster
    async with world.service("submits") as client:
        headers = {**FROM, "X-Request-Id": "one"}
        first = (await client.post("/v1/jobs/submit", json=JOB, headers=headers)).json()["job_id"]
        batch = (await client.post("/v1/jobs/batch", json={"jobs": [JOB, JOB]}, headers=FROM)).json()["jobs"]
        together = await asyncio.gather(*(client.post("/v1/jobs/submit", json=JOB, headers=FROM) for _ in range(20)))
    entry, *rest = await entries(world, "submits")
    assert (entry.action, entry.username, entry.user_id) == (
        "submit_job",
        "submits",
        world.people.keys["submits"][1].user_id,
    )
    assert (entry.object_kind, entry.object_id, entry.object_name) == ("job", first, "training")
    assert (entry.address, entry.request_id) == ("198.51.100.7", "one")
    assert entry.key_prefix == f"gpudev_{world.people.keys['submits'][1].key_id}"
    assert [(one.action, one.object_id) for one in rest[:2]] == [("submit_jobs", job["job_id"]) for job in batch]
    told = {("submit_job", answer.json()["job_id"], "198.51.100.7") for answer in together}
    assert {(one.action, one.object_id, one.address) for one in rest[2:]} == told
    assert len(rest) == 22


async def test_a_repetition_and_a_refusal_leave_none(jobs_without_cluster: JobsWorld) -> None:
    world = jobs_without_cluster
    async with world.service("repeats") as client:
        for _ in range(2):
            await client.post("/v1/jobs/submit", json=JOB, headers={"Idempotency-Key": "k"})
        refused = await client.post("/v1/jobs/submit", json={**JOB, "duration_hours": 1000})
        assert refused.status_code == 400
        missing = await client.post("/v1/jobs/00000000-0000-4000-8000-000000000000/cancel")
        assert missing.status_code == 404
    assert [one.action for one in await entries(world, "repeats")] == ["submit_job"]


async def test_a_user_who_may_wait_with_so_many_jobs_alone_leaves_one_entry_a_job(
    jobs_without_cluster: JobsWorld,
) -> None:
    """Such a job is written in another way."""
    world = jobs_without_cluster
    async with world.service("waits", max_waiting_jobs_per_user=1) as client:
        assert (await client.post("/v1/jobs/submit", json=JOB)).status_code == 200
        assert (await client.post("/v1/jobs/submit", json=JOB)).status_code == 409
    assert [one.action for one in await entries(world, "waits")] == ["submit_job"]


async def test_webhooks_and_cancellations_leave_entries_without_secrets(jobs_without_cluster: JobsWorld) -> None:
    world = jobs_without_cluster
    async with world.service("hooks") as client:
        job_id = (await client.post("/v1/jobs/submit", json=JOB)).json()["job_id"]
        made = (await client.post("/v1/webhooks", json={"url": "https://93.184.215.14/hook/s3cret-path"})).json()
        webhook_id = made["webhook_id"]
        await client.post(f"/v1/webhooks/{webhook_id}/test")
        await client.delete(f"/v1/webhooks/{webhook_id}")
        await client.post(f"/v1/jobs/{job_id[:8]}/cancel")
    found = await entries(world, "hooks")
    assert [(one.action, one.object_id) for one in found] == [
        ("submit_job", job_id),
        ("create_webhook", webhook_id),
        ("test_webhook", webhook_id),
        ("delete_webhook", webhook_id),
        ("cancel_job", job_id),
    ]
    assert "s3cret" not in str(found)
    assert made["secret"] not in str(found)


async def test_every_route_of_jobs_that_changes_something_leaves_an_entry(jobs_without_cluster: JobsWorld) -> None:
    """SSH sessions, which are no change, are in test_tunnel."""
    world = jobs_without_cluster
    async with world.service("every", tools_image="tools:1") as client:

        async def ask(method: str, path: str, body: Any = None, **headers: str) -> Any:
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 200, (path, answer.text)
            return answer.json()

        job_id = (await ask("POST", "/v1/jobs/submit", JOB))["job_id"]
        second = (await ask("POST", "/v1/jobs/batch", {"jobs": [JOB]}))["jobs"][0]["job_id"]
        await ask("POST", f"/v1/jobs/{second}/priority", {"priority": 1}, **world.people.bearer("olga"))
        await world.update(UUID(job_id), ACTIVE)
        await ask("POST", f"/v1/jobs/{job_id}/extend", {"extension_hours": 1})
        await ask("POST", f"/v1/jobs/{job_id}/jupyter/enable")
        await ask("POST", f"/v1/jobs/{job_id}/jupyter/disable")
        await ask("POST", f"/v1/jobs/{job_id}/users", {"github_username": "demo"})
        await ask("POST", f"/v1/jobs/{job_id}/cancel")
        hook = (await ask("POST", "/v1/webhooks", {"url": "https://93.184.215.14/hook"}))["webhook_id"]
        await ask("POST", f"/v1/webhooks/{hook}/test")
        await ask("DELETE", f"/v1/webhooks/{hook}")
    found = [*await entries(world, "every"), *await entries(world, "olga")]
    told = {one.action: one.object_id for one in found}
    assert told.keys() == changing_routes("jobs")
    of_job = {"submit_job", "extend_job", "enable_jupyter", "disable_jupyter", "add_user", "cancel_job"}
    assert {told[action] for action in of_job} == {job_id}
    assert told["submit_jobs"] == told["prioritise_job"] == second
