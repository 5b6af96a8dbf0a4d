"""/docs in a real Chromium: every endpoint of the API is tried there, as somebody does who reads about it."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.browser import CHROMIUM, tab_of
from tests.support.route_table import BODIES, ENDLESS
from tests.support.stack import ApiUser, LocalStack, until, users

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
LATER = ("cancel_job", "delete_disk", "restore_disk", "rename_disk", "delete_webhook", "revoke_key", "rotate_key")
"""What takes away what others ask about, in this order."""
REFUSED = {"open_ssh": 426, "aws_signed_login": 401, "prioritise_job": 409}
"""Answers to what a form cannot say, a WebSocket and a signature; and about a job that has left the queue."""


@dataclass(frozen=True)
class Operation:
    """An endpoint as the page has it."""

    id: str
    path: str
    parameters: tuple[str, ...]
    """Those of the path."""
    has_body: bool


async def documented(stack: LocalStack) -> list[Operation]:
    """Every operation, in the order in which it can be tried."""
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=60) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    found = [
        Operation(
            one["operationId"],
            path,
            tuple(given["name"] for given in one.get("parameters", ()) if given["in"] == "path"),
            "requestBody" in one,
        )
        for path, methods in paths.items()
        for one in methods.values()
    ]
    return sorted(found, key=lambda one: LATER.index(one.id) + 1 if one.id in LATER else 0)


async def owned(stack: LocalStack, user: ApiUser, other: ApiUser) -> dict[str, str]:
    """Something for each parameter of a path."""
    job_id = await user.submit(gpu_count=1, command="sleep 300")
    disk = (await user.client.post("/v1/disks", json={"disk_name": "clicked", "size_gb": 10})).json()
    webhook = (await user.client.post("/v1/webhooks", json=BODIES["/v1/webhooks"])).json()
    await user.wait(job_id, "active", seconds=60)
    spare = await user.client.post("/v1/auth/console-codes")
    logged_in = (await user.client.post("/v1/auth/console-login", json={"code": spare.json()["code"]})).json()
    stack.secrets |= {spare.json()["code"], logged_in["api_key"], webhook["secret"]}
    return {
        "job_id": job_id,
        "disk_name": "clicked",
        "operation_id": disk["operation_id"],
        "webhook_id": webhook["webhook_id"],
        "key_prefix": logged_in["key_prefix"],
        "user_id": await stack.user_id(other.name),
    }


async def fresh_code(stack: LocalStack, user: ApiUser) -> dict[str, str]:
    """What logs in at the console within a minute."""
    code = (await user.client.post("/v1/auth/console-codes")).json()["code"]
    stack.secrets.add(code)
    return {"code": code}


async def bodies(stack: LocalStack, user: ApiUser) -> dict[str, Any]:
    """What is typed where the example of the page is no good one, such as credentials."""
    credentials = await asyncio.to_thread(stack.identity, user.name)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    stack.secrets |= {credentials["AWS_SECRET_ACCESS_KEY"], credentials["AWS_SESSION_TOKEN"]}
    own = {
        "/v1/auth/aws-login": {name.lower(): credentials[name] for name in names},
        "/v1/disks": {"disk_name": "another", "size_gb": 10},
        "/v1/disks/{disk_name}/rename": {"new_name": "renamed"},
    }
    return {path: body for path, body in BODIES.items() if body} | own


async def try_out(page: Page, operation: Operation, values: dict[str, str], body: Any) -> int | None:
    """Open it, fill it in, send it; the status that the page shows. None: the answer goes on."""
    block = page.locator(f"[id^='operations-'][id$='-{operation.id}']")
    await block.locator(".opblock-summary-control").click()
    await block.get_by_role("button", name="Try it out").click()
    for name in operation.parameters:
        await block.locator(f"tr[data-param-name='{name}'] input").fill(values[name])
    if operation.has_body and body is not None:
        await block.locator("textarea.body-param__text").fill(json.dumps(body))
    await block.get_by_role("button", name="Execute").click()
    if operation.path in ENDLESS:
        await expect(block.locator(".loading-container")).to_be_visible()
        return None
    answer = block.locator(".live-responses-table")
    status = answer.locator("tbody .response-col_status").first
    await expect(status).to_have_text(re.compile(r"^\s*\d"), timeout=60_000)

    async def well() -> bool:
        if (await status.inner_text()).split()[0] != "503":
            return True
        await block.get_by_role("button", name="Execute").click()
        return False

    if operation.path.startswith("/health"):  # on a machine that is busy just then a service may be too late
        await until(well, operation.path)
    told = (await status.inner_text()).split()[0]
    await block.locator(".opblock-summary-control").click()
    return int(told)


async def test_every_endpoint_is_tried_and_its_answer_seen(browser: Browser, stack: LocalStack) -> None:
    async with users(stack, "operator", "clicked-other") as (user, other), tab_of(browser, stack.url) as tab:
        page, values, given = tab.page, await owned(stack, user, other), await bodies(stack, user)
        tab.expected += [f"status of {status}" for status in REFUSED.values()]
        tab.expected.append(f"status of 503 (Service Unavailable) ({stack.url}/health")
        await tab.open("/docs")
        await page.get_by_role("button", name="Authorize").first.click()
        await page.get_by_role("textbox").first.fill(user.key)
        await page.locator(".auth-btn-wrapper").get_by_role("button", name="Apply credentials").click()
        await page.locator(".auth-btn-wrapper").get_by_role("button", name="Close").click()
        seen: dict[str, int | None] = {}

        async def saved() -> bool:
            return not (await user.client.get("/v1/disks/clicked")).json()["is_backing_up"]

        for operation in await documented(stack):
            if operation.id == "delete_disk":
                await until(saved, "the snapshot of the disk is taken")
            if operation.id == "console_login":
                given[operation.path] = await fresh_code(stack, user)
            seen[operation.id] = await try_out(page, operation, values, given.get(operation.path))
        wanted = {name: REFUSED.get(name, 200) for name in seen}
        assert {name: status for name, status in seen.items() if status not in {wanted[name], None}} == {}
        assert sum(status is None for status in seen.values()) == len(ENDLESS)
