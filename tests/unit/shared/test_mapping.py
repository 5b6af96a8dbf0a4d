from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest

from shared.database import to_struct

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


class Part(msgspec.Struct, frozen=True):
    name: str


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    colour: Colour
    at: datetime
    sealed: bytes | None
    parts: tuple[Part, ...]
    size: int = 7


ROW: dict[str, Any] = {
    "id": UUID(int=1),
    "colour": "red",
    "at": NOW,
    "sealed": b"\x00\xff",
    "parts": [{"name": "wheel"}],
    "size": 3,
}


def test_a_row_becomes_the_value_of_its_columns() -> None:
    made = to_struct(ROW | {"worked_by": UUID(int=2)}, Thing)
    assert made == Thing(
        id=UUID(int=1),
        colour=Colour.RED,
        at=NOW,
        sealed=b"\x00\xff",
        parts=(Part("wheel"),),
        size=3,
    )


@pytest.mark.parametrize("missing", ROW)
def test_a_column_that_a_statement_lacks_is_never_a_default(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        to_struct({name: value for name, value in ROW.items() if name != missing}, Thing)


def test_a_column_that_the_field_cannot_hold_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        to_struct(ROW | {"colour": "blue"}, Thing)


def test_what_is_computed_stands_for_its_column() -> None:
    without = {name: value for name, value in ROW.items() if name != "size"}
    assert to_struct(without, Thing, size=9).size == 9
    assert to_struct(ROW, Thing, size=9).size == 9
