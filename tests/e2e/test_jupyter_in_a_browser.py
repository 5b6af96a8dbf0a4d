"""JupyterLab as its users have it: in a real browser, on a host of the job's own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.stack import ApiUser, LocalStack, until, users

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
MILLISECONDS = 60_000
READ = """async (url) => {
  try { return (await fetch(url, {credentials: "include"})).status } catch (error) { return error.name }
}"""
"""The status of a request with whatever cookies the browser has for it; or the error, if it may not be read."""
CONNECT = """(url) => new Promise((told) => {
  const socket = new WebSocket(url)
  socket.onopen = () => told("open")
  socket.onerror = () => told("refused")
})"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # root has no sandbox; what it opens is our own
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def lab_of(stack: LocalStack, user: ApiUser) -> dict[str, Any]:
    """A job of the user's whose JupyterLab is there."""
    job_id = await user.submit(gpu_count=1, jupyter_enabled=True)
    await user.wait(job_id, "active")

    async def enabled() -> Any:
        job = await user.job(job_id)
        assert not job["jupyter_error"], job
        return job["jupyter_enabled"] and job

    job = dict(await until(enabled, "Jupyter", seconds=150))
    stack.secrets.add(job["jupyter_token"])
    return job


async def opened(browser_page: Page, job: dict[str, Any]) -> str:
    """Open a job's JupyterLab; its origin."""
    url = str(job["jupyter_url"])
    host = httpx.URL(url)

    async def routed() -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{host.port}/api", headers={"Host": host.netloc.decode()})
            return answer.status_code == 200

    await until(routed, "the host of the job's own leads to it")
    await browser_page.goto(url)
    await expect(browser_page.locator(".jp-Launcher")).to_be_visible(timeout=MILLISECONDS)
    assert host.host.startswith(job["job_id"][:8])
    return f"{host.scheme}://{host.netloc.decode()}"


def card(page: Page, label: str) -> Any:
    return page.locator(".jp-LauncherCard", has_text=label).first


async def test_a_cell_runs_a_terminal_opens_and_another_jobs_page_reads_nothing(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,), chromium() as browser:
        mine, other = await asyncio.gather(lab_of(stack, demo), lab_of(stack, demo))
        try:
            # one browser, with all its cookies, as a person has it
            context = await browser.new_context()
            context.set_default_timeout(MILLISECONDS)
            page, others_page = await context.new_page(), await context.new_page()
            origin = await opened(page, mine)

            await card(page, "Python 3").click()
            cell = page.locator(".jp-Notebook .cm-content").first
            await cell.click(timeout=MILLISECONDS)
            await page.keyboard.type("print(6 * 7, 'is printed')")
            await page.keyboard.press("Shift+Enter")
            output = page.locator(".jp-OutputArea-output").first
            await expect(output).to_have_text("42 is printed", timeout=MILLISECONDS)

            await page.goto(f"{origin}/lab?reset")
            await card(page, "Terminal").click(timeout=MILLISECONDS)
            await page.locator(".jp-Terminal .xterm-helper-textarea").focus(timeout=MILLISECONDS)

            async def typed() -> bool:
                # again, as somebody does whose terminal shows nothing yet
                await page.keyboard.type("echo $((6 * 7)) > typed\n")
                return await page.evaluate(READ, f"{origin}/api/contents/typed") == 200

            await until(typed, "what the terminal's shell wrote", seconds=60, period=1)

            assert await opened(others_page, other) != origin
            assert await others_page.evaluate(READ, f"{origin}/api/contents/typed") == "TypeError"
            assert await page.evaluate(READ, f"{origin}/api/contents/typed") == 200
            socket = f"{origin.replace('http', 'ws')}/api/events/subscribe"
            assert await others_page.evaluate(CONNECT, socket) == "refused"
            assert await page.evaluate(CONNECT, socket) == "open"
        finally:
            for job in (mine, other):
                await demo.client.post(f"/v1/jobs/{job['job_id']}/cancel", headers={"Prefer": "wait=30"})
