"""The console for those who have it read to them: what is said by itself, and where the focus goes."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.support.browser import CHROMIUM
from tests.support.console import console
from tests.support.stack import LocalStack, users

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
ONE_GPU = {"instance_type": "p5.48xlarge", "gpu_count": 1}


async def test_a_refused_form_says_so_and_leads_to_the_field(browser: Browser, stack: LocalStack) -> None:
    async with users(stack, "aloud-ann") as (user,), console(browser, stack, user) as tab:
        page = tab.page
        await tab.go("Submit")
        await page.get_by_label("Image").fill("debian:12")
        await page.get_by_role("radio", name="1 × h100 now").check()  # noqa: RUF001 - as it is shown
        await page.get_by_text("More", exact=True).click()
        await page.get_by_label("Name", exact=True).fill("Not A Name")
        await page.get_by_label("Variables").fill("nothing of use")
        await page.get_by_text("More", exact=True).click()
        await tab.spoken()
        await page.get_by_role("button", name="Submit").click()
        await tab.hears('Variables: "nothing of use" is not NAME=value')
        await expect(page.get_by_label("Variables")).to_be_focused()  # the part that was closed is open
        (variables,) = [one for one in await tab.accessible() if (one.role, one.name) == ("textbox", "Variables")]
        assert variables.states["invalid"] == "true"
        await page.get_by_label("Variables").fill("")
        tab.expected.append("status of 400")
        await page.get_by_role("button", name="Submit").click()
        await tab.hears("name: ")
        await expect(page.get_by_label("Name", exact=True)).to_be_focused()
        invalid = [one.name for one in await tab.accessible() if one.states.get("invalid") == "true"]
        assert invalid == ["Name"]


async def test_what_becomes_of_a_job_is_said_and_the_clock_is_not(browser: Browser, stack: LocalStack) -> None:
    async with users(stack, "aloud-bob") as (user,), console(browser, stack, user) as tab:
        page = tab.page
        job = await user.submit(
            **ONE_GPU,
            duration_hours=0.1,
            name="train",
            command="echo first; seq -f 'line %g' 900; echo slow; sleep 600",
        )
        await expect(page.get_by_role("row").filter(has_text="train")).to_contain_text("active")
        await tab.spoken()
        await page.get_by_role("link", name="train").click()
        said = await tab.hears("train is active.")
        left = page.get_by_text(re.compile(r"^\d min .* left$"))
        await expect(left).to_be_visible()
        shown = await left.text_content()
        await expect(page.get_by_text(str(shown), exact=True)).to_have_count(0)  # the clock has moved on
        await expect(page.get_by_role("log")).to_contain_text("slow")
        said += await tab.spoken()
        assert not [text for text in said if "left" in text], "every second something would be said"
        assert not [text for text in said if "line 899" in text], "nobody listens to 900 lines"

        await page.get_by_role("button", name="Cancel the job").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
        at_work = page.get_by_role("button", name="Cancelling …")
        await expect(at_work.or_(page.get_by_role("heading", name="train cancelled"))).to_be_focused()
        await tab.hears("train is cancelled.")
        # the button is gone: who pressed it hears what has become of the job, and is not thrown back to the beginning
        await expect(page.get_by_role("heading", name="train cancelled")).to_be_focused()
        assert (await user.job(job))["status"] == "cancelled"


async def test_lines_of_a_log_are_said_as_they_come(browser: Browser, stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, "aloud-cy") as (user,), console(browser, stack, user) as tab:
        heard = tmp_path / "heard"
        command = f"echo first line; until [ -e {heard} ]; do sleep 0.1; done; echo second line; exit 3"
        await user.submit(**ONE_GPU, name="talk", command=command)
        await expect(tab.page.get_by_role("row").filter(has_text="talk")).to_contain_text("active")
        await tab.page.get_by_role("link", name="talk").click()
        await tab.hears("first line")
        heard.touch()
        said = " ".join(await tab.hears("second line"))
        assert "first line" not in said, "only what is new"
        if "talk is failed." not in said:  # what comes together is said together
            await tab.hears("talk is failed.")


async def test_the_lists_say_what_changes_in_them(browser: Browser, stack: LocalStack) -> None:
    async with users(stack, "aloud-dee") as (user,), console(browser, stack, user) as tab:
        page = tab.page
        first = await user.submit(**ONE_GPU, name="first", duration_hours=1)
        await expect(page.get_by_role("row").filter(has_text="first")).to_contain_text("active")
        await tab.spoken()
        await user.client.post(f"/v1/jobs/{first}/cancel")
        await tab.hears("first is cancelled.")
        await page.evaluate("before = document.querySelector('h1')")
        await tab.go("Disks")
        await expect(page.get_by_role("heading", name="Your disks")).to_be_focused()
        assert not await page.evaluate("before.isConnected"), "its name of before would be read"
        await page.get_by_label("Name", exact=True).fill("loud")
        await page.get_by_role("button", name="Make", exact=True).click()
        await expect(page.get_by_role("heading", name="loud available")).to_be_visible()
        await tab.spoken()
        await page.get_by_role("button", name="Delete loud").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete the disk").click()
        await expect(page.get_by_role("heading", name="loud")).to_have_count(0)
        # what had the focus is gone; where it went the page begins
        await expect(page.get_by_role("heading", name="Your disks")).to_be_focused()


async def test_a_notice_that_is_dismissed_gives_the_focus_back(browser: Browser, stack: LocalStack) -> None:
    async with users(stack, "aloud-eve") as (user,), console(browser, stack, user) as tab:
        page = tab.page
        await tab.go("Disks")
        tab.expected.append("status of 409")
        for _ in range(2):
            await page.get_by_label("Name", exact=True).fill("twice")
            await page.get_by_role("button", name="Make", exact=True).click()
            await expect(page.get_by_role("heading", name="twice")).to_be_visible()
        await tab.hears("twice")
        notices = page.get_by_role("region", name="Notices")
        refusal = notices.locator(".error")
        await refusal.get_by_role("button", name="Dismiss").focus()
        await page.keyboard.press("Enter")
        await expect(refusal).to_have_count(0)
        await expect(page.get_by_role("button", name="Make", exact=True)).to_be_focused()
        await expect(notices).to_have_count(0)  # nothing is left to be read there once the others have faded
