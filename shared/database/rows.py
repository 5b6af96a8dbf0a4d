"""Many rows as parameters of one statement: an array for each column, so that its text holds for any number."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam


def given_rows(name: str, columns: Mapping[str, Any]) -> Any:
    """A table of the rows that a statement is given, in their order by its column `turn`.

    Args:
        name: Of the table in the statement.
        columns: Type of each column, by the name of the column and of the parameter that has its values.
    """
    arrays = [bindparam(column, type_=sa.ARRAY(type_)) for column, type_ in columns.items()]
    named = [sa.column(column, type_) for column, type_ in columns.items()]
    return sa.func.unnest(*arrays).table_valued(*named, with_ordinality="turn", name=name).render_derived()


def by_column(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """The parameters of `given_rows` for such rows."""
    return {name: [row[name] for row in rows] for name in names}
