"""The disks service: the only place that wires it."""

from collections.abc import Callable
from datetime import datetime, timedelta

from litestar import Litestar

from services.disks.adapters.ec2 import Ec2
from services.disks.api.contents import ContentsController
from services.disks.api.disks import DisksController
from services.disks.api.operations import OperationsController
from services.disks.api.snapshots import SnapshotsController
from services.disks.consumers import claim_endpoint, content_endpoint, job_subscriptions
from services.disks.context import Context
from services.disks.domain.limits import Limits
from services.disks.domain.snapshot import Retention
from services.disks.operations.renames import Renaming
from services.disks.settings import DisksSettings
from services.disks.workers.claims import claim_expiry_loop
from services.disks.workers.history import history_loop
from services.disks.workers.open_operations import operations_worker, utc_now
from services.disks.workers.purges import purge_loop
from services.disks.workers.sweeps import Sweeper
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app


def create_app(settings: DisksSettings | None = None) -> Litestar:
    """The application.

    Args:
        settings: None: from the environment.
    """
    settings = settings or read_settings(DisksSettings)
    base = Foundation.open("disks", settings)
    ec2 = Ec2(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
    return create_service_app(base, service_parts(base, settings, ec2))


def service_parts(
    base: Foundation, settings: DisksSettings, ec2: Ec2, clock: Callable[[], datetime] = utc_now
) -> ServiceParts:
    """What makes the service this one.

    Args:
        base: What it is built on.
        settings: Of the service.
        ec2: AWS; closed with the application.
        clock: The time.
    """
    database, relay = base.database, base.relay
    limits = Limits(disks=settings.max_disks_per_user, gb=settings.max_disk_gb_per_user)
    retention = Retention(newest=settings.snapshots_newest, weeks=settings.snapshots_weeks)
    reconciler = operations_worker(database=database, relay=relay, ec2=ec2, retention=retention, clock=clock)
    sweeper = Sweeper(database=database, relay=relay, ec2=ec2, period_seconds=settings.sweep_seconds, clock=clock)
    renaming = Renaming(
        database=database, relay=relay, ec2=ec2, cipher=base.cipher, seconds=settings.rename_seconds, clock=clock
    )
    context = Context(database, relay, reconciler, renaming, base.cipher, settings, limits, clock)
    claim = claim_endpoint(
        database, reconciler, limits=limits, zone=settings.availability_zone,
        provisional_for=timedelta(seconds=settings.claim_seconds), clock=clock,
    )  # fmt: skip
    return ServiceParts(
        controllers=[DisksController, ContentsController, OperationsController, SnapshotsController],
        verify=base.ask_auth(),
        resources={"context": context},
        subscriptions=job_subscriptions(relay, clock),
        rpc=[claim, content_endpoint(database)],
        loops=[
            sweeper.loop,
            claim_expiry_loop(database, clock),
            purge_loop(database, reconciler, clock),
            history_loop(database, retention, clock),
        ],
        workers=[reconciler],
        closers=[ec2.close],
    )
