"""The gauges of the jobs say what the tables do."""

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from services.jobs.operations.measure import measure_jobs
from shared.database import Statement
from tests.support.jobs import Client, JobsWorld

AGO = "now() - interval '{} seconds'"


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def measured(world: JobsWorld, name: str, **labels: str) -> float:
    await measure_jobs(world.context())
    found = REGISTRY.get_sample_value(f"gpudev_{name}", labels)
    assert found is not None, name
    return found


async def test_jobs_that_are_not_over_are_counted_by_status(world: JobsWorld, client: Client) -> None:
    await world.submit(client)
    over = await world.submit(client)
    await world.submit_active(client)
    assert (await client.post(f"/v1/jobs/{over}/cancel")).status_code == 200
    assert await measured(world, "jobs", status="queued") == 1
    assert await measured(world, "jobs", status="active") == 1
    assert await measured(world, "jobs", status="preparing") == 0
    assert REGISTRY.get_sample_value("gpudev_jobs", {"status": "cancelled"}) is None


async def test_a_job_that_is_due_and_that_nobody_works_is_overdue(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    assert await measured(world, "work_overdue_seconds", worker="reconciler") == 0, "it has no GPUs to see to"
    # held first: the worker of this replica is faster than the test
    await world.update(job_id, "node = 'n', worked_until = now() + interval '1 hour', due_at = " + AGO.format(90))
    assert await measured(world, "work_overdue_seconds", worker="reconciler") == 0, "somebody works it"


async def test_overdue_work_of_each_worker_is_told_by_its_age(world: JobsWorld) -> None:
    async with world.service() as client:
        job_id = await world.submit(client)
    # no replica runs now
    await world.update(job_id, "node = 'n', due_at = " + AGO.format(90))
    await world.database.execute(
        Statement(sa.text(f"UPDATE job_access SET due_at = {AGO.format(50)} WHERE job_id = '{job_id}'"))
    )
    assert 89 < await measured(world, "work_overdue_seconds", worker="reconciler") < 105
    assert 49 < await measured(world, "work_overdue_seconds", worker="access_keeper") < 65
    assert await measured(world, "work_overdue_seconds", worker="webhooks") == 0
    webhook = (
        "INSERT INTO webhooks (id, user_id, types, format, sealed, created_at) "
        "VALUES ('{0}', 1, '{{}}', 'x', '', now())"
    )
    delivery = (
        "INSERT INTO webhook_deliveries (webhook_id, message_id, type, entity, body, created_at, due_at) "
        "VALUES ('{0}', gen_random_uuid(), 'x', 'one', '', now(), {1})"
    )
    await world.database.execute(Statement(sa.text(webhook.format(job_id))))
    # the first is tried again later, and holds up the second
    await world.database.execute(Statement(sa.text(delivery.format(job_id, "now() + interval '1 hour'"))))
    await world.database.execute(Statement(sa.text(delivery.format(job_id, AGO.format(70)))))
    assert await measured(world, "work_overdue_seconds", worker="webhooks") == 0
    await world.database.execute(Statement(sa.text(f"UPDATE webhook_deliveries SET due_at = {AGO.format(80)}")))
    assert 79 < await measured(world, "work_overdue_seconds", worker="webhooks") < 95


async def test_a_job_that_holds_gpus_beyond_its_end_overstays(world: JobsWorld) -> None:
    async with world.service() as client:
        job_id = await world.submit_active(client)
    await world.update(job_id, "node = 'n', expires_at = now() + interval '1 hour'")
    assert await measured(world, "jobs_overstaying_seconds") == 0
    await world.update(job_id, "expires_at = " + AGO.format(120))
    assert 119 < await measured(world, "jobs_overstaying_seconds") < 135
    await world.update(job_id, "released_at = now()")
    assert await measured(world, "jobs_overstaying_seconds") == 0
