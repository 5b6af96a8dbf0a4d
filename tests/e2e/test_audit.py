"""Every route that changes something leaves an entry of who did it, to what, and from where."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gpudev import AsyncClient
from tests.support.stack import ApiUser, LocalStack, until, users

pytestmark = pytest.mark.timeout(180)

OPERATORS_ACTIONS = {"prioritise_job", "disable_user", "enable_user"}
READS = {"get", "head", "options"}
WAITING = 3
"""Of jobs for whole nodes one more than there are nodes of the type."""
JOB = {"image": "debian:12", "instance_type": "p5.48xlarge", "gpu_count": 1, "command": "sleep 300"}


class Walk:
    """Each change once, with a request id by which its entry is found."""

    def __init__(self, stack: LocalStack, owner: ApiUser, operator: ApiUser) -> None:
        self.stack, self.owner, self.operator = stack, owner, operator
        self.sent: dict[str, tuple[str | None, str]] = {}
        """By operation id: the request's id, None where it is not known, and the id of what it was about."""

    async def send(self, action: str, method: str, path: str, about: str | None = None, **given: Any) -> dict[str, Any]:
        """Ask for a change; its answer. `about`: what the entry is to name, or in which field the answer names it."""
        user = given.pop("by", self.owner)
        request_id = os.urandom(8).hex()
        answer = await user.client.request(method, path, headers={"X-Request-Id": request_id}, **given)
        assert answer.status_code == 200, (action, answer.text)
        body: dict[str, Any] = answer.json()
        self.sent[action] = (request_id, str(body.get(about or "", about)))
        return body

    async def log_in(self) -> None:
        """As the owner, once more, in both ways."""
        exported = await asyncio.to_thread(self.stack.identity, self.owner.name)
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        self.stack.secrets |= {exported[name] for name in names[1:]}
        body = {name.lower(): exported[name] for name in names}
        answer = await self.send("aws_login", "POST", "/v1/auth/aws-login", "key_prefix", json=body)
        self.stack.secrets.add(answer["api_key"])
        wanted = (await self.owner.client.get("/v1/auth/aws-signing")).json()
        headers = {"host": wanted["host"], "x-gpudev-login": wanted["x_gpudev_login"]}
        request = AWSRequest("POST", f"http://{wanted['host']}/", data=wanted["body"], headers=headers)
        credentials = Credentials(*(exported[name] for name in names))
        SigV4Auth(credentials, wanted["service"], wanted["region"]).add_auth(request)
        signed = {
            "aws_access_key_id": exported[names[0]],
            "aws_session_token": exported[names[2]],
            "signed_at": request.headers["X-Amz-Date"],
            "signature": request.headers["Authorization"].rpartition("Signature=")[2],
        }
        answer = await self.send("aws_signed_login", "POST", "/v1/auth/aws-signed-login", "key_prefix", json=signed)
        self.stack.secrets.add(answer["api_key"])

    async def jobs(self) -> None:
        """Everything that can be done with a job."""
        job_id = (await self.send("submit_job", "POST", "/v1/jobs/submit", "job_id", json=JOB))["job_id"]
        of_job = f"/v1/jobs/{job_id}"
        batch = await self.send("submit_jobs", "POST", "/v1/jobs/batch", json={"jobs": [JOB]})
        second = batch["jobs"][0]["job_id"]
        self.sent["submit_jobs"] = (self.sent["submit_jobs"][0], second)
        await self.owner.wait(job_id, "active")
        await self.send("extend_job", "POST", f"{of_job}/extend", job_id, json={"extension_hours": 1})
        await self.send("enable_jupyter", "POST", f"{of_job}/jupyter/enable", job_id)
        await self.send("disable_jupyter", "POST", f"{of_job}/jupyter/disable", job_id)
        await self.send("add_user", "POST", f"{of_job}/users", job_id, json={"github_username": "demo"})
        async with AsyncClient(self.stack.url, self.owner.key) as client, client.open_ssh(job_id):
            self.sent["open_ssh"] = (None, job_id)
        await self.send("cancel_job", "POST", f"{of_job}/cancel", job_id)
        await self.owner.client.post(f"/v1/jobs/{second}/cancel")
        for ending in (job_id, second):
            await self.owner.wait(ending, "cancelled")
        await self.prioritise()

    async def prioritise(self) -> None:
        """A job that waits for the GPUs of others."""
        jobs = [await self.owner.submit(gpu_count=8, command="sleep 300") for _ in range(WAITING)]
        for job_id in jobs[:-1]:
            await self.owner.wait(job_id, "active")
        path = f"/v1/jobs/{jobs[-1]}/priority"
        await self.send("prioritise_job", "POST", path, jobs[-1], by=self.operator, json={"priority": 1})
        for job_id in jobs:
            await self.owner.client.post(f"/v1/jobs/{job_id}/cancel")

    async def disks(self) -> None:
        """Everything that can be done with a disk."""
        made = await self.send("create_disk", "POST", "/v1/disks", json={"disk_name": "audited", "size_gb": 10})
        disk_id = (await self.owner.client.get("/v1/disks/audited")).json()["disk_id"]
        self.sent["create_disk"] = (self.sent["create_disk"][0], disk_id)
        for action, method, path, body in (
            ("create_disk_snapshot", "POST", "/v1/disks/audited/snapshots", None),
            ("rename_disk", "POST", "/v1/disks/audited/rename", {"new_name": "renamed"}),
            ("delete_disk", "DELETE", "/v1/disks/renamed", None),
            ("restore_disk", "POST", "/v1/disks/renamed/restore", None),
        ):
            await self._quiet(made["operation_id"])
            answer = await self.send(action, method, path, disk_id, json=body)
            made = {"operation_id": answer["operation_id"]}

    async def _quiet(self, operation_id: str) -> None:
        async def over() -> bool:
            for name in ("audited", "renamed"):
                answer = await self.owner.client.get(f"/v1/disks/{name}/operations/{operation_id}")
                if answer.status_code == 200:
                    return bool(answer.json()["completed"])
            return False

        await until(over, "the operation")

    async def webhooks(self) -> None:
        """Everything that can be done with a webhook."""
        body = {"url": "https://93.184.215.14/hook/secret-of-the-path"}
        webhook_id = (await self.send("create_webhook", "POST", "/v1/webhooks", "webhook_id", json=body))["webhook_id"]
        await self.send("test_webhook", "POST", f"/v1/webhooks/{webhook_id}/test", webhook_id)
        await self.send("delete_webhook", "DELETE", f"/v1/webhooks/{webhook_id}", webhook_id)

    async def keys(self) -> None:
        """Everything that can be done with a key."""
        own = (await self.owner.client.get("/v1/keys")).json()["keys"]
        prefix = next(key["key_prefix"] for key in own if key["current"])
        code = await self.send("create_console_code", "POST", "/v1/auth/console-codes", prefix)
        self.stack.secrets.add(code["code"])
        body = {"code": code["code"]}
        given = await self.send("console_login", "POST", "/v1/auth/console-login", "key_prefix", json=body)
        self.stack.secrets.add(given["api_key"])
        new = await self.send("rotate_key", "POST", "/v1/keys/rotate", "key_prefix")
        self.stack.secrets.add(new["api_key"])
        await self.send("revoke_key", "DELETE", f"/v1/keys/{new['key_prefix']}", new["key_prefix"])

    async def owner_disabled(self) -> None:
        """The last of all: it ends the owner's keys."""
        user_id = str(await self.stack.user_id(self.owner.name))
        for action in ("disable", "enable"):
            path = f"/v1/auth/users/{user_id}/{action}"
            await self.send(f"{action}_user", "POST", path, user_id, by=self.operator)


