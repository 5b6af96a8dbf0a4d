"""Extensions, with Kubernetes away: they need none."""

import asyncio
import dataclasses
from collections import Counter
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from random import Random
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.job import Phase
from services.jobs.domain.next_step import Limits, Record, next_step
from services.jobs.domain.pod_facts import PodFacts, PodState
from services.jobs.domain.submission import read_submission
from services.jobs.operations.extend import extend_job
from services.jobs.operations.lock import JobNotActive
from services.jobs.operations.submit import submit_job
from services.jobs.operations.transition import apply_fact
from shared.contracts.auth import Identity
from shared.contracts.jobs import JobExtended
from shared.database import Database, Statement
from tests.support.harness import eventually
from tests.support.jobs import ACTIVE, Client, JobsWorld, body, job_of, later

ENDING = f"{ACTIVE}, outcome = 'completed'"
RACES = 200
HELD = {"Prefer": "wait=20"}
ROUND_TRIP = Statement(sa.text("SELECT 1"))
OWNER = Identity(user_id=1, username="alice", key_id="k", expires_at=later(hours=1))


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def extend(client: Client, job_id: object, hours: object, **headers: str) -> httpx.Response:
    answer: httpx.Response = await client.post(
        f"/v1/jobs/{job_id}/extend", json={"extension_hours": hours}, headers=headers
    )
    return answer


