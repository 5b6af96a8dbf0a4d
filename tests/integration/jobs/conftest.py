"""Fixtures of the jobs service."""

from tests.support.jobs import jobs_kubeconfig, jobs_schema, jobs_without_cluster, jobs_world

__all__ = ["jobs_kubeconfig", "jobs_schema", "jobs_without_cluster", "jobs_world"]
