"""Reads that come while others are under way are made together."""

import asyncio
import math
from collections.abc import Collection

import pytest

from shared.database.group_read import GroupRead
from shared.errors import DatabaseUnavailable


class Table:
    """What is read; each statement waits until it is let through, and finds what is there then."""

    def __init__(self) -> None:
        self.statements: list[set[str]] = []
        self.gates: list[asyncio.Event] = []
        self.error: Exception | None = None

    async def read(self, keys: Collection[str]) -> dict[str, str]:
        self.statements.append(set(keys))
        self.gates.append(asyncio.Event())
        await self.gates[-1].wait()
        if self.error is not None:
            raise self.error
        return {key: key.upper() for key in keys if key != "missing"}

    async def let_through(self, number: int) -> None:
        self.gates[number].set()
        for _ in range(4):
            await asyncio.sleep(0)


async def begun(group: GroupRead[str, dict[str, str]], *keys: str) -> "list[asyncio.Task[dict[str, str]]]":
    """Readers that have all asked."""
    tasks = [asyncio.create_task(group.read(key)) for key in keys]
    await asyncio.sleep(0)
    return tasks


async def test_who_comes_while_two_are_under_way_is_read_together_with_the_others() -> None:
    table = Table()
    group = GroupRead(table.read)
    readers = await begun(group, "a", "b", "c", "d", "missing", "c")
    assert table.statements == [{"a"}, {"b"}]
    await table.let_through(1)
    assert table.statements[2:] == [{"c", "d", "missing"}]
    later = await begun(group, "c")
    await table.let_through(2)
    assert table.statements[3:] == [{"c"}], "it came after the statement had begun, so that one is not its"
    await table.let_through(0)
    await table.let_through(3)
    found = await asyncio.gather(*readers, *later)
    assert found[0] == {"a": "A"}
    assert found[1] == {"b": "B"}
    assert all(one == {"c": "C", "d": "D"} for one in found[2:6])
    assert found[6] == {"c": "C"}


async def test_never_more_than_two_are_under_way_and_none_stays_behind() -> None:
    table = Table()
    group = GroupRead(table.read)
    readers = []
    for number in range(40):
        readers += await begun(group, f"{number} a", f"{number} b")
        under_way = [index for index, gate in enumerate(table.gates) if not gate.is_set()]
        assert len(under_way) <= 2
        await table.let_through(under_way[number % len(under_way)])
    while not all(gate.is_set() for gate in table.gates):
        await table.let_through(next(index for index, gate in enumerate(table.gates) if not gate.is_set()))
    await asyncio.gather(*readers)
    last = await begun(group, "x", "y")
    assert table.statements[-2:] == [{"x"}, {"y"}], "both places are free again"
    for reader in last:
        reader.cancel()


async def test_a_reader_that_leaves_keeps_no_other_waiting() -> None:
    table = Table()
    group = GroupRead(table.read)
    readers = await begun(group, "a", "b", "c", "d")
    for leaving in (readers[0], readers[2]):
        leaving.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert table.statements[2:] == [{"d"}], "in the place of the one that has left"
    await table.let_through(2)
    assert await readers[3] == {"d": "D"}
    readers[1].cancel()


async def test_a_failure_is_told_to_those_who_were_read_together() -> None:
    table = Table()
    group = GroupRead(table.read)
    readers = await begun(group, "a", "b", "c", "d")
    await table.let_through(0)
    table.error = ValueError("wrong")
    await table.let_through(2)
    assert await readers[0] == {"a": "A"}
    for reader in readers[2:]:
        with pytest.raises(ValueError, match="wrong"):
            await reader
    table.error = None
    await table.let_through(1)
    assert await readers[1] == {"b": "B"}


@pytest.mark.parametrize(("patience", "told"), [(-1.0, True), (math.inf, False)])
async def test_who_has_waited_long_for_a_database_that_is_away_waits_no_longer(patience: float, told: bool) -> None:
    table = Table()
    group = GroupRead(table.read, patience_seconds=patience)
    first, second, waiting = await begun(group, "a", "b", "c")
    table.error = DatabaseUnavailable()
    await table.let_through(0)
    assert waiting.done() == told
    assert len(table.statements) == (2 if told else 3)
    table.error = None
    for number in range(1, len(table.statements)):
        await table.let_through(number)
    results = await asyncio.gather(first, second, waiting, return_exceptions=True)
    assert [isinstance(result, DatabaseUnavailable) for result in results] == [True, False, told]
