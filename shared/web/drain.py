"""A replica's way out: it asks for no new requests, lets go of the answers that it holds, and then stops."""

import asyncio


class Drain:
    """How far a replica has got on its way out; set by whoever runs it, read by readiness and by answers that last."""

    def __init__(self) -> None:
        self.begun = False
        """Readiness says no; requests are still served, each the last one of its connection."""
        self._released = asyncio.Event()

    def begin(self) -> None:
        """Ask whoever sends requests here to send them elsewhere."""
        self.begun = True

    def release(self) -> None:
        """End the answers that are held: whoever waited for news asks another replica again."""
        self._released.set()

    async def released(self) -> None:
        """Wait until held answers have to end."""
        await self._released.wait()
