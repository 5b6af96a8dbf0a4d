"""The tables of the jobs service, and every SQL statement that it runs."""

from services.jobs.storage import (
    access,
    counts,
    disabled_users,
    jobs,
    leases,
    lists,
    logs,
    measure,
    owners,
    queue,
    submissions,
    tables,
    versions,
    webhooks,
)

__all__ = [
    "access",
    "counts",
    "disabled_users",
    "jobs",
    "leases",
    "lists",
    "logs",
    "measure",
    "owners",
    "queue",
    "submissions",
    "tables",
    "versions",
    "webhooks",
]
