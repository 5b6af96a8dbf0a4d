"""A node dies under running jobs: what they hold stays theirs until Kubernetes has confirmed that the node is gone."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from gpudev import AsyncClient, errors
from tests.support.promises import promised
from tests.support.stack import LocalStack, running_stack, until, users
from tests.support.tunnel import read_until_end

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def two_nodes() -> Iterator[LocalStack]:
    with running_stack(GPUDEV_NODES="p5.48xlarge,p5.48xlarge") as stack:
        yield stack


async def test_leases_of_a_dead_node_stay_until_it_is_gone_then_its_jobs_fail(two_nodes: LocalStack) -> None:
    """Incidents 6 and 8: neither its GPUs nor its disk are handed out before."""
    async with users(two_nodes, "alice", "bob") as (alice, bob):
        lost = await alice.submit(gpu_count=8, disk_name="data", disk_size_gb=10)
        active = await alice.wait(lost, "active")
        api = two_nodes.cluster_api()
        pod = await asyncio.to_thread(api.read_namespaced_pod, active["pod_name"], "gpudev")
        node = pod.spec.node_name
        other = await alice.submit(gpu_count=8)
        await alice.wait(other, "active")
        waiting = await bob.submit(gpu_count=8)

        async with AsyncClient(two_nodes.url, alice.key) as client, client.open_ssh(lost) as session:
            assert (await session.read()).startswith(b"SSH-2.0-")
            with promised(10):
                await asyncio.to_thread(two_nodes.simulate, f"nodes/{node}/kill")
                ended = await asyncio.wait_for(read_until_end(session), 60)
        assert ended.detail == f"The node was lost: Node {node} does not answer"

        async def dead() -> dict[str, Any] | None:
            entry = (await alice.availability())["h100"]
            return entry if entry["total"] == 8 else None

        with promised(2):
            entry = await until(dead, "the node is out of the sums", period=0.05)
        rows = {row["name"]: row for row in entry["nodes"]}
        assert (rows[node]["ready"], rows[node]["in_use"]) == (False, 8)
        assert entry["in_use"] == 8
        assert (await alice.job(lost))["status"] == "active"
        assert (await bob.job(waiting))["status"] == "queued"
        assert (await alice.client.get("/v1/disks/data")).json()["reservation_id"] == lost
        body = {"image": "debian", "instance_type": "p5.48xlarge", "gpu_count": 8, "disk_name": "data"}
        taken = await alice.client.post("/v1/jobs/submit", json=body)
        assert (taken.status_code, lost in taken.json()["detail"]) == (409, True)

        await asyncio.to_thread(api.delete_node, node)
        failed = await alice.wait(lost, "failed", seconds=60)
        assert "node was lost" in failed["failure_reason"]
        assert node in failed["failure_reason"]
        async with AsyncClient(two_nodes.url, alice.key) as client:
            with pytest.raises(errors.Conflict, match=f"The job is failed: .*node was lost.*{node}"):
                async with client.open_ssh(lost):
                    pass

        async def freed() -> bool:
            return not (await alice.client.get("/v1/disks/data")).json()["in_use"]

        await until(freed, "the disk is free")
        assert (await bob.job(waiting))["status"] == "queued"
        await alice.client.post(f"/v1/jobs/{other}/cancel")
        await bob.wait(waiting, "active")
        entry = (await alice.availability())["h100"]
        assert [row["name"] for row in entry["nodes"]] == [name for name in rows if name != node]
