"""Events live for an hour, as on the API server."""

import asyncio
from datetime import timedelta

from deploy.local.cluster.machinery.objects import now, timestamp
from deploy.local.cluster.registry.registry import Registry

_LIFETIME = timedelta(hours=1)
_PERIOD_SECONDS = 60


async def expire_events(registry: Registry) -> None:
    """Removes old events; runs until cancelled."""
    while True:
        oldest = timestamp(now() - _LIFETIME)
        for record in registry.store.records("events"):
            last = record.value.get("lastTimestamp") or record.value["metadata"]["creationTimestamp"]
            if last < oldest:
                registry.store.remove(*record.key)
        await asyncio.sleep(_PERIOD_SECONDS)
