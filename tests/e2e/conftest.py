from collections.abc import Iterator

import pytest

from tests.support.stack import LocalStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """One stack for all tests that leave it as it was."""
    with running_stack() as running:
        yield running
