"""Processes of the disks service that die at a chosen point of their work."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from services.disks.adapters.ec2 import Ec2
from services.disks.app import service_parts
from services.disks.context import Context
from services.disks.settings import DisksSettings
from shared.background import Loop
from shared.contracts.disks import ClaimReply, ClaimRequest
from shared.web.app import Foundation, ServiceParts, create_service_app
from tests.support.crash import CrashingDatabase, CrashPoints
from tests.support.disks import cloud_event, disks_context


class CrashingEc2(Ec2):
    """A point before and after each call to AWS."""

    def __init__(self, settings: DisksSettings, points: CrashPoints) -> None:
        super().__init__(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
        self._points = points

    async def _call(self, *args: Any, **named: Any) -> Any:
        with self._points.around():
            return await super()._call(*args, **named)


class WorkProcess:
    """One run of the service, as far as it works on disks.

    Args:
        settings: The service's.
        crash_at: Number of the point at which it dies; None: never.
    """

    def __init__(self, settings: DisksSettings, crash_at: int | None) -> None:
        self._settings = settings
        self.points = CrashPoints(crash_at)
        self.database = CrashingDatabase(settings.database_url, self.points)
        self.ec2 = CrashingEc2(settings, self.points)

    def context(self, clock: Callable[[], datetime]) -> Context:
        """What it works with."""
        return disks_context(self._settings, self.database, ec2=self.ec2, clock=clock)

    async def close(self) -> None:
        """Close its connections."""
        await self.ec2.close()
        await self.database.close()


class ServiceProcess:
    """One run of the service: its own application, its loops turned by hand."""

    def __init__(self, settings: DisksSettings, clock: Callable[[], datetime]) -> None:
        self.points = CrashPoints()
        self._base = Foundation.open("disks", settings)
        self._database = CrashingDatabase(settings.database_url, self.points)
        # only the service's own parts crash: what every service has beside them passes no points
        own = replace(self._base, database=self._database)
        self.parts: ServiceParts = service_parts(own, settings, CrashingEc2(settings, self.points), clock)
        self.loops: dict[str, Loop] = {loop.name: loop for loop in self.parts.loops}
        self._stop = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self.client = httpx.AsyncClient()

    async def start(self) -> None:
        """Serve."""
        app: Any = create_service_app(self._base, replace(self.parts, loops=(), workers=(), subscriptions=()))
        started = asyncio.Event()

        async def hold() -> None:
            async with app.lifespan():
                started.set()
                await self._stop.wait()

        self._holding = asyncio.create_task(hold())
        await started.wait()
        await self.client.aclose()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://disks.local")

    async def stop(self) -> None:
        """Stop serving."""
        await self.client.aclose()
        self._stop.set()
        if self._holding is not None:
            await self._holding
        for loop in self.loops.values():
            if loop._at_end is not None:
                loop._at_end()
        await self._database.close()

    async def turn(self, name: str) -> None:
        """One turn of a loop."""
        await self.loops[name]._turn()

    async def work(self) -> None:
        """Work the operations that are due."""
        (worker,) = self.parts.workers
        await worker.work_due()

    async def handle(self, data: Any) -> None:
        """Take an event of a job, as the consumer does."""
        handler = next(one.handler for one in self.parts.subscriptions if one.event is type(data))
        async with self._database.transaction() as tx:
            await handler(tx, data, cloud_event(data))

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        """Take a claim without NATS, which would have the death of a handler to itself."""
        endpoint = next(one for one in self.parts.rpc if one.request is ClaimRequest)
        reply: ClaimReply = await endpoint.handler(request)
        return reply
