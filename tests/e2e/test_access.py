"""The API document's routes, and the doors that are no user's."""

import asyncio
from typing import Any

import httpx
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.contract_document import sections
from tests.support.route_table import DOCUMENTED
from tests.support.stack import LocalStack, answered, until, users


async def document(stack: LocalStack) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=60) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def routes_of(spec: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method, path) for path, item in spec["paths"].items() for method in item}


async def test_the_document_is_valid_and_holds_every_route(stack: LocalStack) -> None:
    spec = await document(stack)
    OpenAPIV31SpecValidator(spec).validate()
    assert routes_of(spec) == set(DOCUMENTED)
    assert all(operation.get("summary") for item in spec["paths"].values() for operation in item.values())


async def test_each_section_of_the_page_is_in_the_contracts_order(stack: LocalStack) -> None:
    """The page shows the document's tags and operations as they follow in it; what the contract lacks comes last."""
    spec = await document(stack)
    shown: dict[str, list[tuple[str, str]]] = {tag["name"]: [] for tag in spec["tags"]}
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            shown[operation["tags"][0]].append((method.upper(), path))
    written = sections()
    assert [name for name in shown if name in written] == list(written)
    assert {name: shown[name][: len(rows)] for name, rows in written.items()} == written


async def test_a_slash_at_the_end_of_a_path_makes_no_difference(stack: LocalStack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=60) as client:
        for method, path in sorted(set(DOCUMENTED) - {("get", "/")}):
            plain, slashed = [await answered(client, method, path + end) for end in ("", "/")]
            assert slashed.status_code == plain.status_code != 404, path
            assert slashed.headers["content-type"] == plain.headers["content-type"], path


async def test_an_operator_of_the_settings_moves_anybodys_waiting_job(stack: LocalStack) -> None:
    async with users(stack, "owner", "operator") as (owner, operator):
        jobs = [await owner.submit(instance_type="p4d.24xlarge", command="sleep 300") for _ in range(3)]
        waiting = jobs[2]
        # until two of them have all the GPUs, a higher priority would have the third start first
        for job_id in jobs[:2]:
            await owner.wait(job_id, "active")
        await owner.wait(waiting, "queued")
        path = f"/v1/jobs/{waiting}/priority"
        refused = await owner.client.post(path, json={"priority": 7})
        assert (refused.status_code, refused.json()) == (403, {"detail": "Only operators may set priorities"})
        moved = await operator.client.post(path, json={"priority": 7})
        assert moved.status_code == 200, moved.text

        async def told() -> bool:
            return (await owner.client.get(f"/v1/jobs/{waiting}/explain")).json().get("priority") == 7

        await until(told, "the priority in the queue")
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
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=60) as client:
        answer = await client.post("/v1/auth/aws-login", json=body)
        assert answer.status_code == 401
        invalid = await client.post("/v1/auth/aws-login", json={**body, "extra": wrong, "aws_session_token": 5})
        assert invalid.status_code == 400
        assert wrong not in invalid.text + answer.text


async def test_the_services_own_way_to_check_keys_is_nowhere_without_their_token(stack: LocalStack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=60) as client:
        for headers in ({}, {"X-GPUDev-Internal-Token": ""}, {"X-GPUDev-Internal-Token": "guess"}):
            answer = await client.post("/internal/verify", json={"key_hash": "0" * 64}, headers=headers)
            nowhere = await client.post("/internal/nowhere", json={}, headers=headers)
            assert (answer.status_code, answer.json()) == (nowhere.status_code, nowhere.json()) == (404, nowhere.json())
