"""A replica's way out: it asks for no new requests, lets go of the answers that it holds, and then stops."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Drain:
    """How far a replica has got on its way out; set by whoever runs it, read by readiness and by answers that last."""

    def __init__(self) -> None:
        self.begun = False
        """Readiness says no; requests are still served, each the last one of its connection."""
        self._released = asyncio.Event()
        self._sessions = 0
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._cut_off = asyncio.Event()

    def begin(self) -> None:
        """Ask whoever sends requests here to send them elsewhere."""
        self.begun = True

    def release(self) -> None:
        """End the answers that are held: whoever waited for news asks another replica again."""
        self._released.set()

    async def released(self) -> None:
        """Wait until held answers have to end."""
        await self._released.wait()

    @contextmanager
    def session(self) -> Iterator[None]:
        """The length of a WebSocket, which nobody can take up elsewhere: it is given more time than an answer."""
        self._sessions += 1
        self._none_open.clear()
        try:
            yield
        finally:
            self._sessions -= 1
            if not self._sessions:
                self._none_open.set()

    async def sessions_ended(self) -> None:
        """Wait until no WebSocket is open."""
        await self._none_open.wait()

    def cut_off(self) -> None:
        """End the WebSockets that are still open."""
        self._cut_off.set()

    async def was_cut_off(self) -> None:
        """Wait until WebSockets have to end."""
        await self._cut_off.wait()
