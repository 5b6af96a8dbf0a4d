"""Many rows as parameters of one statement: an array for each column, so that its text holds for any number."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB


def given_rows(name: str, columns: Mapping[str, Any]) -> sa.Subquery:
    """A table of the rows that a statement is given, in their order by its column `turn`.

    Args:
        name: Of the table in the statement.
        columns: Type of each column, by the name of the column and of the parameter that has its values.
    """
    # JSON goes as text: the driver takes a list of lists for an array of two dimensions
    sent = {column: sa.Text() if isinstance(type_, JSONB) else type_ for column, type_ in columns.items()}
    arrays = [bindparam(column, type_=sa.ARRAY(type_)) for column, type_ in sent.items()]
    named = [sa.column(column, type_) for column, type_ in sent.items()]
    unnested = sa.func.unnest(*arrays).table_valued(*named, with_ordinality="turn").render_derived(name="unnested")
    typed = [
        (sa.cast(unnested.c[column], JSONB) if isinstance(type_, JSONB) else unnested.c[column]).label(column)
        for column, type_ in columns.items()
    ]
    return sa.select(*typed, unnested.c.turn).subquery(name)


def by_column(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The parameters of `given_rows` for such rows, which may have other columns too."""
    return {
        name: [_json(row[name]) for row in rows] if isinstance(type_, JSONB) else [row[name] for row in rows]
        for name, type_ in columns.items()
    }


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
