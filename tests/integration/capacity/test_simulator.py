"""The watches against the simulated cluster, through the real client over TLS."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from kubernetes.aio import client, config

from services.capacity.adapters.kubernetes import Cluster
from services.capacity.domain.availability import TypeAvailability
from services.capacity.workers.cluster_watches import NodeWatch, PodWatch
from services.capacity.workers.scheduler import Scheduler
from shared.errors import DatabaseUnavailable
from tests.support.capacity import Capacity, capacity_settings
from tests.support.harness import eventually, running
from tests.support.promises import promised
from tests.support.servers import ClusterSimulator


@dataclass
class Watched:
    """Capacity's loops over the simulator, and an administrator."""

    capacity: Capacity
    simulator: ClusterSimulator

    @asynccontextmanager
    async def administrator(self) -> AsyncIterator[Any]:
        """A client of one's own."""
        configuration = client.Configuration()
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            str(self.simulator.kubeconfig), client_configuration=configuration
        )
        async with client.ApiClient(configuration=configuration) as api:
            yield client.CoreV1Api(api)

    async def sees(self, gpu_type: str, *, seconds: float = 60.0, **numbers: int) -> TypeAvailability:
        """Wait until availability says these numbers."""

        async def holds() -> TypeAvailability | None:
            entry = await self.entry(gpu_type)
            matches = entry and all(getattr(entry, name) == value for name, value in numbers.items())
            return entry if matches else None

        seen = await eventually(holds, f"{gpu_type} {numbers}", seconds=seconds)
        assert isinstance(seen, TypeAvailability)
        return seen

    async def entry(self, gpu_type: str) -> TypeAvailability | None:
        """Availability of a type; None while it has no nodes."""
        try:
            return await self.capacity.available(gpu_type)
        except (KeyError, DatabaseUnavailable):
            return None


@pytest.fixture
async def watched(capacity: Capacity, cluster_simulator: ClusterSimulator) -> AsyncIterator[Watched]:
    cluster_simulator.process.start()
    cluster = Cluster(str(cluster_simulator.kubeconfig))
    context = replace(capacity.context, settings=capacity_settings(watch_seconds=5.0))
    scheduler = Scheduler(context)
    capacity.scheduler.listener = scheduler.loop.wake
    nodes, pods = NodeWatch(context, cluster), PodWatch(context, cluster)
    try:
        async with running(scheduler.loop.run, nodes.loop.run, pods.loop.run):
            watched = Watched(capacity, cluster_simulator)
            await watched.sees("h100", total=16)
            await watched.sees("a100", total=16)
            yield watched
    finally:
        await cluster.close()


async def test_a_cordon_is_seen_within_two_seconds(watched: Watched) -> None:
    entry = await watched.sees("a100")
    name = entry.nodes[0].name
    async with watched.administrator() as administrator:
        await administrator.patch_node(name, {"spec": {"unschedulable": True}})
        try:
            with promised(2):
                await watched.sees("a100", total=8)
        finally:
            await administrator.patch_node(name, {"spec": {"unschedulable": False}})
        await watched.sees("a100", total=16)


async def test_a_foreign_pod_takes_its_gpus_and_gives_them_back(watched: Watched) -> None:
    before = await watched.sees("a100", total=16)
    name = f"foreign-{uuid4().hex[:8]}"
    limits = {"nvidia.com/gpu": "3"}
    body = {
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"node.kubernetes.io/instance-type": "p4d.24xlarge"},
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "busybox", "resources": {"limits": limits, "requests": limits}}],
        },
    }
    async with watched.administrator() as administrator:
        await administrator.create_namespaced_pod("default", body)
        try:
            await watched.sees("a100", in_use=before.in_use + 3)
        finally:
            await administrator.delete_namespaced_pod(name, "default", grace_period_seconds=0)
        await watched.sees("a100", in_use=before.in_use)


async def test_a_simulator_that_dies_takes_no_node_and_no_lease_with_it(watched: Watched) -> None:
    job = await watched.capacity.submit(8, "a100")
    await eventually(lambda: watched.capacity.leased_by(job.job_id), "leased")
    watched.simulator.process.kill()
    try:
        assert (await watched.sees("a100")).total == 16
        assert len(await watched.capacity.leased_by(job.job_id)) == 8
    finally:
        watched.simulator.process.start()
    async with watched.administrator() as administrator:
        name = (await watched.sees("a100")).nodes[0].name
        await administrator.patch_node(name, {"spec": {"unschedulable": True}})
        try:
            await watched.sees("a100", total=8)
        finally:
            await administrator.patch_node(name, {"spec": {"unschedulable": False}})
        await watched.sees("a100", total=16)
    assert len(await watched.capacity.leased_by(job.job_id)) == 8
