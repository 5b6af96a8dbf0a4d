"""The capacity service's application; the only place that wires its parts."""

from datetime import UTC, datetime

from litestar import Litestar

from services.capacity.adapters.kubernetes import Cluster
from services.capacity.api.cluster import ClusterController, GpuController
from services.capacity.consumers import explain_endpoint, subscriptions, unplaced_endpoint
from services.capacity.operations.purge import purge_places
from services.capacity.settings import CapacitySettings
from services.capacity.workers.cluster_watches import NodeWatch, PodWatch
from services.capacity.workers.scheduler import Placer
from shared.background import Loop
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app

_PURGE_SECONDS = 3600.0


def create_app(settings: CapacitySettings | None = None) -> Litestar:
    """The application.

    Args:
        settings: None: read from the environment.
    """
    settings = settings or read_settings(CapacitySettings)
    base = Foundation.open("capacity", settings)
    cluster = Cluster(settings.kubeconfig)
    terms = settings.terms()
    placer = Placer(database=base.database, relay=base.relay, terms=terms)
    watches = [
        watch(cluster=cluster, database=base.database, settings=settings, relay=base.relay, placer=placer)
        for watch in (NodeWatch, PodWatch)
    ]

    async def purge() -> None:
        await purge_places(base.database, datetime.now(UTC))

    purging = Loop("purge_places", purge, period_seconds=_PURGE_SECONDS, stale_seconds=3 * _PURGE_SECONDS)
    return create_service_app(
        base,
        ServiceParts(
            controllers=[GpuController, ClusterController],
            verify=base.ask_auth(),
            resources={"database": base.database},
            subscriptions=subscriptions(relay=base.relay, placer=placer),
            rpc=[explain_endpoint(base.database, terms), unplaced_endpoint(base.database)],
            loops=[placer.loop, placer.telling, *(watch.loop for watch in watches), purging],
            closers=[cluster.close],
        ),
    )
