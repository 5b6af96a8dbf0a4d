"""The disks service: the only place that wires it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from litestar import Litestar

from services.disks.adapters.ec2 import Ec2
from services.disks.api.administration import commands
from services.disks.api.contents import ContentsController
from services.disks.api.disks import DisksController
from services.disks.api.operations import OperationsController
from services.disks.api.orphans import OrphansController
from services.disks.api.snapshots import SnapshotsController
from services.disks.consumers import claim_endpoint, content_endpoint, job_subscriptions
from services.disks.context import Context
from services.disks.domain.operation import Action
from services.disks.operations.measure import measure_operations
from services.disks.settings import DisksSettings
from services.disks.workers.claims import claim_expiry_loop
from services.disks.workers.creations import make_volume
from services.disks.workers.name_tags import bring_tags
from services.disks.workers.open_operations import Pass, operations_worker
from services.disks.workers.orphans import sweep_loop
from services.disks.workers.purges import purge_loop
from services.disks.workers.removals import prune_snapshots, purge_disk
from services.disks.workers.retention import history_loop
from services.disks.workers.snapshots import take_snapshot
from shared.admin import Command, dead_letter_commands
from shared.clock import Clock, utc_now
from shared.messaging import Delivery
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app

PASSES: dict[Action, Pass] = {
    Action.CREATE: make_volume,
    Action.SNAPSHOT: take_snapshot,
    Action.RENAME: bring_tags,
    Action.TAG: bring_tags,
    Action.PRUNE: prune_snapshots,
    Action.PURGE: purge_disk,
}
"""What works the operations of each action; the others are done when they are recorded."""


def create_app(settings: DisksSettings | None = None) -> Litestar:
    """The application.

    Args:
        settings: None: from the environment.
    """
    settings = settings or read_settings(DisksSettings)
    base = Foundation.open("disks", settings)
    ec2 = Ec2(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
    return create_service_app(base, service_parts(base, settings, ec2))


def service_parts(base: Foundation, settings: DisksSettings, ec2: Ec2, clock: Clock = utc_now) -> ServiceParts:
    """What makes the service this one.

    Args:
        base: What it is built on.
        settings: Of the service.
        ec2: AWS; closed with the application.
        clock: The time.
    """
    context = _open_context(base, settings, ec2, clock)
    worker = operations_worker(context, PASSES)
    context.work.add(worker)
    return ServiceParts(
        controllers=[DisksController, ContentsController, OperationsController, SnapshotsController, OrphansController],
        verify=base.ask_auth(),
        resources={"context": context},
        subscriptions=job_subscriptions(context),
        rpc=[claim_endpoint(context), content_endpoint(context)],
        loops=[
            sweep_loop(context),
            claim_expiry_loop(context),
            purge_loop(context),
            history_loop(context),
        ],
        measures=[partial(measure_operations, context)],
        workers=[worker],
        closers=[ec2.close],
    )


@asynccontextmanager
async def administration(settings: DisksSettings | None = None) -> AsyncIterator[Sequence[Command]]:
    """The commands of `gpudev-admin disks`; settings as for `create_app`."""
    settings = settings or read_settings(DisksSettings)
    base = Foundation.open("disks", settings)
    ec2 = Ec2(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
    context = _open_context(base, settings, ec2, utc_now)
    delivery = Delivery(job_subscriptions(context))
    try:
        yield [*commands(context), *dead_letter_commands(base.database, delivery, context.clock)]
    finally:
        await ec2.close()
        await base.database.close()


def _open_context(base: Foundation, settings: DisksSettings, ec2: Ec2, clock: Clock) -> Context:
    return Context(
        database=base.database,
        broker=base.broker,
        outbox=base.relay,
        cipher=base.cipher,
        clock=clock,
        ec2=ec2,
        settings=settings,
    )
