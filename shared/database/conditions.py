"""Conditions in words that PostgreSQL finds an index for, whatever the parameters of a statement are."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa


def word(value: str) -> sa.ColumnElement[str]:
    """A constant as text of the statement: PostgreSQL matches no partial index with a parameter."""
    return sa.literal_column(f"'{value}'", sa.Text)


def in_states(column: sa.ColumnElement[str], states: Iterable[str]) -> sa.ColumnElement[bool]:
    """Whether the row is in one of these, which never vary."""
    return column.in_([word(state) for state in states])


def among(column: sa.ColumnElement[Any], found: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Whether it is one of those that a statement finds.

    They are an array, each of which is looked up in the column's index: for IN the plan for any parameters may read the
    whole table.
    """
    return column == sa.any_(sa.func.array(found.scalar_subquery()))
