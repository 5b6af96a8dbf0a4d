"""Fixtures of the jobs service: what most of its tests begin with."""

from collections.abc import AsyncIterator

import pytest

from tests.support.jobs import (
    Client,
    JobsWorld,
    jobs_dsn,
    jobs_kubeconfig,
    jobs_schema,
    jobs_without_cluster,
    jobs_world,
)

__all__ = ["client", "jobs_dsn", "jobs_kubeconfig", "jobs_schema", "jobs_without_cluster", "jobs_world", "world"]


@pytest.fixture
async def world(jobs_world: JobsWorld) -> JobsWorld:
    """On a cluster; some files' own is without one, or has a disks service that answers."""
    return jobs_world


@pytest.fixture
async def client(world: JobsWorld) -> AsyncIterator[Client]:
    """Of a replica of the service, with alice's key."""
    async with world.service() as client:
        yield client
