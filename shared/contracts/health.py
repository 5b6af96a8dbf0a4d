"""Health: each service answers for itself over NATS."""

import msgspec


def health_subject(service: str) -> str:
    """RPC subject of a service's health."""
    return f"gpudev.rpc.{service}.health"


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    status: str
    """healthy or unhealthy."""
    database: str
    """healthy or unhealthy."""
    queue: str
    """The broker as this service sees it: healthy or unhealthy."""
    faults: list[str] = []
    """What is wrong, for an operator; holds no secret."""
    oldest_unpublished_seconds: float | None = None
    """Age of the oldest event not yet published; None when there is none."""
    unprocessed_messages: int | None = None
    """Events that wait for this service; None when the broker does not say."""