async def entries(operator: ApiUser, **asked: str | int) -> list[dict[str, Any]]:
    answer = await operator.client.get("/v1/audit", params=asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["entries"])


async def changing_routes(user: ApiUser) -> set[str]:
    """Operation ids of all routes that are no reads."""
    document = (await user.client.get("/openapi.json")).json()
    return {
        definition["operationId"]
        for item in document["paths"].values()
        for method, definition in item.items()
        if method not in READS
    }


async def test_every_route_that_changes_something_leaves_an_entry(stack: LocalStack) -> None:
    async with users(stack, "audited", "operator") as (owner, operator):
        walk = Walk(stack, owner, operator)
        steps: list[Callable[[], Awaitable[None]]] = [walk.log_in, walk.disks, walk.webhooks, walk.jobs, walk.keys]
        for step in (*steps, walk.owner_disabled):
            await step()
        assert walk.sent.keys() - {"open_ssh"} == await changing_routes(operator)
        for action, (request_id, about) in walk.sent.items():
            found = await entries(operator, action=action, object=about)
            assert len(found) == 1, (action, found)
            (entry,) = found
            assert request_id in {None, entry["request_id"]}, action
            who = "operator" if action in OPERATORS_ACTIONS else "audited"
            assert (entry["object_id"], entry["username"], entry["address"]) == (about, who, "127.0.0.1"), action
            assert (entry["key_prefix"] is None) == action.endswith("_login"), action
        every = await entries(operator, limit=200)
        assert "secret-of-the-path" not in str(every)
        assert not [secret for secret in stack.secrets if secret in str(every)]


async def test_an_administrator_with_a_shell_leaves_an_entry(stack: LocalStack) -> None:
    async with users(stack, "disabled-one", "operator") as (_, operator):
        user_id = await stack.user_id("disabled-one")
        for command in ("disable-user", "enable-user"):
            await stack.admin("auth", command, user_id)
        found = await entries(operator, object=user_id)
        told = [(one["action"], one["object_name"], one["username"]) for one in found if one["object_kind"] == "user"]
        assert told == [("enable_user", "disabled-one", None), ("disable_user", "disabled-one", None)]


async def test_pages_go_on_where_the_one_before_ended(stack: LocalStack) -> None:
    async with users(stack, "pages", "operator") as (owner, operator):
        disk = {"disk_name": "paged", "size_gb": 10}
        for _ in range(3):
            job_id = await owner.submit(gpu_count=1, command="exit 0")
            await owner.client.post(f"/v1/jobs/{job_id}/cancel")
        assert (await owner.client.post("/v1/disks", json=disk)).status_code == 200
        whole = await entries(operator, user="pages")
        assert {one["service"] for one in whole} == {"auth", "jobs", "disks"}
        paged: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"user": "pages", "limit": 2}
        while True:
            page = (await operator.client.get("/v1/audit", params=asked)).json()
            paged += page["entries"]
            if page["next"] is None:
                break
            asked["before"] = page["next"]
        assert paged == whole
        assert await entries(operator, user="pages", until=whole[-1]["at"]) == []


@pytest.mark.parametrize("query", ["since=yesterday", "until=2026-01-20T18:30:00", "before=1", "limit=0", "limit=201"])
async def test_what_cannot_be_asked_is_refused_by_name(stack: LocalStack, query: str) -> None:
    async with users(stack, "operator") as (operator,):
        answer = await operator.client.get(f"/v1/audit?{query}")
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["query", query.partition("=")[0]])


async def test_nobody_else_reads_it(stack: LocalStack) -> None:
    async with users(stack, "curious") as (curious,):
        answer = await curious.client.get("/v1/audit")
        assert (answer.status_code, answer.json()) == (403, {"detail": "Only operators may read the audit"})
