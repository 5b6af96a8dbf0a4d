"""The capacity service, wired."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from litestar import Litestar

from services.capacity.adapters.kubernetes import Cluster
from services.capacity.api.cluster import ClusterController, GpuController, fast_routes
from services.capacity.api.orphans import OrphansController
from services.capacity.api.shown_cluster import ShownCluster
from services.capacity.api.usage import UsageController
from services.capacity.consumers import explain_endpoint, subscriptions, unplaced_endpoint, zone_endpoint
from services.capacity.context import Context, WakeUp
from services.capacity.operations.measure import Measurer
from services.capacity.settings import CapacitySettings
from services.capacity.workers.announcer import Announcer
from services.capacity.workers.cluster_watches import NodeWatch, PodWatch
from services.capacity.workers.placement_check import PlacementCheck
from services.capacity.workers.retention import Retention
from services.capacity.workers.scheduler import Scheduler
from shared.admin import Command, dead_letter_commands
from shared.background import Loop
from shared.messaging import Delivery
from shared.messaging.outbox import Wakes
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app


def create_app(settings: CapacitySettings | None = None) -> Litestar:
    """The application; None: settings from the environment.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    settings = read_settings(CapacitySettings) if settings is None else settings
    base = Foundation.open("capacity", settings)
    wake_scheduler, wake_announcer = WakeUp(), WakeUp()
    context = _open_context(base, settings, scheduler=wake_scheduler, announcer=wake_announcer)
    scheduler, announcer = Scheduler(context), Announcer(context)
    wake_scheduler.listen(scheduler.loop.wake)
    wake_announcer.listen(announcer.loop.wake)
    cluster = Cluster(settings.kubeconfig)
    shown_cluster = ShownCluster(context)
    measurer = Measurer(context)
    placement_check = PlacementCheck(context)
    loops: list[Loop] = [worker.loop for worker in (scheduler, announcer, placement_check, Retention(context))]
    loops += [watch(context, cluster).loop for watch in (NodeWatch, PodWatch)]
    return create_service_app(
        base,
        ServiceParts(
            controllers=[GpuController, ClusterController, UsageController, OrphansController],
            verify=base.ask_auth(),
            resources={"context": context, "shown_cluster": shown_cluster, "measurer": measurer},
            fast_routes=fast_routes(shown_cluster),
            subscriptions=subscriptions(context),
            rpc=[
                explain_endpoint(context),
                unplaced_endpoint(context, base.broker, base.service),
                zone_endpoint(context),
            ],
            loops=loops,
            measures=[measurer.measure_queue, measurer.measure_gpus],
            checks=[placement_check.fault],
            closers=[cluster.close],
        ),
    )


@asynccontextmanager
async def administration(settings: CapacitySettings | None = None) -> AsyncIterator[Sequence[Command]]:
    """The commands of `gpudev-admin capacity`; raises as `create_app` does."""
    settings = read_settings(CapacitySettings) if settings is None else settings
    base = Foundation.open("capacity", settings)
    context = _open_context(base, settings, scheduler=WakeUp(), announcer=WakeUp())
    try:
        yield dead_letter_commands(base.database, Delivery(subscriptions(context)), context.clock)
    finally:
        await base.database.close()


def _open_context(base: Foundation, settings: CapacitySettings, *, scheduler: Wakes, announcer: Wakes) -> Context:
    return Context(
        database=base.database,
        outbox=base.relay,
        settings=settings,
        policy=settings.policy(),
        clock=partial(datetime.now, UTC),
        scheduler=scheduler,
        announcer=announcer,
    )
