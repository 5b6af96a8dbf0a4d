from collections.abc import Iterator

import pytest

from tests.support.stack import LocalStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """One stack for all tests that leave it as it was; at its end no log may hold a secret that was used."""
    with running_stack() as running:
        yield running
        text = running.log_text()
        leaked = sorted(secret[:6] for secret in running.secrets if secret and secret in text)
        assert not leaked, f"secrets in the logs, beginning with {leaked}"
