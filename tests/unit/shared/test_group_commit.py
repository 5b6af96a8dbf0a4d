"""Writes that come while another is under way are written together."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.database.group_commit import GroupCommit
from shared.errors import DatabaseUnavailable


class Table:
    """Where items are written; each commit waits until it is let through."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def commit(self, items: Sequence[str]) -> list[str]:
        self.commits.append(list(items))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]


async def begun(group: GroupCommit[str, str], *items: str) -> "list[asyncio.Task[str]]":
    """Writers that have all asked."""
    tasks = [asyncio.create_task(group.write(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_during_a_commit_shares_the_next_one() -> None:
    table = Table()
    group = GroupCommit(table.commit)
    first = await begun(group, "a")
    others = await begun(group, "b", "c", "d")
    table.gate.set()
    assert await asyncio.gather(*first, *others) == ["A", "B", "C", "D"]
    assert table.commits == [["a"], ["b", "c", "d"]]
    assert await group.write("e") == "E"


async def test_one_that_fails_spoils_no_other() -> None:
    table = Table()
    group = GroupCommit(table.commit)
    writers = [*await begun(group, "a"), *await begun(group, "b", "bad", "c")]
    table.gate.set()
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert [str(result) for result in results] == ["A", "B", "bad", "C"]
    assert isinstance(results[2], ValueError)


async def test_without_a_database_all_are_told_and_none_is_tried_again() -> None:
    table = Table()
    group = GroupCommit(table.commit)
    writers = [*await begun(group, "a"), *await begun(group, "b", "c")]
    table.error = DatabaseUnavailable()
    table.gate.set()
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert all(isinstance(result, DatabaseUnavailable) for result in results)
    assert table.commits == [["a"], ["b", "c"]]


async def test_a_writer_that_leaves_keeps_no_other_waiting() -> None:
    table = Table()
    group = GroupCommit(table.commit)
    first, leaving, last = [*await begun(group, "a"), *await begun(group, "b", "c")]
    leaving.cancel()
    first.cancel()
    table.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await last == "C"
    assert await group.write("d") == "D"
