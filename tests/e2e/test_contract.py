"""Every request of the contract's document, as it is written there, and its answer beside the documented one."""

import asyncio
import json
import os
import re
from typing import Any
from uuid import uuid4

import httpx

from tests.support.contract_document import assert_like, commands, endpoints, error_examples, quick_start
from tests.support.leftovers import ec2
from tests.support.load import parse_last_json, shell
from tests.support.stack import ApiUser, LocalStack, until, users

CONTRACT = endpoints()


async def ask(user: ApiUser, number: int, *, response: str = "Response", body: Any = None, **path: str) -> Any:
    """The example of this number is sent and its answer is like the documented one; the answer."""
    endpoint = CONTRACT[number]
    answer = await user.client.request(
        endpoint.method, endpoint.path.format(**path), json=endpoint.request if body is None else body
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
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=60) as client:
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
        await user.wait(with_disk["job_id"], "cancelled", seconds=60)
        example = CONTRACT[5].responses["Response"]
        wanted = ("instance_type", "duration_hours", "gpu_count", "name", "github_user", "jupyter_enabled")
        body = {"image": CONTRACT[4].request["image"], **{name: example[name] for name in wanted}}
        job_id = (await ask(user, 4, body=body))["job_id"]

        async def has_jupyter() -> bool:
            return (await user.job(job_id))["jupyter_url"] is not None

        await user.wait(job_id, "active", seconds=60)
        await until(has_jupyter, "Jupyter's URL", seconds=60)
        await ask(user, 5, job_id=job_id)
        await ask(user, 6)
        await lists_as_asked(user)
        for number in (8, 9, 10, 11):
            await ask(user, number, job_id=job_id)
        await ask(user, 12)
        await ask(user, 13)
        await ask(user, 7, job_id=job_id)
        await user.wait(job_id, "cancelled")


async def lists_as_asked(user: ApiUser) -> None:
    """The parameters of a listing do what the document says of them."""
    everything = (await user.client.get("/v1/jobs")).json()
    assert (everything["limit"], everything["offset"]) == (50, 0)
    open_ones = (await user.client.get("/v1/jobs?status=active,preparing")).json()
    assert [job["job_id"] for job in open_ones["jobs"]] == [
        job["job_id"] for job in everything["jobs"] if job["status"] in {"active", "preparing"}
    ]
    page = (await user.client.get("/v1/jobs?limit=10&offset=1")).json()
    assert (page["limit"], page["offset"], page["total"]) == (10, 1, everything["total"])
    assert page["jobs"] == everything["jobs"][1:]
    for query in ("limit=0", "limit=501", "offset=-1"):
        assert (await user.client.get(f"/v1/jobs?{query}")).status_code == 400, query


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


async def test_a_rename_that_aws_refuses_in_part_and_those_that_are_refused(stack: LocalStack) -> None:
    async with users(stack, "renames") as (user,):
        old, example = "old-disk-name", CONTRACT[19].responses["Response (Partial Success)"]
        made = (await user.client.post("/v1/disks", json={"disk_name": old, "size_gb": 10})).json()
        await operation_ends(user, old, made["operation_id"])
        for _ in range(3):
            taken = (await user.client.post(f"/v1/disks/{old}/snapshots")).json()
            await operation_ends(user, old, taken["operation_id"])
        # what somebody deletes in AWS behind our back cannot be tagged
        deleted = await asyncio.to_thread(delete_a_snapshot, stack, old)
        renamed = await ask(user, 19, response="Response (Partial Success)", disk_name=old)
        assert (renamed["message"], renamed["snapshots_updated"]) == (example["message"], 2)
        (error,) = renamed["errors"]
        assert re.fullmatch(rf"{deleted}: \S.*", error), error

        new = renamed["new_name"]
        other = (await user.client.post("/v1/disks", json={"disk_name": "other", "size_gb": 10})).json()
        await operation_ends(user, "other", other["operation_id"])
        job_id = await user.submit(gpu_count=1, disk_name="other", command="sleep 600")
        await user.wait(job_id, "active", seconds=60)
        await user.client.delete(f"/v1/disks/{new}")
        refused = {
            (new, "no blanks"): 400,
            ("nobodys", "free"): 404,
            ("other", "free"): 409,
            (new, "free"): 410,
        }
        for (disk, name), status in refused.items():
            answer = await user.client.post(f"/v1/disks/{disk}/rename", json={"new_name": name})
            assert (answer.status_code, list(answer.json())) == (status, ["detail"]), (disk, name, answer.text)
        await user.client.post(f"/v1/jobs/{job_id}/cancel")
        await user.wait(job_id, "cancelled")
        third = (await user.client.post("/v1/disks", json={"disk_name": "third", "size_gb": 10})).json()
        await operation_ends(user, "third", third["operation_id"])
        taken_name = await user.client.post("/v1/disks/third/rename", json={"new_name": "other"})
        assert taken_name.status_code == 409, taken_name.text


