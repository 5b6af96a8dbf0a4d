"""What operators see where leases and the cluster disagree, as a cluster causes it that does not answer."""

import pytest
from playwright.async_api import Browser, expect

from tests.support.browser import CHROMIUM
from tests.support.console import console
from tests.support.leftovers import make_stray_pod
from tests.support.stack import OPERATORS, hanging, running_stack, until, users

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
LASTING_SECONDS = 180
"""It disagrees for two minutes before it is told."""


async def test_leases_without_pods_and_pods_without_leases_are_shown(browser: Browser) -> None:
    with running_stack(GPUDEV_OPERATORS=OPERATORS, GPUDEV_SWEEP="report") as stack:
        make_stray_pod(stack)
        async with users(stack, "alice", "operator") as (alice, operator), console(browser, stack, operator) as tab:
            page = tab.page
            rows = page.get_by_role("table", name="Orphans").get_by_role("row")
            lease, pod = rows.filter(has_text="lease without pod"), rows.filter(has_text="pod without lease")
            look = page.get_by_role("button", name="Look for orphans again")
            await tab.go("Operate")
            await expect(rows.filter(has_text="stray")).to_contain_text(
                "it is left alone, since GPUDEV_SWEEP is report"
            )

            async def both_are_shown() -> bool:
                await look.click()
                return await lease.count() == 1 and await pod.count() == 1

            tab.expected.append("status of 503")
            with hanging(stack, "cluster"):
                job = await alice.submit(gpu_count=2, duration_hours=1)
                await alice.wait(job, "preparing")
                await until(both_are_shown, "both are told", seconds=LASTING_SECONDS, period=5)
                await expect(lease).to_contain_text(job[:8])
                await expect(pod).to_contain_text("stray")
                await tab.read_aloud()
                await tab.assess()
            # the cluster is back: the job gets its pod, and the lease is one like others
            await alice.wait(job, "active", seconds=60)

            async def lease_is_gone() -> bool:
                await look.click()
                return await lease.count() == 0

            await until(lease_is_gone, "the lease has its pod", seconds=60, period=1)
            await expect(pod).to_have_count(1)
