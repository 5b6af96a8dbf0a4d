"""Every request of the contract's document, as it is written there, and its answer beside the documented one."""

import asyncio
import os
import re
from typing import Any

import httpx

from tests.support.contract_document import assert_like, endpoints, error_examples, quick_start
from tests.support.load import parse_last_json, shell
from tests.support.stack import ApiUser, LocalStack, until, users

CONTRACT = endpoints()


async def ask(user: ApiUser, number: int, *, response: str = "Response", json: Any = None, **path: str) -> Any:
    """The example of this number is sent and its answer is like the documented one; the answer."""
    endpoint = CONTRACT[number]
    answer = await user.client.request(
        endpoint.method, endpoint.path.format(**path), json=endpoint.request if json is None else json
    )
    assert answer.status_code == 200, answer.text
    assert_like(endpoint.responses[response], answer.json(), abridged=endpoint.abridged and number == 6)
    return answer.json()


async def operation_ends(user: ApiUser, name: str, operation_id: str) -> None:
    async def completed() -> bool:
        return bool((await user.client.get(f"/v1/disks/{name}/operations/{operation_id}")).json()["completed"])

    await until(completed, f"the operation on {name}")


def test_the_document_has_its_twenty_endpoints() -> None:
    assert sorted(CONTRACT) == list(range(1, 21))
    assert all(endpoint.responses for endpoint in CONTRACT.values())


async def test_the_public_examples(stack: LocalStack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        exported = await asyncio.to_thread(stack.identity, "jschmidt")
        body = {name: exported[name.upper()] for name in CONTRACT[1].request}
        stack.secrets |= set(body.values()) - {body["aws_access_key_id"]}
        login = (await client.post(CONTRACT[1].path, json=body)).json()
        stack.secrets.add(login["api_key"])
        assert_like(CONTRACT[1].responses["Response"], login)
        assert (login["username"], login["ttl_hours"]) == ("jschmidt", 2)
        assert login["aws_arn"].endswith("/SSOCloudDevGpuReservation/jschmidt")

        async def healthy() -> Any:
            answer = await client.get(CONTRACT[2].path)
            return answer.json() if answer.status_code == 200 else None

        assert_like(CONTRACT[2].responses["Response"], await until(healthy, "health"))
        info = (await client.get(CONTRACT[3].path)).json()
        assert (info, list(info)) == (CONTRACT[3].responses["Response"], list(CONTRACT[3].responses["Response"]))


async def test_the_examples_of_jobs_and_the_cluster(stack: LocalStack) -> None:
    async with users(stack, "jschmidt", "jeanschmidt") as (user, _):
        with_disk = await ask(user, 4)
        await user.client.post(f"/v1/jobs/{with_disk['job_id']}/cancel")
        example = CONTRACT[5].responses["Response"]
        wanted = ("instance_type", "duration_hours", "gpu_count", "name", "github_user", "jupyter_enabled")
        body = {"image": CONTRACT[4].request["image"], **{name: example[name] for name in wanted}}
        job_id = (await ask(user, 4, json=body))["job_id"]

        async def has_jupyter() -> bool:
            return (await user.job(job_id))["jupyter_url"] is not None

        await user.wait(job_id, "active", seconds=60)
        await until(has_jupyter, "Jupyter's URL", seconds=60)
        await ask(user, 5, job_id=job_id)
        await ask(user, 6)
        for number in (8, 9, 10, 11):
            await ask(user, number, job_id=job_id)
        await ask(user, 12)
        await ask(user, 13)
        await ask(user, 7, job_id=job_id)
        await user.wait(job_id, "cancelled")


async def test_the_examples_of_disks(stack: LocalStack) -> None:
    async with users(stack, "disk-owner") as (user,):
        created = await ask(user, 14)
        name = created["disk_name"]
        await operation_ends(user, name, created["operation_id"])
        await ask(user, 18, disk_name=name, operation_id=created["operation_id"])
        await ask(user, 15)
        await ask(user, 16, disk_name=name)
        await ask(user, 17, disk_name=name)
        old = CONTRACT[19].responses["Response (Success)"]["old_name"]
        for snapshots, response in ((3, "Response (Success)"), (0, "Response (No Snapshots)")):
            disk = {"disk_name": old, "size_gb": 10}
            made = (await user.client.post("/v1/disks", json=disk)).json()
            await operation_ends(user, old, made["operation_id"])
            for _ in range(snapshots):
                taken = (await user.client.post(f"/v1/disks/{old}/snapshots")).json()
                await operation_ends(user, old, taken["operation_id"])
            renamed = await ask(user, 19, response=response, disk_name=old)
            assert renamed["snapshots_updated"] == snapshots
            assert "errors" not in renamed
            await user.client.delete(f"/v1/disks/{renamed['new_name']}")


async def test_the_examples_of_keys_and_errors(stack: LocalStack) -> None:
    async with users(stack, "rotates") as (user,):
        stack.secrets.add((await ask(user, 20))["api_key"])
        plain, validation = error_examples()
        body = {"instance_type": "p5.48xlarge"}
        refused = await user.client.post("/v1/jobs/submit", json=body)
        unknown = await user.client.get("/v1/jobs", headers={"Authorization": "Bearer nonsense"})
    assert (refused.status_code, unknown.status_code) == (400, 401)
    assert unknown.json() == plain
    assert refused.json() == {"detail": [{**validation["detail"][0], "input": body}]}
    assert list(refused.json()["detail"][0]) == list(validation["detail"][0])


async def test_the_quick_start_runs_with_nothing_but_its_two_lines_of_environment_replaced(stack: LocalStack) -> None:
    credentials, url = r"^eval \$\(cloud_corp .*$", r"^API_URL=.*$"
    script = quick_start()
    assert len(re.findall(f"{credentials}|{url}", script, re.MULTILINE)) == 2
    script = re.sub(credentials, "", script, flags=re.MULTILINE)
    script = re.sub(url, f'API_URL="{stack.url}"', script, flags=re.MULTILINE)
    output = await asyncio.to_thread(shell, script, environment={**os.environ, **stack.exports()})
    job = parse_last_json(output)
    assert list(job)[: len(CONTRACT[5].responses["Response"])] == list(CONTRACT[5].responses["Response"])
    async with users(stack, "demo") as (demo,):
        await demo.wait(job["job_id"], "active")
        await demo.client.post(f"/v1/jobs/{job['job_id']}/cancel")
        await demo.wait(job["job_id"], "cancelled")