def delete_a_snapshot(stack: LocalStack, disk_name: str) -> str:
    """One of a disk's, in AWS alone; its id."""
    cloud = ec2(stack)
    found = cloud.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:Name", "Values": [disk_name]}])
    snapshot_id = str(found["Snapshots"][0]["SnapshotId"])
    cloud.delete_snapshot(SnapshotId=snapshot_id)
    return snapshot_id


async def test_the_commands_of_the_document_as_they_are_written(stack: LocalStack) -> None:
    """Every curl command, with nothing replaced but ids, which nobody can know before, and credentials."""
    told: dict[int, list[tuple[int, Any]]] = {}
    async with users(stack, "copies", "jeanschmidt") as (user, _):
        credentials = await asyncio.to_thread(stack.identity, "copies")
        ids = {f'"{name.lower()}": "..."': f'"{name.lower()}": "{value}"' for name, value in credentials.items()}
        ids['"ASIA..."'] = f'"{credentials["AWS_ACCESS_KEY_ID"]}"'
        environment = {**os.environ, "API_URL": stack.url, "API_KEY": user.key}

        async def run(number: int) -> Any:
            script = commands(number)
            for example, real in ids.items():
                script = script.replace(example, real)
            output = await asyncio.to_thread(shell, _SHOWN + script, environment=environment)
            parts = [part.rsplit("\n", 1) for part in output.split("\n=====\n")[:-1]]
            told[number] = [(int(status), json.loads(body)) for body, status in parts]
            return told[number][-1][1]

        for number in (2, 3, 4):
            await run(number)
        ids["abc-123-def-456"] = told[4][-1][1]["job_id"]
        stack.secrets.add((await run(1))["api_key"])
        await user.wait(ids["abc-123-def-456"], "active", seconds=60)
        for number in (5, 6, 8, 9, 10, 11, 12, 13, 14):
            await run(number)
        ids["op-123-abc"] = told[14][-1][1]["operation_id"]
        await operation_ends(user, "my-training-data", ids["op-123-abc"])
        for number in (15, 16, 18, 19):
            await run(number)
        ids["disks/my-training-data"] = "disks/my-training-data-v2"
        for number in (17, 7, 20):
            await run(number)
        stack.secrets.add(told[20][0][1]["api_key"])
        await user.wait(ids["abc-123-def-456"], "cancelled")
    assert sorted(told) == sorted(CONTRACT)
    assert {number: [status for status, _ in answers] for number, answers in told.items()} == {
        number: [200] * (3 if number == 6 else 1) for number in CONTRACT
    }
    assert told[16][0][1]["disk_name"] == "my-training-data"
    assert told[19][0][1]["new_name"] == "my-training-data-v2"


_SHOWN = "curl() { command curl -sS -w '\\n%{http_code}\\n=====\\n' \"$@\"; }\n"
"""Each answer with its status, and an end."""


async def test_the_statuses_that_all_endpoints_share(stack: LocalStack) -> None:
    """What no example shows: somebody else's object, what only operators may do, and that each answer is JSON."""
    async with users(stack, "shares") as (user,):
        missing = {
            f"/v1/jobs/{uuid4()}": {"detail": "Job not found"},
            "/v1/disks/nobodys": {"detail": "Disk not found"},
        }
        for path, detail in missing.items():
            answer = await user.client.get(path)
            assert (answer.status_code, answer.json()) == (404, detail)
            assert answer.headers["content-type"] == "application/json"
        forbidden = await user.client.get("/v1/auth/users")
        assert (forbidden.status_code, forbidden.json()) == (403, {"detail": "Only operators may list users"})
        for number in (6, 12, 13, 15):
            good = await user.client.get(CONTRACT[number].path)
            assert (good.status_code, good.headers["content-type"]) == (200, "application/json"), number


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
