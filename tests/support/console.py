"""Who looks at the console: a user in a tab of a browser, with the whole fleet to themselves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, expect

from tests.support.browser import Tab, tab_of
from tests.support.stack import ApiUser, LocalStack, until, users

expect.set_options(timeout=15_000)  # the other half of the machine runs other tests


@asynccontextmanager
async def console(browser: Browser, stack: LocalStack, user: ApiUser) -> AsyncIterator[Tab]:
    """A tab in which a user has logged in by a one-time link."""
    async with tab_of(browser, stack.url) as tab:
        code = (await user.client.post("/v1/auth/console-codes")).json()
        stack.secrets.add(code["code"])
        await tab.open(code["path"])
        await expect(tab.page.get_by_role("heading", name="Your jobs")).to_be_visible()
        stack.secrets.add(await tab.page.evaluate("JSON.parse(sessionStorage.getItem('gpudev.session')).api_key"))
        yield tab


@asynccontextmanager
async def guests(stack: LocalStack, *names: str) -> AsyncIterator[list[ApiUser]]:
    """Users with the whole fleet: what others left open ends before, and theirs with the block."""
    async with users(stack, *names, "operator") as (*made, operator):
        await leave_nothing(operator)
        try:
            yield made
        finally:
            await leave_nothing(operator)


async def leave_nothing(operator: ApiUser) -> None:
    """Cancel what is open, whosever it is, and wait until its GPUs are free."""
    everybodys = "/v1/jobs?user=*&status=pending,queued,preparing,active&limit=500"
    while open_jobs := (await operator.client.get(everybodys)).json()["jobs"]:
        for job in open_jobs:
            await operator.client.post(f"/v1/jobs/{job['job_id']}/cancel", headers={"Prefer": "wait=20"})

    async def is_free() -> bool:
        kinds = (await operator.client.get("/v1/gpu/availability")).json()["availability"].values()
        return all(kind["available"] == kind["total"] for kind in kinds)

    await until(is_free, "the fleet is free")
