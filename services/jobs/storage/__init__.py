"""The tables of the jobs service, and every SQL statement that it runs."""

from services.jobs.storage import access, disabled_users, jobs, leases, logs, owners, queue, submissions, tables

__all__ = ["access", "disabled_users", "jobs", "leases", "logs", "owners", "queue", "submissions", "tables"]
