from collections.abc import Iterator

import pytest

from shared.database import migrate
from tests.support.servers import PostgresServer


@pytest.fixture
def empty_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    dsn = postgres_server.make_service_database("auth")
    yield dsn
    postgres_server.drop_database(dsn)


def test_migrations_make_the_tables_of_the_code_and_can_be_undone(empty_dsn: str) -> None:
    migrate.upgrade("auth", empty_dsn)
    migrate.check("auth", empty_dsn)
    migrate.downgrade("auth", empty_dsn)
    migrate.upgrade("auth", empty_dsn)
    migrate.check("auth", empty_dsn)
