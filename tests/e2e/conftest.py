from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import running_browser
from tests.support.stack import OPERATORS, LocalStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """One stack for all tests that leave it as it was; `operator` is an operator of it."""
    with running_stack(GPUDEV_OPERATORS=OPERATORS, GPUDEV_BODY_SECONDS="5", GPUDEV_READ_SECONDS="8") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, for all tests of a module."""
    async with running_browser() as running:
        yield running
