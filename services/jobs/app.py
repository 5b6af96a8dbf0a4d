"""The jobs service's application."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from litestar import Litestar

from services.jobs.adapters.github import GitHub
from services.jobs.adapters.kubernetes import Cluster
from services.jobs.adapters.webhooks import WebhookSender
from services.jobs.api.access import AccessController
from services.jobs.api.administration import commands
from services.jobs.api.events import EventsController
from services.jobs.api.jobs import JobsController, fast_routes
from services.jobs.api.logs import LogsController
from services.jobs.api.orphans import OrphansController
from services.jobs.api.queue import QueueController
from services.jobs.api.shown_jobs import ShownJobs
from services.jobs.api.ssh import SshController
from services.jobs.api.webhooks import WebhooksController
from services.jobs.consumers import Consumers
from services.jobs.context import Context, WakeUps
from services.jobs.operations.insert_jobs import group_of_submissions
from services.jobs.operations.measure import measure_jobs
from services.jobs.operations.stream_events import EventReader
from services.jobs.operations.stream_log import LogReader
from services.jobs.operations.tunnel import Tunnels
from services.jobs.settings import JobsSettings
from services.jobs.workers.access_keeper import AccessKeeper
from services.jobs.workers.counts import CountFolder
from services.jobs.workers.disabled_users import DisabledUsers
from services.jobs.workers.orphans import OrphanSweeper
from services.jobs.workers.queue_keeper import QueueKeeper
from services.jobs.workers.reconciler import Reconciler
from services.jobs.workers.retention import Retention
from services.jobs.workers.webhooks import WebhookDeliveries
from shared.admin import Command, dead_letter_commands
from shared.messaging import Delivery
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
    context = _open_context(base, settings)
    cluster = Cluster(kubeconfig=settings.kubeconfig, namespace=settings.namespace)
    github = GitHub(url=settings.github_url, seconds=settings.github_seconds)
    reconciler = Reconciler(context, cluster, github)
    access = AccessKeeper(context, cluster, github)
    sweeper = OrphanSweeper(context, cluster)
    events = EventReader(context, base.broker)
    webhook_sender = WebhookSender(settings.allowed_webhook_networks())
    webhooks = WebhookDeliveries(context, webhook_sender)
    shown_jobs = ShownJobs(context)
    resources = {
        "context": context,
        "cluster": cluster,
        "log_reader": LogReader(context, cluster),
        "event_reader": events,
        "shown_jobs": shown_jobs,
        "tunnels": Tunnels(context, cluster),
        "webhook_sender": webhook_sender,
    }
    parts = ServiceParts(
        controllers=[
            JobsController,
            AccessController,
            LogsController,
            QueueController,
            EventsController,
            SshController,
            WebhooksController,
            OrphansController,
        ],
        verify=verify or base.ask_auth(),
        resources=resources,
        fast_routes=fast_routes(context, shown_jobs),
        subscriptions=Consumers(context).subscriptions(),
        loops=[
            sweeper.loop,
            DisabledUsers(context).loop,
            QueueKeeper(context).loop,
            events.feed.loop,
            CountFolder(context).loop,
            webhooks.retention,
            Retention(context).loop,
        ],
        measures=[partial(measure_jobs, context)],
        workers=[reconciler.worker, access.worker, webhooks.worker],
        tasks=[reconciler.watch],
        releases=[context.wake_ups.close],
        closers=[reconciler.close, github.close, cluster.close, webhook_sender.close],
    )
    return create_service_app(base, parts)


@asynccontextmanager
async def administration(settings: JobsSettings | None = None) -> AsyncIterator[Sequence[Command]]:
    """The commands of `gpudev-admin jobs`; settings as for `create_app`."""
    settings = settings or read_settings(JobsSettings)
    base = Foundation.open("jobs", settings)
    context = _open_context(base, settings)
    cluster = Cluster(kubeconfig=settings.kubeconfig, namespace=settings.namespace)
    delivery = Delivery(Consumers(context).subscriptions())
    try:
        yield [*commands(context, cluster), *dead_letter_commands(base.database, delivery, context.clock)]
    finally:
        await cluster.close()
        await base.database.close()


def _open_context(base: Foundation, settings: JobsSettings) -> Context:
    return Context(
        database=base.database,
        broker=base.broker,
        outbox=base.relay,
        cipher=base.cipher,
        settings=settings,
        clock=base.clock,
        wake_ups=WakeUps(base.broker),
        submissions=group_of_submissions(base.database, base.cipher),
    )
