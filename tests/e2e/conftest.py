from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import running_browser
from tests.support.caretaker import caretaker_of
from tests.support.stack import OPERATORS, LocalStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """One stack for all tests that leave it as it was; `operator` is an operator of it."""
    settings = {
        "GPUDEV_OPERATORS": OPERATORS,
        "GPUDEV_BODY_SECONDS": "5",
        "GPUDEV_READ_SECONDS": "8",
        # on a fast machine tests log in, and come with keys of nobody, more often than an office does
        "GPUDEV_LOGIN_LIMIT_PER_MINUTE_ADDRESS": "10000",
        "GPUDEV_FAILED_KEYS_PER_MINUTE": "10000",
    }
    with running_stack(**settings) as running:
        yield running


@pytest.fixture(autouse=True)
def left_at_rest(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test on the shared stack has begun, and however it ended, the next one finds everything free."""
    stack = request.getfixturevalue("stack") if "stack" in request.fixturenames else None
    caretaker = stack and caretaker_of(stack)
    yield
    if caretaker:
        caretaker.leave_nothing()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, for all tests of a module."""
    async with running_browser() as running:
        yield running
