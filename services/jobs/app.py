"""The jobs service's application."""

from litestar import Litestar

from services.jobs.access import AccessKeeper
from services.jobs.api import JobsController
from services.jobs.changes import Changes
from services.jobs.cluster import Cluster
from services.jobs.consumers import News
from services.jobs.disabled_users import DisabledUsers
from services.jobs.github import GitHub
from services.jobs.line import LineKeeper
from services.jobs.logs import LogReader
from services.jobs.queue import QueueController
from services.jobs.reconciler import Reconciler
from services.jobs.resources import Resources
from services.jobs.settings import JobsSettings
from services.jobs.sweeper import Sweeper
from shared.settings import read_settings
from shared.web.app import Foundation, ServiceParts, create_service_app
from shared.web.authentication import Verify


def create_app(settings: JobsSettings | None = None, verify: Verify | None = None) -> Litestar:
    """Wire the service.

    Args:
        settings: None: from the environment.
        verify: How keys are checked; None: by asking auth.
    """
    settings = settings or read_settings(JobsSettings)
    base = Foundation.open("jobs", settings)
    resources = Resources(
        database=base.database, broker=base.broker, relay=base.relay, cipher=base.cipher, settings=settings,
        changes=Changes(base.broker),
    )  # fmt: skip
    cluster = Cluster(kubeconfig=settings.kubeconfig, namespace=settings.namespace)
    github = GitHub(url=settings.github_url, seconds=settings.github_seconds)
    reconciler = Reconciler(resources, cluster, github)
    access = AccessKeeper(resources, cluster, github)
    sweeper = Sweeper(resources, cluster)
    parts = ServiceParts(
        controllers=[JobsController, QueueController],
        verify=verify or base.ask_auth(),
        resources={"resources": resources, "log_reader": LogReader(resources, cluster)},
        subscriptions=News(resources).subscriptions(),
        loops=[
            reconciler.loop,
            access.loop,
            sweeper.loop,
            DisabledUsers(resources).loop,
            LineKeeper(resources).loop,
        ],
        tasks=[reconciler.watch],
        releases=[resources.changes.close],
        closers=[reconciler.close, access.close, github.close, cluster.close],
    )
    return create_service_app(base, parts)
