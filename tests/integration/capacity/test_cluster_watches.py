"""The watches of nodes and pods, against an API server that fails as they do in the field."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.capacity.adapters.kubernetes import Cluster
from services.capacity.domain.availability import TypeAvailability
from services.capacity.workers.cluster_watches import NodeWatch, PodWatch
from services.capacity.workers.scheduler import Scheduler
from shared.errors import DatabaseUnavailable
from shared.kubernetes import ClusterUnavailable
from tests.support.capacity import NOW, Capacity, ScriptedCluster, capacity_settings, ended, scripted_cluster
from tests.support.harness import eventually, running


@dataclass
class Watched:
    """A running scheduler and both watches over a scripted cluster."""

    capacity: Capacity
    cluster: ScriptedCluster
    nodes: NodeWatch
    pods: PodWatch

    async def sees(self, gpu_type: str = "h100", *, seconds: float = 60.0, **numbers: int) -> TypeAvailability:
        """Wait until availability says these numbers."""

        async def holds() -> TypeAvailability | None:
            try:
                entry = await self.capacity.available(gpu_type)
            except (KeyError, DatabaseUnavailable):
                return None
            return entry if all(getattr(entry, name) == value for name, value in numbers.items()) else None

        seen = await eventually(holds, f"{gpu_type} {numbers}", seconds=seconds)
        assert isinstance(seen, TypeAvailability)
        return seen

    async def listed_again(self) -> None:
        """Wait until everything was listed twice more."""
        lists = self.cluster.lists
        await eventually(lambda: self.cluster.lists >= lists + 4, "lists")


@pytest.fixture
async def watched(capacity: Capacity, tmp_path: Path) -> AsyncIterator[Watched]:
    settings = capacity_settings(watch_seconds=1.0, cpu_per_gpu=8)
    async with scripted_cluster(tmp_path) as (scripted, kubeconfig):
        await scripted.put_node("n1")
        await scripted.put_node("n2")
        cluster = Cluster(kubeconfig)
        context = replace(capacity.context, settings=settings)
        scheduler = Scheduler(context)
        capacity.scheduler.listener = scheduler.loop.wake
        nodes, pods = NodeWatch(context, cluster), PodWatch(context, cluster)
        try:
            async with running(scheduler.loop.run, nodes.loop.run, pods.loop.run):
                watched = Watched(capacity, scripted, nodes, pods)
                await watched.sees(total=16)
                yield watched
        finally:
            await cluster.close()


async def test_a_cordon_shows_in_availability_at_once(watched: Watched) -> None:
    await watched.cluster.put_node("n2", unschedulable=True)
    await watched.sees(total=8, available=8)
    await watched.cluster.put_node("n2")
    await watched.sees(total=16, available=16)


async def test_a_taint_against_our_pods_makes_a_node_unusable_and_the_gpu_taint_does_not(watched: Watched) -> None:
    await watched.cluster.put_node("n1", taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}])
    await watched.cluster.put_node("n2", taints=[{"key": "maintenance", "effect": "NoExecute"}])
    entry = await watched.sees(total=8)
    assert [node.schedulable for node in entry.nodes] == [True, False]


async def test_a_new_node_starts_the_job_that_waits_for_it(watched: Watched) -> None:
    job = await watched.capacity.submit(8, "a100")
    await watched.cluster.put_node("n3", "p4d.24xlarge")
    await watched.sees("a100", in_use=8, queued=0)
    assert (await watched.capacity.leased_by(job.job_id))[0] == ("n3", 0)


async def test_gpus_of_a_foreign_pod_are_not_available_until_it_is_over(watched: Watched) -> None:
    await watched.cluster.put_pod("theirs", "n1", 3)
    entry = await watched.sees(available=13, in_use=3, total=16)
    assert entry.max_placeable == 8
    await watched.cluster.put_pod("theirs", "n1", 3, phase="Succeeded")
    await watched.sees(available=16, in_use=0)
    await watched.cluster.put_pod("unbound", None, 3)
    await watched.cluster.put_pod("more", "n2", 5)
    await watched.sees(available=11)
    await watched.cluster.remove("pods", "more")
    await watched.sees(available=16)


async def test_gpus_whose_cpu_a_foreign_pod_holds_are_not_available(watched: Watched) -> None:
    # 64 cores and 8 GPUs, of which each of ours brings 8 cores along
    await watched.cluster.put_pod("build", "n1", 0, cpu="33500m")
    entry = await watched.sees(available=11, in_use=5, total=16)
    assert entry.max_placeable == 8
    jobs = [await watched.capacity.submit(4, at=NOW + timedelta(seconds=number)) for number in range(3)]
    await watched.sees(in_use=13, queued=4)
    assert {node for job in jobs for node, _ in await watched.capacity.leased_by(job.job_id)} == {"n2"}
    await watched.cluster.remove("pods", "build")
    await watched.sees(in_use=12, queued=0)


async def test_gpus_that_turn_unhealthy_are_gone_at_once_and_their_lease_stays(watched: Watched) -> None:
    job = await watched.capacity.submit(8)
    await watched.sees(in_use=8)
    (node, _), *_ = await watched.capacity.leased_by(job.job_id)
    await watched.cluster.put_node(node, gpus=7)
    await watched.sees(total=15, in_use=7, available=8)
    assert len(await watched.capacity.leased_by(job.job_id)) == 8
    assert await watched.capacity.told(job.job_id) == ["granted"]


async def test_a_pod_of_ours_counts_once_and_without_its_lease_still_counts(watched: Watched) -> None:
    job = await watched.capacity.submit(4)
    await watched.sees(in_use=4)
    ours: dict[str, Any] = {"namespace": "gpudev", "labels": {"gpudev/job-id": str(job.job_id)}}
    (node, _), *_ = await watched.capacity.leased_by(job.job_id)
    await watched.cluster.put_pod("ours", node, 4, **ours)
    await watched.cluster.put_pod("theirs", "n2" if node == "n1" else "n1", 1)
    await watched.sees(in_use=5, available=11)
    await watched.capacity.apply(ended(job))
    assert await watched.capacity.leases() == []
    assert (await watched.capacity.available()).in_use == 5, "GPUs of a pod that is still there were called free"
    await watched.cluster.remove("pods", "ours")
    await watched.sees(in_use=1, available=15)


async def test_a_dead_node_keeps_its_leases_until_it_is_gone(watched: Watched) -> None:
    """Incident 8."""
    job = await watched.capacity.submit(8)
    await watched.sees(in_use=8)
    (node, _), *_ = await watched.capacity.leased_by(job.job_id)
    await watched.cluster.put_node(node, ready=False)
    await watched.sees(total=8, in_use=0)
    assert len(await watched.capacity.leased_by(job.job_id)) == 8
    await watched.cluster.remove("nodes", node)
    await eventually(lambda: _told(watched, job.job_id, ["granted", "revoked"]), "revoked")
    assert await watched.capacity.leases() == []
    assert (await watched.capacity.events(node))[-1].type.endswith("node_changed.v1")


async def test_an_empty_list_takes_no_node_out(watched: Watched) -> None:
    job = await watched.capacity.submit(8)
    await watched.sees(in_use=8)
    watched.cluster.empty_lists = True
    await watched.listed_again()
    assert {"n1", "n2"} <= set(watched.cluster.gets), "nobody asked for the nodes that the list lacked"
    assert len(await watched.capacity.leased_by(job.job_id)) == 8
    assert (await watched.capacity.available()).total == 16


async def test_errors_change_nothing_and_are_recovered_from_without_a_restart(watched: Watched) -> None:
    job = await watched.capacity.submit(8)
    await watched.sees(in_use=8)
    watched.cluster.failing = 500
    (node, _), *_ = await watched.capacity.leased_by(job.job_id)
    del watched.cluster.objects["nodes"][node]
    await eventually(lambda: watched.nodes.loop._error, "an error was seen")
    assert len(await watched.capacity.leased_by(job.job_id)) == 8
    watched.cluster.failing = None
    await watched.sees(total=8, in_use=0)
    assert await watched.capacity.told(job.job_id) == ["granted", "revoked"]


async def test_a_watch_that_is_too_old_leads_to_a_new_list(watched: Watched) -> None:
    watched.cluster.watch_status = 410
    await watched.cluster.put_node("n3")
    await watched.sees(total=24)
    watched.cluster.watch_status = None


async def test_a_half_open_watch_is_given_up(watched: Watched) -> None:
    watched.cluster.silent = True
    await watched.listed_again()
    await watched.cluster.put_node("n3")
    await watched.sees(total=24)


async def test_the_age_of_what_is_known_is_a_metric(watched: Watched) -> None:
    def age() -> float:
        value = REGISTRY.get_sample_value("gpudev_watch_age_seconds", {"resource": "nodes"})
        assert value is not None
        return value

    watched.cluster.failing = 500
    await eventually(lambda: age() > 1.5, "the age rises while the cluster fails")
    watched.cluster.failing = None
    await eventually(lambda: age() < 1.0, "the age falls when it answers again")


async def test_a_node_that_is_back_under_its_name_can_be_used(watched: Watched) -> None:
    await watched.cluster.remove("nodes", "n2")
    await watched.sees(total=8)
    await watched.cluster.put_node("n2")
    await watched.sees(total=16)
    removed = [b'"removed":true' in bytes(event.data) for event in await watched.capacity.events("n2")]
    assert removed == [False, True, False]


async def test_what_is_no_answer_is_no_absence(tmp_path: Path) -> None:
    async with scripted_cluster(tmp_path) as (scripted, kubeconfig):
        cluster = Cluster(kubeconfig)
        for status in (503, 404):  # a 404 without Kubernetes' own Status is a proxy's
            scripted.failing = status
            with pytest.raises(ClusterUnavailable):
                await cluster.node_uid("n1")
        scripted.failing = None
        assert await cluster.node_uid("n1") is None
        await cluster.close()
    cluster = Cluster(str(tmp_path / "kubeconfig"))
    with pytest.raises(ClusterUnavailable):
        await cluster.node_uid("n1")
    await cluster.close()


async def _told(watched: Watched, entity_id: object, names: list[str]) -> bool:
    return await watched.capacity.told(entity_id) == names
