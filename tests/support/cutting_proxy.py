"""A proxy of TCP that cuts connections wherever their bytes happen to be."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PIECE_BYTES = 1 << 14


class CuttingProxy:
    """Passes bytes on, and cuts each connection after as many as chance says: often within a request or an answer.

    Args:
        port: On this machine, that it leads to.
        chance: Of where it cuts.
        longest: Bytes of both directions after which a connection is cut at the latest.
    """

    def __init__(self, port: int, chance: random.Random, *, longest: int) -> None:
        self._port, self._chance, self._longest = port, chance, longest
        self.cuts = 0
        """Connections that were cut so far."""
        self.cut_answers = 0
        """Of these: so many within an answer, or before it, when the request was there whole."""
        self._open: set[asyncio.StreamWriter] = set()
        self._ended = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._open.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await self._pass_on((reader, there_writer), (there_reader, writer))
            await _close(there_writer)
        finally:
            await _close(writer)
            self._open.remove(writer)
            if not self._open:
                self._ended.set()

    async def end(self) -> None:
        """End all connections."""
        self._ended.clear()
        for writer in self._open:
            writer.close()
        if self._open:
            await self._ended.wait()

    async def _pass_on(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        left = [self._chance.randrange(1, self._longest)]
        pumps = [asyncio.create_task(self._pump(*way, left, answers=answers)) for answers, way in enumerate(ways)]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int], *, answers: int
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_PIECE_BYTES):
                writer.write(data[: left[0]])
                await writer.drain()
                left[0] -= len(data)
                if left[0] <= 0:
                    self.cuts += 1
                    self.cut_answers += answers
                    return


async def _close(writer: asyncio.StreamWriter) -> None:
    """What was passed on arrives; what comes then is answered with a reset."""
    with suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def cutting_proxy(port: int, chance: random.Random, *, longest: int) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """One before what listens on a port of this machine, and its URL."""
    proxy = CuttingProxy(port, chance, longest=longest)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    try:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await proxy.end()
