"""Who looks at the console: a user in a tab of a browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, expect

from tests.support.browser import Tab, tab_of
from tests.support.stack import ApiUser, LocalStack


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
