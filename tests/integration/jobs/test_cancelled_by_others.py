"""Jobs that end by another's hand: an operator's, or since their user was disabled."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec

from shared.contracts.auth import UserDisabled, UserEnabled
from shared.contracts.jobs import JobCancelRequested
from tests.support.jobs import Client, JobsWorld, job_of, until_status

DISABLED = "Cancelled because its user was disabled"


async def start(world: JobsWorld, client: Client) -> UUID:
    job_id = await world.submit(client)
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    return job_id


async def disable(world: JobsWorld, user_id: int, sequence: int, at: datetime | None = None) -> None:
    event = UserDisabled(user_id=user_id, disabled_at=at or datetime.now(UTC))
    await world.publish(event, sequence=sequence)


async def test_jobs_of_a_disabled_user_end_and_no_others(world: JobsWorld, client: Client) -> None:
    async with world.service("bob") as bob:
        active, waiting, others = await start(world, client), await world.submit(client), await start(world, bob)
        await disable(world, 1, 3)
        for job_id in (active, waiting):
            job = await until_status(client, job_id, "cancelled")
            assert job["status_reason"] == DISABLED
            told = [event for event in await world.events(job_id) if event.type.endswith("cancel_requested.v1")]
            assert msgspec.json.decode(told[0].data, type=JobCancelRequested).reason == DISABLED
        assert not await world.objects(active)
        assert (await job_of(bob, others))["status"] == "active"


async def test_a_job_submitted_while_the_news_was_on_its_way_ends_too(world: JobsWorld, client: Client) -> None:
    first = await world.submit(client)
    await disable(world, 1, 3)
    await until_status(client, first, "cancelled")
    late = await world.submit(client)
    assert (await until_status(client, late, "cancelled"))["status_reason"] == DISABLED


async def test_jobs_go_on_for_the_grace_and_for_good_when_the_user_is_enabled_in_time(world: JobsWorld) -> None:
    async with world.service(disabled_user_grace_seconds=3600.0) as client:
        job_id = await world.submit(client)
        await disable(world, 1, 3)
        await world.publish(UserEnabled(user_id=1), sequence=4)
        # the older event comes again, late: it changes nothing
        await disable(world, 1, 3, at=datetime.now(UTC) - timedelta(days=1))
        # another user whose grace is over shows that all this has been applied
        async with world.service("bob", disabled_user_grace_seconds=3600.0) as bob:
            other = await world.submit(bob)
            await disable(world, 2, 3, at=datetime.now(UTC) - timedelta(hours=2))
            await until_status(bob, other, "cancelled")
        assert (await job_of(client, job_id))["status"] == "queued"


async def test_an_operator_cancels_anybodys_job_and_its_owner_reads_why(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client)
    async with world.service("olga") as operator:
        answer = await operator.post(f"/v1/jobs/{job_id}/cancel", params={"reason": "the node needs a new disk"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["job_id"] == str(job_id)
        job = await until_status(client, job_id, "cancelled")
        assert job["status_reason"] == "Cancelled by an operator: the node needs a new disk"
        again = await operator.post(f"/v1/jobs/{job_id}/cancel")
        assert again.json() == answer.json()
        unknown = [await operator.post(f"/v1/jobs/{one}/cancel") for one in (uuid4(), str(job_id)[:8])]
        assert [one.status_code for one in unknown] == [404, 404]
        own = await world.submit(operator)
        await operator.post(f"/v1/jobs/{own}/cancel")
        assert (await job_of(operator, own))["status_reason"] == "Cancelled by its user"


async def test_nobody_else_cancels_anothers_job(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    async with world.service("mallory") as mallory:
        answers = [await mallory.post(f"/v1/jobs/{one}/cancel") for one in (job_id, uuid4())]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert (await job_of(client, job_id))["status"] == "queued"


async def test_a_reason_is_short_and_plain(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    answers = [await client.post(f"/v1/jobs/{job_id}/cancel", params={"reason": text}) for text in ("x" * 201, "a\x00")]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert (await job_of(client, job_id))["status"] == "queued"
