"""The disks service: the only place that wires it."""

from datetime import timedelta

from litestar import Litestar

from services.disks.api import Desk, DisksController
from services.disks.consumers import claim_endpoint, job_subscriptions
from services.disks.ebs import Ebs
from services.disks.reconciler import CreationReconciler, claim_expiry_loop, history_loop
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
    reconciler = CreationReconciler(database=base.database, relay=base.relay, ebs=ebs)
    claim = claim_endpoint(
        base.database,
        reconciler,
        zone=settings.availability_zone,
        provisional_for=timedelta(seconds=settings.claim_seconds),
    )
    parts = ServiceParts(
        controllers=[DisksController],
        verify=base.ask_auth(),
        resources={"desk": Desk(base.database, reconciler, base.cipher, settings)},
        subscriptions=job_subscriptions(base.relay),
        rpc=[claim],
        loops=[reconciler.loop, claim_expiry_loop(base.database), history_loop(base.database)],
        closers=[ebs.close],
    )
    return create_service_app(base, parts)
