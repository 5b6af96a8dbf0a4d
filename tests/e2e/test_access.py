"""Every route of the API document, without a key, with a bad one, and with another user's."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.api_key import new_api_key
from tests.support.stack import ApiUser, LocalStack, until, users

# The 20 endpoints of the contract, and what we added.
ROUTES = {
    ("post", "/v1/auth/aws-login"), ("get", "/health"), ("get", "/"), ("get", "/openapi.json"),
    ("post", "/v1/jobs/submit"), ("get", "/v1/jobs/{job_id}"), ("get", "/v1/jobs"),
    ("post", "/v1/jobs/{job_id}/cancel"), ("post", "/v1/jobs/{job_id}/extend"),
    ("post", "/v1/jobs/{job_id}/jupyter/enable"), ("post", "/v1/jobs/{job_id}/jupyter/disable"),
    ("post", "/v1/jobs/{job_id}/users"), ("post", "/v1/jobs/{job_id}/priority"),
    ("get", "/v1/jobs/{job_id}/logs"), ("get", "/v1/jobs/{job_id}/history"), ("get", "/v1/jobs/{job_id}/explain"),
    ("get", "/v1/gpu/availability"), ("get", "/v1/cluster/status"),
    ("post", "/v1/disks"), ("get", "/v1/disks"), ("get", "/v1/disks/{disk_name}"),
    ("delete", "/v1/disks/{disk_name}"), ("post", "/v1/disks/{disk_name}/rename"),
    ("post", "/v1/disks/{disk_name}/restore"), ("get", "/v1/disks/{disk_name}/content"),
    ("get", "/v1/disks/{disk_name}/snapshots"), ("post", "/v1/disks/{disk_name}/snapshots"),
    ("get", "/v1/disks/{disk_name}/operations/{operation_id}"),
    ("post", "/v1/keys/rotate"), ("get", "/v1/keys"), ("delete", "/v1/keys/{key_prefix}"),
    ("get", "/health/auth"), ("get", "/health/jobs"), ("get", "/health/disks"), ("get", "/health/capacity"),
}  # fmt: skip
BODIES = {
    "/v1/jobs/{job_id}/extend": {"extension_hours": 1}, "/v1/jobs/{job_id}/users": {"github_username": "demo"},
    "/v1/disks/{disk_name}/rename": {"new_name": "other"}, "/v1/jobs/{job_id}/priority": {"priority": 1},
}  # fmt: skip
PUBLIC = {route for route in ROUTES if not route[1].startswith("/v1/")} | {("post", "/v1/auth/aws-login")}
REFUSED = (401, {"detail": "Invalid API key"}, "Bearer")


async def document(stack: LocalStack) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def routes_of(spec: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method, path) for path, item in spec["paths"].items() for method in item}


async def test_the_document_is_valid_and_holds_every_route(stack: LocalStack) -> None:
    spec = await document(stack)
    OpenAPIV31SpecValidator(spec).validate()
    assert routes_of(spec) == ROUTES
    assert all(operation.get("summary") for item in spec["paths"].values() for operation in item.values())


async def test_a_slash_at_the_end_of_a_path_makes_no_difference(stack: LocalStack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        for method, path in sorted(ROUTES - {("get", "/")}):
            plain, slashed = [await client.request(method, path + end) for end in ("", "/")]
            assert slashed.status_code == plain.status_code != 404, path
            assert slashed.headers["content-type"] == plain.headers["content-type"], path


async def test_no_route_answers_without_a_good_key(stack: LocalStack) -> None:
    async with users(stack, "revokes") as (leaver,):
        revoked = leaver.key
        prefix = (await leaver.client.get("/v1/keys")).json()["keys"][0]["key_prefix"]
        assert (await leaver.client.delete(f"/v1/keys/{prefix}")).status_code == 200
        headers = {
            "no key": {},
            "unknown": {"Authorization": f"Bearer {new_api_key().text}"},
            "typing error": {"Authorization": f"Bearer {revoked[:-1]}_"},
            "other scheme": {"Authorization": f"Basic {revoked}"},
            "revoked": {"Authorization": f"Bearer {revoked}"},
        }

        async def dead_everywhere() -> bool:
            paths = ("/v1/jobs", "/v1/disks", "/v1/gpu/availability", "/v1/keys")
            return {(await leaver.client.get(path)).status_code for path in paths} == {401}

        await until(dead_everywhere, "revocation in every service", seconds=2)
    spec = await document(stack)
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        for method, path in sorted(routes_of(spec) - PUBLIC):
            for name, header in headers.items():
                answer = await client.request(method, re.sub(r"\{\w+\}", "x", path), headers=header, content=b"{")
                given = (answer.status_code, answer.json(), answer.headers.get("www-authenticate"))
                assert given == REFUSED, (method, path, name)


@pytest.fixture
def missing() -> dict[str, str]:
    return {"job_id": "00000000-0000-4000-8000-000000000000", "disk_name": "no-such-disk",
            "operation_id": "00000000-0000-4000-8000-000000000001", "key_prefix": "gpudev_0000000000"}  # fmt: skip


async def owned(user: ApiUser) -> dict[str, str]:
    job_id = await user.submit(gpu_count=1, command="sleep 300")
    disk = await user.client.post("/v1/disks", json={"disk_name": "private", "size_gb": 10})
    keys = (await user.client.get("/v1/keys")).json()["keys"]
    return {"job_id": job_id, "disk_name": "private", "operation_id": disk.json()["operation_id"],
            "key_prefix": keys[0]["key_prefix"]}  # fmt: skip


async def test_what_is_anothers_looks_as_if_it_were_not_there(stack: LocalStack, missing: dict[str, str]) -> None:
    spec = await document(stack)
    async with users(stack, "owner", "stranger") as (owner, stranger):
        theirs = await owned(owner)
        for method, path in sorted(routes_of(spec)):
            if "{" not in path:
                continue
            others = await stranger.client.request(method, path.format(**theirs), json=BODIES.get(path))
            none = await stranger.client.request(method, path.format(**missing), json=BODIES.get(path))
            for_operators = path == "/v1/jobs/{job_id}/priority"
            assert others.status_code == none.status_code == (403 if for_operators else 404), (
                method,
                path,
                others.text,
            )
            assert others.json() == none.json(), (method, path)
            assert for_operators or "not found" in others.json()["detail"]
        await owner.client.post(f"/v1/jobs/{theirs['job_id']}/cancel")
        await owner.wait(theirs["job_id"], "cancelled")


async def test_an_operator_of_the_settings_moves_anybodys_waiting_job(stack: LocalStack) -> None:
    async with users(stack, "owner", "operator") as (owner, operator):
        jobs = [await owner.submit(instance_type="p4d.24xlarge", command="sleep 300") for _ in range(3)]
        waiting = jobs[2]
        await owner.wait(waiting, "queued")
        path = f"/v1/jobs/{waiting}/priority"
        refused = await owner.client.post(path, json={"priority": 7})
        assert (refused.status_code, refused.json()) == (403, {"detail": "Only operators may set priorities"})
        moved = await operator.client.post(path, json={"priority": 7})
        assert moved.status_code == 200, moved.text

        async def told() -> bool:
            return (await owner.client.get(f"/v1/jobs/{waiting}/explain")).json().get("priority") == 7

        await until(told, "the priority in the line")
        rotated = (await operator.client.post("/v1/keys/rotate")).json()["api_key"]
        again = await operator.client.post(path, json={"priority": 8}, headers={"Authorization": f"Bearer {rotated}"})
        assert again.status_code == 200, again.text
        stack.secrets.add(rotated)
        for job_id in jobs:
            await owner.client.post(f"/v1/jobs/{job_id}/cancel")
        for job_id in jobs:
            await owner.wait(job_id, "cancelled")


async def test_a_wrong_aws_secret_is_refused_and_told_to_nobody(stack: LocalStack) -> None:
    exported = await asyncio.to_thread(stack.identity, "carol")
    wrong = "wrong" + exported["AWS_SECRET_ACCESS_KEY"][5:]
    stack.secrets.add(wrong)
    body = {
        "aws_access_key_id": exported["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": wrong,
        "aws_session_token": exported["AWS_SESSION_TOKEN"],
    }
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        answer = await client.post("/v1/auth/aws-login", json=body)
        assert answer.status_code == 401
        invalid = await client.post("/v1/auth/aws-login", json={**body, "extra": wrong, "aws_session_token": 5})
        assert invalid.status_code == 400
        assert wrong not in invalid.text + answer.text


async def test_the_services_own_way_to_check_keys_is_nowhere_without_their_token(stack: LocalStack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        for headers in ({}, {"X-GPUDev-Internal-Token": ""}, {"X-GPUDev-Internal-Token": "guess"}):
            answer = await client.post("/internal/verify", json={"key_hash": "0" * 64}, headers=headers)
            nowhere = await client.post("/internal/nowhere", json={}, headers=headers)
            assert (answer.status_code, answer.json()) == (nowhere.status_code, nowhere.json()) == (404, nowhere.json())
