"""A disks service whose process dies at a chosen instant: before or after a write to the tables or a call to AWS."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from services.disks.adapters.ec2 import Ec2
from services.disks.settings import DisksSettings
from shared.database import Database, Statement, Transaction


class Killed(BaseException):
    """The process died here."""


class Fuse:
    """Ends the process at the instant of this number; None: never."""

    def __init__(self, instant: int | None) -> None:
        self._left = instant
        self.under_way = 0
        """Calls that have begun and not ended: what the dead had sent off may still have its effect."""

    @property
    def burnt(self) -> bool:
        """Whether the instant was reached."""
        return self._left is not None and self._left < 0

    def step(self) -> None:
        """An instant passes; the dead do nothing more."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    @contextmanager
    def call(self) -> Iterator[None]:
        """An instant before a call and one after it."""
        self.step()
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
        self.step()


class MortalDatabase(Database):
    """Dies before or after a write."""

    def __init__(self, dsn: str, fuse: Fuse) -> None:
        super().__init__(dsn, pool_size=4)
        self._fuse = fuse

    async def execute(self, statement: Statement, **parameters: Any) -> int:
        with self._fuse.call():
            return await super().execute(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with super().transaction() as tx:
            yield tx
            self._fuse.step()
        self._fuse.step()


class MortalEc2(Ec2):
    """Dies before or after a call to AWS."""

    def __init__(self, settings: DisksSettings, fuse: Fuse) -> None:
        super().__init__(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
        self._fuse = fuse

    async def _call(self, *args: Any, **named: Any) -> Any:
        with self._fuse.call():
            return await super()._call(*args, **named)


class Process:
    """One run of the service, as far as it works on disks.

    Args:
        settings: The service's.
        instant: At which it dies; None: never.
    """

    def __init__(self, settings: DisksSettings, instant: int | None) -> None:
        self.fuse = Fuse(instant)
        self.database = MortalDatabase(settings.database_url, self.fuse)
        self.ec2 = MortalEc2(settings, self.fuse)

    async def close(self) -> None:
        """Close its connections."""
        await self.ec2.close()
        await self.database.close()
