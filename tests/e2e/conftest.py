from collections.abc import Iterator

import pytest

from tests.support.stack import OPERATORS, LocalStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """One stack for all tests that leave it as it was; `operator` is an operator of it."""
    with running_stack(GPUDEV_OPERATORS=OPERATORS, GPUDEV_BODY_SECONDS="5", GPUDEV_READ_SECONDS="8") as running:
        yield running
