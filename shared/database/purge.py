"""Deleting what is old in small bites: each is a short transaction, and between two of them others get their turn."""

import asyncio
from typing import Any

import sqlalchemy as sa

from shared.database.connection import Database
from shared.database.statement import Statement

BITE = 1000
"""Rows that one statement deletes at most."""
_BITES = 20
_PAUSE_SECONDS = 0.05
_SECONDS = 5.0
"""After which no other bite is begun: a loop that purges several tables has a turn of 30 s for all of them."""
_ROW: sa.ColumnElement[object] = sa.literal_column("ctid")


def delete_some(table: sa.Table, condition: sa.ColumnElement[bool]) -> Statement:
    """Deletes at most `most` of the rows that meet a condition. A row that another transaction has is left out."""
    some = (
        sa.select(_ROW)
        .select_from(table)
        .where(condition)
        .limit(sa.bindparam("most", type_=sa.BigInteger))
        .with_for_update(skip_locked=True)
    )
    return Statement(sa.delete(table).where(sa.any_(sa.func.array(some.scalar_subquery())) == _ROW, condition))


async def purge(database: Database, statement: Statement, **parameters: Any) -> bool:
    """Run a statement of `delete_some` until nothing is left to delete, or for a few seconds.

    Returns:
        True: there is more.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + _SECONDS
    for _ in range(_BITES):
        if await database.execute(statement, most=BITE, **parameters) < BITE:
            return False
        if clock() > end:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return True
