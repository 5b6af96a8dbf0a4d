"""Jobs whose entry in the queue is lost, or never came about, while everything runs."""

import pytest

from deploy.local.broker import OPERATOR_USER, Broker
from shared.contracts.events import STREAM
from tests.support.harness import nats_client
from tests.support.stack import ApiUser, LocalStack, until, users

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
A100 = "p4d.24xlarge"


def operator_url(stack: LocalStack) -> str:
    secrets, port = stack.state.secrets(), stack.parts()["nats"].port
    assert port is not None
    broker = Broker(
        directory=stack.state.broker,
        port=port,
        services_password=secrets.broker_services,
        tools_password=secrets.broker_tools,
    )
    return broker.url(OPERATOR_USER)


async def test_jobs_whose_places_were_lost_get_them_again_as_an_operator_has_set_and_start(stack: LocalStack) -> None:
    async with users(stack, "alice", "operator") as (alice, operator):
        before = await alice.free()
        running = [await alice.submit(instance_type=A100, gpu_count=8) for _ in range(2)]
        for job_id in running:
            await alice.wait(job_id, "active", seconds=60)
        waiting = [await alice.submit(instance_type=A100, gpu_count=8, command="exit 0") for _ in range(2)]
        answer = await operator.client.post(f"/v1/jobs/{waiting[1]}/priority", json={"priority": 5})
        assert answer.status_code == 200, answer.text
        await until(lambda: has_places(alice, waiting, [2, 1]), "their places")
        # the event of the priority is forgotten, as after 8 days
        await stack.execute("jobs", "DELETE FROM outbox WHERE entity_id = $1", waiting[1])
        await stack.execute("capacity", "DELETE FROM places WHERE job_id = ANY($1::uuid[])", waiting)
        await until(lambda: has_places(alice, waiting, [2, 1], priorities=[0, 5]), "their places again")
        for job_id in running:
            await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        for job_id in waiting:
            await alice.wait(job_id, "completed", seconds=60)
        await until(lambda: has_free(alice, before), "all GPUs given back")


async def test_a_job_that_capacity_was_kept_from_hearing_of_starts(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        before = await alice.free()
        async with nats_client(operator_url(stack)) as client:
            jetstream = client.jetstream()
            config = (await jetstream.consumer_info(STREAM, "capacity")).config
            await jetstream.add_consumer(STREAM, config.evolve(filter_subjects=["gpudev.v1.none.*.*"]))
            job_id = await alice.submit(gpu_count=1, command="exit 0")
            await alice.wait(job_id, "completed", seconds=60)
            after = (await jetstream.consumer_info(STREAM, "capacity")).config
        assert after.filter_subjects == config.filter_subjects
        await until(lambda: healthy(alice), "health")
        await until(lambda: has_free(alice, before), "all GPUs given back")


async def has_places(
    user: ApiUser, jobs: list[str], positions: list[int], *, priorities: list[int] | None = None
) -> bool:
    """Capacity explains them so, and the jobs show it."""
    found = [(await user.client.get(f"/v1/jobs/{job_id}/explain")).json() for job_id in jobs]
    shown = [(await user.job(job_id))["queue_position"] for job_id in jobs]
    alike = shown == positions == [one["queue_position"] for one in found]
    return alike and priorities in (None, [one["priority"] for one in found])


async def has_free(user: ApiUser, count: int) -> bool:
    return await user.free() == count


async def healthy(user: ApiUser) -> bool:
    return (await user.client.get("/health")).status_code == 200
