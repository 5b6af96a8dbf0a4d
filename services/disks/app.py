"""The disks service: the only place that wires it."""

from datetime import UTC, datetime, timedelta

from litestar import Litestar

from services.disks.api import Desk, DisksController
from services.disks.consumers import claim_endpoint, content_endpoint, job_subscriptions
from services.disks.domain.changes import Limits
from services.disks.domain.snapshot import Retention
from services.disks.ebs import Ebs
from services.disks.reconciler.housekeeping import claim_expiry_loop, history_loop, purge_loop
from services.disks.reconciler.loop import Reconciler
from services.disks.reconciler.renaming import Renaming
from services.disks.reconciler.sweeper import Sweeper
from services.disks.settings import DisksSettings
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app


def create_app(settings: DisksSettings | None = None) -> Litestar:
    """The application.

    Args:
        settings: None: from the environment.
    """
    settings = settings or read_settings(DisksSettings)
    base = Foundation.open("disks", settings)
    ebs = Ebs(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
    limits = Limits(disks=settings.max_disks_per_user, gb=settings.max_disk_gb_per_user)
    retention = Retention(newest=settings.snapshots_newest, weeks=settings.snapshots_weeks)
    reconciler = Reconciler(database=base.database, relay=base.relay, ebs=ebs, retention=retention, clock=_utc_now)
    sweeper = Sweeper(
        database=base.database, relay=base.relay, ebs=ebs, period_seconds=settings.sweep_seconds, clock=_utc_now
    )
    renaming = Renaming(
        database=base.database, relay=base.relay, ebs=ebs, cipher=base.cipher, seconds=settings.rename_seconds,
        clock=_utc_now,
    )  # fmt: skip
    claim = claim_endpoint(
        base.database,
        reconciler,
        limits=limits,
        zone=settings.availability_zone,
        provisional_for=timedelta(seconds=settings.claim_seconds),
    )
    parts = ServiceParts(
        controllers=[DisksController],
        verify=base.ask_auth(),
        resources={"desk": Desk(base.database, base.relay, reconciler, renaming, base.cipher, settings, limits)},
        subscriptions=job_subscriptions(base.relay),
        rpc=[claim, content_endpoint(base.database)],
        loops=[
            reconciler.loop,
            sweeper.loop,
            claim_expiry_loop(base.database, _utc_now),
            purge_loop(base.database, reconciler, _utc_now),
            history_loop(base.database, retention, _utc_now),
        ],
        closers=[ebs.close],
    )
    return create_service_app(base, parts)


def _utc_now() -> datetime:
    return datetime.now(UTC)
