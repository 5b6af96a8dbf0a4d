"""Who has lost a lease stops at once, and leaves the row to whoever has it."""

from collections.abc import Callable
from uuid import UUID

import sqlalchemy as sa
from prometheus_client import REGISTRY

from shared.database import Statement
from tests.support.harness import eventually
from tests.support.jobs import JobsWorld, cluster_faults, until_status
from tests.support.promises import promised
from tests.support.servers import ClusterSimulator
from tests.support.tools_pods import Tools, key_pages

ALICE = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}"
ANOTHER = "00000000-0000-4000-8000-000000000009"
_STEAL = "UPDATE {table} SET worked_by = '{another}', worked_until = now() + interval '1 hour' WHERE {key} = '{job_id}'"
_HOLDER = "SELECT worked_by FROM {table} WHERE {key} = '{job_id}'"


def leases_lost(worker: str) -> float:
    return REGISTRY.get_sample_value("gpudev_passes_failed_total", {"worker": worker, "error": "LeaseLost"}) or 0.0


def lost_since(worker: str) -> Callable[[], bool]:
    before = leases_lost(worker)
    return lambda: leases_lost(worker) > before


async def holder(world: JobsWorld, job_id: UUID, table: str, key: str) -> str | None:
    found = await world.database.fetch_value(Statement(sa.text(_HOLDER.format(table=table, key=key, job_id=job_id))))
    return None if found is None else str(found)


async def steal(world: JobsWorld, job_id: UUID, table: str, key: str) -> None:
    values = {"table": table, "key": key, "job_id": job_id, "another": ANOTHER}
    await world.database.execute(Statement(sa.text(_STEAL.format(**values))))


async def test_a_pass_over_a_job_whose_lease_is_anothers_is_cancelled(jobs_world: JobsWorld) -> None:
    world = jobs_world
    async with world.service() as client:
        job_id = await world.submit(client)
        lost = lost_since("reconciler")
        with cluster_faults({"path": f"/namespaces/{world.settings.namespace}/secrets$", "hang": True}):
            await world.grant(job_id)
            await eventually(lambda: holder(world, job_id, "jobs", "id"), "a worker has it")
            await steal(world, job_id, "jobs", "id")
            await eventually(lost, "the pass is cancelled")
        assert await holder(world, job_id, "jobs", "id") == ANOTHER
        await world.update(job_id, "worked_until = now()")
        await until_status(client, job_id, "active")


async def test_a_call_into_a_pod_whose_lease_is_anothers_is_let_go(
    jobs_world: JobsWorld, cluster_simulator: ClusterSimulator
) -> None:
    world = jobs_world
    async with key_pages(world, alice=ALICE), world.service() as client:
        job_id = await world.submit(client, github_user="alice")
        await world.grant(job_id)
        await until_status(client, job_id, "active")
        tools = Tools.take_over(cluster_simulator, (await world.row(job_id))["pod_uid"])
        tools.let("jupyter start", "hold")
        await client.post(f"/v1/jobs/{job_id}/jupyter/enable")
        await eventually(lambda: tools.holds, "the call is under way")
        lost = lost_since("access")
        await steal(world, job_id, "job_access", "job_id")
        with promised(5):
            await eventually(lost, "the call is let go")
        assert await holder(world, job_id, "job_access", "job_id") == ANOTHER