def time_of(job: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(job[name])


async def end_shown(client: Client, job_id: UUID) -> datetime:
    """The same in the job and in the list, unless it comes to be shown between the two."""
    before, [listed] = await job_of(client, job_id), (await client.get("/v1/jobs")).json()["jobs"]
    after = await job_of(client, job_id)
    assert listed["expires_at"] in {before["expires_at"], after["expires_at"]}
    return time_of(listed, "expires_at")


async def show_in(world: JobsWorld, job_id: UUID, interval: str) -> None:
    """Have its only extension that is not shown yet be shown after so long."""
    until = f"to_jsonb(clock_timestamp() + interval '{interval}')"
    await world.update(job_id, f"unshown_extensions = jsonb_set(unshown_extensions, '{{0,until}}', {until})")


async def test_an_extension_is_answered_as_in_the_contract_and_shows_on_the_job(
    world: JobsWorld, client: Client
) -> None:
    """The client reads the job after the answer, and waits from then on for its end to change."""
    job_id = await world.submit_active(client)
    before = await job_of(client, job_id)
    began = monotonic()
    answer = await extend(client, job_id, 2)
    event = (await world.events(job_id))[-1]
    assert answer.json() == {
        "job_id": str(job_id),
        "action": "extend",
        "status": "requested",
        "message": f"Extension request submitted for 2 hours (message ID: {event.messageid})",
    }
    baseline = await job_of(client, job_id)
    assert (baseline["expires_at"], baseline["duration_hours"]) == (before["expires_at"], before["duration_hours"])

    async def changed() -> bool:
        return await end_shown(client, job_id) != time_of(baseline, "expires_at")

    await eventually(changed, "the client sees that it was extended")
    assert monotonic() - began >= 3
    job = await job_of(client, job_id)
    assert time_of(job, "expires_at") == time_of(before, "expires_at") + timedelta(hours=2)
    assert (job["duration_hours"], job["status"]) == (3.0, "active")
    assert time_of(job, "updated_at") > time_of(baseline, "updated_at"), "who looks for changes finds it"
    assert [entry["status"] for entry in (await client.get(f"/v1/jobs/{job_id}/history")).json()["history"]] == [
        "queued"
    ]
    data = msgspec.json.decode(event.data, type=JobExtended)
    assert (data.expires_at.replace(microsecond=0), data.extension_seconds) == (time_of(job, "expires_at"), 7200)
    assert await world.announced(job_id) == ["submitted", "extended"]


async def test_an_extension_has_taken_effect_before_it_is_shown(world: JobsWorld, client: Client) -> None:
    """Also after the end that is still shown, and told to other services at once."""
    job_id = await world.submit_active(client)
    await world.update(job_id, "expires_at = now() + interval '300 milliseconds'")
    shown = await end_shown(client, job_id)
    assert (await extend(client, job_id, 2)).status_code == 200
    job = storage.jobs.to_job(await world.row(job_id))
    assert job.expires_at is not None
    assert job.expires_at.replace(microsecond=0) == shown + timedelta(hours=2)
    pod = PodFacts(uid="", state=PodState.READY, detail="running")
    assert not isinstance(next_step(job, pod, shown + timedelta(seconds=1), Limits()), Record), "it does not expire"
    assert msgspec.json.decode((await world.events(job_id))[-1].data, type=JobExtended).expires_at == job.expires_at
    assert await end_shown(client, job_id) == shown


async def test_an_extension_is_shown_whoever_dies_meanwhile_and_by_every_replica_alike(world: JobsWorld) -> None:
    async with world.service() as client:
        job_id = await world.submit_active(client)
        before = await end_shown(client, job_id)
        await extend(client, job_id, 1)
        await show_in(world, job_id, "1 hour")  # whatever it takes to start them
    async with world.service() as one, world.service() as other:
        assert {await end_shown(replica, job_id) for replica in (one, other)} == {before}
        await show_in(world, job_id, "1 second")

        async def both() -> bool:
            return {await end_shown(replica, job_id) for replica in (one, other)} == {before + timedelta(hours=1)}

        await eventually(both, "both show it")


async def test_a_second_extension_within_the_three_seconds_does_not_hide_the_first(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit_active(client)
    first = await end_shown(client, job_id)
    await extend(client, job_id, 1)
    await show_in(world, job_id, "1 second")  # as if it had come two seconds earlier
    await extend(client, job_id, 2)
    seen = [first]

    async def all_shown() -> bool:
        end = await end_shown(client, job_id)
        seen.extend([end] * (end != seen[-1]))
        return end == first + timedelta(hours=3)

    await eventually(all_shown, "both are shown")
    assert seen == [first, first + timedelta(hours=1), first + timedelta(hours=3)]


async def test_a_held_extension_shows_at_once_and_so_do_those_before_it(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    before = await end_shown(client, job_id)
    await extend(client, job_id, 1)
    assert (await extend(client, job_id, 1, Prefer="wait=20")).json()["status"] == "succeeded"
    assert await end_shown(client, job_id) == before + timedelta(hours=2)


async def test_a_repetition_that_waits_is_answered_when_the_extension_is_shown(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit_active(client)
    before = await end_shown(client, job_id)
    await extend(client, job_id, 1, **{"Idempotency-Key": "k"})
    again = await extend(client, job_id, 1, **{"Idempotency-Key": "k", "Prefer": "wait=20"})
    assert again.json()["status"] == "succeeded"
    assert await end_shown(client, job_id) == before + timedelta(hours=1)


async def test_a_job_that_ends_before_its_extension_is_shown_shows_what_was_accepted(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit_active(client)
    before = await end_shown(client, job_id)
    await extend(client, job_id, 1)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await world.find_pod_gone(job_id)
    job = await job_of(client, job_id)
    assert (job["status"], time_of(job, "expires_at")) == ("cancelled", before + timedelta(hours=1))


async def test_fractions_are_allowed_and_told_as_given(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    assert "for 0.25 hours" in (await extend(client, job_id, 0.25)).json()["message"]
    assert "for 1 hours" in (await extend(client, job_id, 1.0, **HELD)).json()["message"]
    assert (await job_of(client, job_id))["duration_hours"] == 2.25


@pytest.mark.parametrize("hours", [0, -1, True, "2", None, 1e300, 8761, [2]])
async def test_hours_that_are_none_are_refused(world: JobsWorld, client: Client, hours: object) -> None:
    job_id = await world.submit_active(client)
    answer = await extend(client, job_id, hours)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["body", "extension_hours"])
    raw = await client.post(
        f"/v1/jobs/{job_id}/extend", content=b'{"extension_hours": NaN}', headers={"content-type": "application/json"}
    )
    assert raw.status_code == 400
    assert await world.announced(job_id) == ["submitted"]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("status = 'queued'", "queued"),
        ("status = 'preparing'", "preparing"),
        (ENDING, "stopping"),
        ("status = 'failed', outcome = 'failed', released_at = now()", "failed"),
    ],
)
async def test_what_does_not_run_cannot_be_extended_and_the_answer_names_the_state(
    world: JobsWorld, client: Client, state: str, word: str
) -> None:
    job_id = await world.submit(client)
    await world.update(job_id, state)
    answer = await extend(client, job_id, 2)
    assert (answer.status_code, answer.json()["detail"]) == (409, f"The job is not active: it is {word}")
    assert await world.announced(job_id) == ["submitted"]


async def test_a_job_is_extended_to_its_limit_and_not_past_it(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    past = await extend(client, job_id, 167.5)
    assert past.status_code == 409
    assert "168 hours" in past.json()["detail"]
    assert "by 167 hours more" in past.json()["detail"]
    assert (await extend(client, job_id, 167)).status_code == 200
    assert "by 0 hours more" in (await extend(client, job_id, 0.001)).json()["detail"]
    assert storage.jobs.to_job(await world.row(job_id)).duration_seconds == 168 * 3600


async def test_a_repeated_key_extends_once(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    first, again = [await extend(client, job_id, 1, **{"Idempotency-Key": "k"}) for _ in range(2)]
    other = await extend(client, job_id, 2, **{"Idempotency-Key": "k"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert other.status_code == 422
    assert await world.announced(job_id) == ["submitted", "extended"]


async def test_two_extensions_at_once_both_count(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    answers = await asyncio.gather(*(extend(client, job_id, 1, **HELD) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await job_of(client, job_id))["duration_hours"] == 5


async def test_a_beginning_of_the_id_is_enough_and_anothers_job_is_not_found(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit_active(client)
    assert (await extend(client, str(job_id)[:8], 1)).json()["job_id"] == str(job_id)
    mallory = world.people.bearer("mallory")
    for path in ("extend", "history"):
        method = "POST" if path == "extend" else "GET"
        body_of = {"json": {"extension_hours": 1}} if path == "extend" else {}
        theirs = await client.request(method, f"/v1/jobs/{job_id}/{path}", headers=mallory, **body_of)
        missing = await client.request(method, f"/v1/jobs/{uuid4()}/{path}", headers=mallory, **body_of)
        assert (theirs.status_code, theirs.content) == (404, missing.content)


async def test_an_extension_and_the_expiry_race_and_exactly_one_wins(world: JobsWorld) -> None:
    """Incident 20: the extension comes one second before the end, the expiry was decided at the end."""
    async with AsyncExitStack() as stack:
        replicas = [await replica(world, stack) for _ in range(2)]
        wins = Counter([await race(world, replicas, seed) for seed in range(RACES)])
    assert sum(wins.values()) == RACES
    assert set(wins) == {"extension", "expiry"}, "the races are no races"


async def replica(world: JobsWorld, stack: AsyncExitStack) -> Context:
    database = Database(world.settings.database_url, pool_size=1)
    stack.push_async_callback(database.close)
    return dataclasses.replace(world.context(), database=database)


async def race(world: JobsWorld, replicas: list[Context], seed: int) -> str:
    random = Random(seed)
    job_id = uuid4()
    await submit_job(
        owner=OWNER,
        submission=read_submission(body()),
        job_id=job_id,
        key=None,
        now=later(),
        context=replicas[seed % 2],
    )
    await world.update(job_id, f"{ACTIVE}, warned_minutes = 5, warning = 'Expires in 5 minutes'")
    end = (await world.row(job_id))["expires_at"]

    async def lag(context: Context) -> None:
        for _ in range(random.randrange(4)):  # round trips: what separates two replicas that race
            await context.database.fetch_value(ROUND_TRIP)

    async def ask() -> bool:
        await lag(replicas[0])
        try:
            await extend_job(
                user_id=1,
                job_id=str(job_id),
                seconds=3600,
                shown_at_once=seed % 3 == 0,
                key=None,
                now=end - timedelta(seconds=1),
                context=replicas[0],
            )
        except JobNotActive:
            return False
        return True

    async def expire() -> bool:
        await lag(replicas[1])
        job = storage.jobs.to_job(await replicas[1].database.fetch_one(storage.jobs.FIND, job_id=job_id))
        await lag(replicas[1])
        step = next_step(job, PodFacts(uid="", state=PodState.READY, detail="running"), end, Limits())
        if not isinstance(step, Record):
            return False
        return await apply_fact(job=job, fact=step.fact, now=end, context=replicas[1]) is not None

    extended, expired = await asyncio.gather(ask(), expire())
    assert extended != expired
    job = storage.jobs.to_job(await world.row(job_id))
    names = await world.announced(job_id)
    if extended:
        assert (job.phase, job.expires_at) == (Phase.ACTIVE, end + timedelta(hours=1))
        assert (job.warned_minutes, job.warning, names) == (None, None, ["submitted", "extended"])
        return "extension"
    assert (job.phase, job.outcome, job.expires_at, names) == (Phase.ENDING, "expired", end, ["submitted"])
    return "expiry"
