"""Group read: reads that come while as many as may are under way are made together, by one statement.

While there is little to do each is made at once, by itself. Under load, and after a moment in which the service had no
core, a statement's cost and its round trip are shared by as many as came during the ones before. What a read finds was
so after it was asked: it never joins one that is under way already.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextvars import Context
from typing import Generic, NamedTuple, TypeVar

from shared.errors import Unavailable

KeyT = TypeVar("KeyT")
FoundT = TypeVar("FoundT")
_AT_ONCE = 2
"""Statements under way: one of them may hang, on a connection that is lost."""
_PATIENCE_SECONDS = 1.0


class _Waiting(NamedTuple, Generic[KeyT, FoundT]):
    key: KeyT
    since: float
    found: "asyncio.Future[FoundT]"


class GroupRead(Generic[KeyT, FoundT]):
    """Reads things by their keys, many at once if need be.

    Args:
        read: Finds what there is under these keys, which are all different.
        patience_seconds: Who has waited longer than this when one of the statements ends since the database was not to
            be reached, is told so, and not made to wait for another one's end.
    """

    def __init__(
        self,
        read: Callable[[Collection[KeyT]], Awaitable[FoundT]],
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._read = read
        self._patience = patience_seconds
        self._under_way = 0
        self._waiting: list[_Waiting[KeyT, FoundT]] = []
        self._groups: set[asyncio.Task[None]] = set()

    async def read(self, key: KeyT) -> FoundT:
        """What was found under this key, and under those that were read together with it.

        Raises:
            Exception: Whatever `read` raises.
        """
        if self._under_way < _AT_ONCE:
            self._under_way += 1
            return await self._make((key,))
        loop = asyncio.get_running_loop()
        waiting = _Waiting[KeyT, FoundT](key, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        return await waiting.found

    async def _make(self, keys: Collection[KeyT]) -> FoundT:
        try:
            return await self._read(keys)
        except Unavailable as error:
            oldest = asyncio.get_running_loop().time() - self._patience
            _fail([one for one in self._waiting if one.since < oldest], error)
            raise
        finally:
            self._give_place()

    def _give_place(self) -> None:
        """To those who wait, from a statement that has ended."""
        group = [one for one in self._waiting if not one.found.done()]
        self._waiting = []
        if group:
            # in the context of no request: it reads for several
            task = asyncio.create_task(self._make_for(group), context=Context())
            self._groups.add(task)
            task.add_done_callback(self._groups.discard)
        else:
            self._under_way -= 1

    async def _make_for(self, group: Collection[_Waiting[KeyT, FoundT]]) -> None:
        try:
            found = await self._make({one.key for one in group})
        except Exception as error:  # noqa: BLE001 - it is raised to whoever asked
            _fail(group, error)
        else:
            for one in group:
                if not one.found.done():
                    one.found.set_result(found)


def _fail(group: Collection[_Waiting[KeyT, FoundT]], error: Exception) -> None:
    for one in group:
        if not one.found.done():
            one.found.set_exception(error)
