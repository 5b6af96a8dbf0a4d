"""Whether the schema is as new as the code. An older release works on a newer schema: migrations expand first."""

from pathlib import Path

import asyncpg
import sqlalchemy as sa

from shared.database.connection import Database
from shared.database.statement import Statement

SERVICES = Path(__file__).resolve().parents[2] / "services"
_VERSION = Statement(sa.select(sa.column("version_num", sa.String)).select_from(sa.table("alembic_version")))


def migrations(service: str) -> Path:
    """Folder of a service's migrations."""
    return SERVICES / service / "migrations"


class SchemaCheck:
    """Compares the schema with the newest migration that the code has.

    Args:
        service: Whose code; its migrations are `<number>_<name>.py`, one after the other.
        database: Whose schema.
    """

    def __init__(self, service: str, database: Database) -> None:
        self._database = database
        self.newest = max(path.stem for path in (migrations(service) / "versions").glob("[0-9]*.py"))
        """Such as "0008_waiting_jobs"."""

    async def fault(self) -> str | None:
        """Why the code cannot work on the schema; None when it can.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        try:
            found = await self._database.fetch_value(_VERSION)
        except asyncpg.UndefinedTableError:
            found = None
        wanted = self.newest.partition("_")[0]
        if found is not None and found >= wanted:
            return None
        return f"the schema is older than this release: it is at {found or 'nothing'}, and {self.newest} is missing"
