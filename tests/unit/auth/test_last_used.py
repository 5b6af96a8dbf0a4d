from datetime import UTC, datetime
from typing import Any

import pytest

from services.auth.storage.last_used import LastUsed
from shared.errors import DatabaseUnavailable

NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 20, 13, tzinfo=UTC)


class FakeDatabase:
    def __init__(self) -> None:
        self.written: list[dict[str, datetime]] = []
        self.down = False
        self.meanwhile: Any = lambda: None

    async def execute(self, _: Any, *, key_ids: list[str], times: list[datetime]) -> int:
        self.meanwhile()
        if self.down:
            raise DatabaseUnavailable
        self.written.append(dict(zip(key_ids, times, strict=True)))
        return len(key_ids)


async def test_uses_are_written_together_and_once() -> None:
    database = FakeDatabase()
    last_used = LastUsed(database)  # type: ignore[arg-type]
    last_used.note("a", NOON)
    last_used.note("b", NOON)
    last_used.note("a", LATER)
    await last_used.flush()
    await last_used.flush()
    assert database.written == [{"a": LATER, "b": NOON}]


async def test_what_could_not_be_written_is_written_later_and_newer_uses_win() -> None:
    database = FakeDatabase()
    last_used = LastUsed(database)  # type: ignore[arg-type]
    last_used.note("a", NOON)
    last_used.note("b", NOON)
    database.down = True
    database.meanwhile = lambda: last_used.note("a", LATER)
    with pytest.raises(DatabaseUnavailable):
        await last_used.flush()
    database.down, database.meanwhile = False, lambda: None
    await last_used.flush()
    assert database.written == [{"a": LATER, "b": NOON}]
