"""Jobs that wait and that capacity has no place for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts.capacity import UNPLACED_SUBJECT, JobQueued, UnplacedReply, UnplacedRequest
from shared.contracts.jobs import JobPrioritised, JobRequeued, JobSubmitted
from shared.database.locks import lock_key
from shared.messaging import Relay
from tests.support.harness import connected, eventually, flushed
from tests.support.jobs import JobsWorld, later

QUICK = {"line_seconds": 0.2}


@asynccontextmanager
async def capacity_lacking(world: JobsWorld, lost: set[UUID]) -> AsyncIterator[list[UUID]]:
    """Capacity has every place but these, which it has again once it has said so for certain; what it was asked for."""
    asked: list[UUID] = []

    async def answer(message: Any) -> None:
        request = msgspec.json.decode(message.data, type=UnplacedRequest)
        asked.extend(request.job_ids)
        missing = [job_id for job_id in request.job_ids if job_id in lost]
        if request.published_up_to:
            lost.difference_update(missing)
        await message.respond(msgspec.json.encode(UnplacedReply(missing)))

    subscription = await world.broker.client.subscribe(UNPLACED_SUBJECT, cb=answer)
    await flushed(world.broker.client)
    yield asked
    await subscription.unsubscribe()


async def told(world: JobsWorld, job_id: UUID, event: Any) -> list[Any]:
    return [
        (one.sequence, msgspec.json.decode(one.data, type=event))
        for one in await world.events(job_id)
        if one.type == event.type_name()
    ]


async def test_a_job_without_a_place_is_told_again_as_it_was(jobs_without_cluster: JobsWorld) -> None:
    world = jobs_without_cluster
    async with world.service(**QUICK) as client:
        job_id, other = await world.submit(client), await world.submit(client)
        await world.capacity_says(JobQueued(job_id=job_id, gpu_type="h100", position=5))
        await eventually(lambda: _position(world, job_id, 5), "its place")
        async with capacity_lacking(world, {job_id}):
            (first, *_) = await told(world, job_id, JobSubmitted)
            await eventually(lambda: _count(world, job_id, 2), "told again")
            assert await told(world, job_id, JobSubmitted) == [first, first]
            assert len(await told(world, other, JobSubmitted)) == 1
        # capacity counts the changes of its new place from one
        world.sequences.clear()
        await world.capacity_says(JobQueued(job_id=job_id, gpu_type="h100", position=2))
        await eventually(lambda: _position(world, job_id, 2), "its new place")


async def test_it_is_told_with_its_priority_and_past_its_earlier_leases(jobs_without_cluster: JobsWorld) -> None:
    """Also when the event of its priority is so old that it is forgotten."""
    world = jobs_without_cluster
    async with world.service(**QUICK) as client, world.service("olga", **QUICK) as operator:
        job_id, plain = await world.submit(client), await world.submit(client)
        for priority in (3, 7):
            answer = await operator.post(f"/v1/jobs/{job_id}/priority", json={"priority": priority})
            assert answer.status_code == 200, answer.text
        await world.update(job_id, "epoch = 2")
        await eventually(lambda: _forgotten(world, job_id, plain), "events are purged")
        async with capacity_lacking(world, {job_id, plain}):
            await eventually(lambda: _count(world, job_id, 1), "told again")
            await eventually(lambda: _count(world, plain, 1), "told again")
        assert [event.epoch for _, event in await told(world, job_id, JobRequeued)] == [2]
        assert [event.priority for _, event in await told(world, job_id, JobPrioritised)] == [7]
        assert await told(world, plain, JobPrioritised) == []


async def test_a_job_whose_event_has_not_gone_out_yet_is_not_told_again(jobs_without_cluster: JobsWorld) -> None:
    """Its event is late and not lost: told again, it would come twice under two ids."""
    world = jobs_without_cluster
    async with connected(world.settings.database_url) as stranger, world.service(**QUICK) as client:
        await stranger.fetchval(f"SELECT pg_advisory_lock({lock_key('outb')}, hashtext(current_schema()))")
        late = await world.submit(client)
        async with capacity_lacking(world, {late}) as asked:
            await eventually(lambda: asked.count(late) > 2, "asked for")
            assert len(await told(world, late, JobSubmitted)) == 1
            stranger.terminate()
            await eventually(lambda: _count(world, late, 2), "told again, since it went out and had no effect")


async def test_only_jobs_that_wait_are_asked_for(jobs_without_cluster: JobsWorld) -> None:
    world = jobs_without_cluster
    async with world.service(**QUICK) as client:
        waits, cancelled = await world.submit(client), await world.submit(client)
        assert (await client.post(f"/v1/jobs/{cancelled}/cancel")).status_code == 200
        async with capacity_lacking(world, {cancelled}) as asked:
            await eventually(lambda: asked.count(waits) > 2, "asked")
        assert set(asked) == {waits}
        assert len(await told(world, cancelled, JobSubmitted)) == 1


async def _position(world: JobsWorld, job_id: UUID, position: int) -> bool:
    return bool((await world.row(job_id))["queue_position"] == position)


async def _count(world: JobsWorld, job_id: UUID, count: int) -> bool:
    return len(await told(world, job_id, JobSubmitted)) >= count


async def _forgotten(world: JobsWorld, *jobs: UUID) -> bool:
    """As after the days for which events are kept; what is not published yet stays."""
    await Relay(database=world.database, broker=world.broker, service="jobs").purge(later(days=9))
    return not any([await world.events(job_id) for job_id in jobs])
