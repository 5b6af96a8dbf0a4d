"""What is taken from users and what is refused, as it comes through the ingress."""

import re
from typing import Any
from uuid import uuid4

import pytest

from tests.support.harness import eventually
from tests.support.stack import LocalStack, users

JOB = {"image": "debian:12", "instance_type": "p5.48xlarge", "gpu_count": 1, "command": "exit 0"}


async def test_what_the_existing_client_passes_in_env_vars_is_read_generously(stack: LocalStack) -> None:
    reservation = str(uuid4())
    told = {
        "GPU_TYPE": " H100 ",
        "GPU_COUNT": "2 ",
        "GITHUB_USER": "@demo",
        "JUPYTER_ENABLED": "",
        "MINE": "x",
        "POD_NAME": "Änne's run, the 2nd!",
        "RESERVATION_ID": reservation.upper(),
    }
    async with users(stack, "demo") as (demo,):
        body = {name: value for name, value in JOB.items() if name != "gpu_count"}
        answer = await demo.client.post("/v1/jobs/submit", json={**body, "env_vars": told})
        assert (answer.status_code, answer.json()["job_id"]) == (200, reservation), answer.text
        job = await demo.wait(reservation, "completed")
        assert (job["gpu_count"], job["github_user"], job["jupyter_enabled"]) == (2, "demo", False)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", job["name"]), job["name"]


async def test_a_command_with_carriage_returns_is_refused_with_its_line(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        answer = await demo.client.post("/v1/jobs/submit", json={**JOB, "command": "echo a\necho b\r\n"})
        assert answer.status_code == 400
        (problem,) = answer.json()["detail"]
        assert problem["loc"] == ["body", "command"]
        assert problem["msg"].startswith("Line 2 has a carriage return")


async def test_a_job_may_be_no_longer_than_jobs_may_be(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        answer = await demo.client.post("/v1/jobs/submit", json={**JOB, "duration_hours": 169})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["body", "duration_hours"])


@pytest.mark.parametrize(
    ("path", "limit"), [("/v1/auth/aws-login", 16 << 10), ("/v1/disks", 16 << 10), ("/v1/jobs/submit", 1 << 20)]
)
async def test_a_body_has_the_size_that_its_route_is_for(stack: LocalStack, path: str, limit: int) -> None:
    async with users(stack, "demo") as (demo,):
        for size, status in ((limit, 400), (limit + 1, 413), (2 << 20, 413)):
            body = b'{"x":"' + b"y" * (size - 8) + b'"}'
            # often: who is refused while they are still sending has to get the answer too
            for _ in range(10):
                answer = await demo.client.post(path, content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code == status, (size, answer.text)


async def test_who_has_no_good_key_is_told_so_whatever_they_send(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        headers = {"Authorization": f"Bearer {demo.key[:-1]}_", "Content-Type": "application/json"}
        for _ in range(20):
            answer = await demo.client.post("/v1/jobs/submit", content=b"x" * (1 << 20), headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid API key"})


async def test_a_query_is_at_most_8_kb(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        answer = await demo.client.get("/v1/jobs?status=" + "x" * 8192)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["query"])


@pytest.mark.parametrize("path", ["/v1/gpu/availability", "/v1/cluster/status"])
@pytest.mark.parametrize("way", [{}, {"Prefer": "respond-async"}], ids=["before the framework", "by its route"])
async def test_who_has_what_the_cluster_shows_is_told_so_without_a_body(
    stack: LocalStack, path: str, way: dict[str, str]
) -> None:
    async with users(stack, "demo") as (demo,):

        async def known() -> Any:
            tag = (await demo.client.get(path, headers=way)).headers["etag"]
            same = await demo.client.get(path, headers={"If-None-Match": tag, **way})
            # what other tests have begun may have changed it in between
            return same if same.headers["etag"] == tag else None

        same = await eventually(known, "it stays the same between two reads")
        assert (same.status_code, same.content, same.headers["cache-control"]) == (304, b"", "no-store")
        other = await demo.client.get(path, headers={"If-None-Match": '"another"', **way})
        assert (other.status_code, "timestamp" in other.json()) == (200, True)
