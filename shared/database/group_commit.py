"""Group commit: writes that come while another is under way are written together, in one transaction.

One that comes alone is written at once. Under load a commit, its sync to disk and its round trips are shared by as many
writes as came during the one before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from shared.errors import Unavailable

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_MOST_TOGETHER = 100


class GroupCommit(Generic[ItemT, ResultT]):
    """Writes items, many at once if need be.

    Args:
        commit: Writes items in one transaction and gives the result of each, in their order. If it fails, each is
            written by itself, so that one bad item spoils no other, unless the database could not be reached.
    """

    def __init__(self, commit: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
        self._running: asyncio.Task[None] | None = None

    async def write(self, item: ItemT) -> ResultT:
        """Write an item; return when it is committed.

        Whoever is cancelled here does not know whether it was.

        Raises:
            Exception: Whatever `commit` raises for this item.
        """
        written: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, written))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await written

    async def _run(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
                await self._write(together)
        finally:
            self._running = None

    async def _write(self, together: Sequence[tuple[ItemT, "asyncio.Future[ResultT]"]]) -> None:
        try:
            results = await self._commit([item for item, _ in together])
        except Exception as error:  # noqa: BLE001 - it is raised to whoever wrote
            await self._failed(together, error)
            return
        for (_, written), result in zip(together, results, strict=True):
            if not written.done():
                written.set_result(result)

    async def _failed(self, together: Sequence[tuple[ItemT, "asyncio.Future[ResultT]"]], error: Exception) -> None:
        if len(together) == 1 or isinstance(error, Unavailable):
            for _, written in together:
                if not written.done():
                    written.set_exception(error)
            return
        for one in together:
            await self._write([one])
