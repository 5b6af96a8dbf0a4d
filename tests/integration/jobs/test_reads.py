"""Reading jobs: answers that are kept say what the tables say, and who has one already is told so."""

import asyncio
import dataclasses
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from services.jobs import storage
from services.jobs.api.shown_jobs import ShownJobs
from services.jobs.domain.job_list import JobQuery
from services.jobs.operations.fold_counts import fold_counts
from services.jobs.operations.read import JobNotFound, get_job, known_range, shown_jupyter_token
from services.jobs.schemas.answers import job_answer
from shared.contracts.jobs import JobStatus
from shared.database import Statement
from tests.support.harness import eventually
from tests.support.jobs import ACTIVE, Client, JobsWorld, body, job_of, later

FRAMEWORK = {"Prefer": "respond-async"}
"""A preference that means nothing, and is none of the usual: the route itself answers."""
STATES = {
    "queued": "status = 'queued'",
    "queued with a place": "queue_position = 3, status_reason = 'Waiting for GPUs'",
    "pending": "status = 'pending', status_reason = NULL",
    "preparing": "status = 'preparing', epoch = 1, node = 'n1', granted_at = now(), detail = 'pulling'",
    "starting": "status = 'preparing', launched_at = now(), expires_at = now() + interval '1 hour'",
    "active": f"{ACTIVE}, node = 'n1', node_ip = '10.0.0.7', node_port = 30022, pod_name = 'p'",
    "warned": f"{ACTIVE}, warning = 'Ends in 5 minutes', warned_minutes = 5",
    "ending": f"{ACTIVE}, outcome = 'failed', exit_code = 3, failure_reason = 'exit code 3'",
    "held": "status = 'failed', ended_at = now(), outcome = 'failed'",
    **{
        str(status): f"status = '{status}', ended_at = now(), released_at = now(), outcome = '{status}'"
        for status in ("completed", "failed", "cancelled", "expired")
    },
}


@pytest.fixture
async def world(jobs_without_cluster: JobsWorld) -> JobsWorld:
    return jobs_without_cluster


async def tag_of(client: Client, path: str) -> str:
    answer: httpx.Response = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


async def composed(world: JobsWorld, job_id: UUID, now: datetime) -> bytes:
    """The answer as it is made of the row."""
    context = world.context()
    job = await get_job(user_id=1, job_id=str(job_id), context=context)
    return msgspec.json.encode(job_answer(job, now, context.settings, shown_jupyter_token(job, context)))


async def test_answers_are_byte_for_byte_what_is_made_of_the_rows_in_every_state(
    world: JobsWorld, client: Client
) -> None:
    made = {name: await world.submit(client, name="run-1", env_vars={"A": '"é\\'}) for name in STATES}
    for name, job_id in made.items():
        await world.update(job_id, STATES[name])
    singles = {}
    for name, job_id in made.items():
        singles[name] = await composed(world, job_id, later())
        for turn in ("first read", "kept"):
            assert (await client.get(f"/v1/jobs/{job_id}")).content == singles[name], (name, turn)
        assert (await client.get(f"/v1/jobs/{job_id}", headers=FRAMEWORK)).content == singles[name], name

    page = await client.get("/v1/jobs?limit=500")

    newest_first = b",".join(reversed(singles.values()))
    assert page.content == b'{"jobs":[%b],"total":%d,"limit":500,"offset":0}' % (newest_first, len(STATES))
    assert (await client.get("/v1/jobs?limit=500", headers=FRAMEWORK)).content == page.content


@pytest.mark.parametrize("path", ["/v1/jobs/{missing}", "/v1/jobs/{short}", "/v1/jobs?limit=0", "/v1/jobs?status=x"])
async def test_errors_are_the_same_before_the_framework_and_in_it(client: Client, path: str) -> None:
    await client.get("/v1/jobs")  # the key is remembered
    path = path.format(missing=uuid4(), short="abc")
    fast, slow = await client.get(path), await client.get(path, headers=FRAMEWORK)
    ours = {"x-request-id", "date"}
    assert (fast.status_code, fast.json()) == (slow.status_code, slow.json())
    assert {k: v for k, v in fast.headers.items() if k not in ours} == {
        k: v for k, v in slow.headers.items() if k not in ours
    }


async def test_another_users_job_is_as_unknown_as_none(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await job_of(client, job_id)
    headers = world.people.bearer("bob")
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{str(job_id)[:8]}"):
        for _ in range(2):
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (404, "Job not found")
    assert (await client.get("/v1/jobs", headers=headers)).json()["total"] == 0


async def test_what_another_replica_changes_is_in_the_next_answer(world: JobsWorld, client: Client) -> None:
    async with world.service() as other:
        job_id = await world.submit(client)
        for replica in (client, other):
            assert (await job_of(replica, job_id))["name"] is None
        await world.update(job_id, "name = 'changed', updated_at = updated_at")
        for replica in (client, other):
            assert (await job_of(replica, job_id))["name"] == "changed"
            assert (await replica.get("/v1/jobs")).json()["jobs"][0]["name"] == "changed"


async def test_a_job_that_went_back_to_an_earlier_revision_is_read_anew(world: JobsWorld, client: Client) -> None:
    """As after a restore of the database: revisions are counted from an earlier hour again."""
    job_id = await world.submit(client)
    assert (await job_of(client, job_id))["name"] is None
    await world.update(job_id, "name = 'restored', updated_at = now() + interval '1 second'")
    await world.database.execute(Statement(sa.text(f"UPDATE jobs SET revision = revision - 1 WHERE id = '{job_id}'")))
    assert (await job_of(client, job_id))["name"] == "restored"


async def test_totals_follow_every_change_and_its_undoing(world: JobsWorld, client: Client) -> None:
    async def totals() -> list[int]:
        paths = ("", "?status=queued", "?status=active,completed", "?status=failed")
        return [(await client.get(f"/v1/jobs{path}")).json()["total"] for path in paths]

    jobs = [await world.submit(client) for _ in range(4)]
    assert await totals() == [4, 4, 0, 0]
    await world.update(jobs[0], ACTIVE)
    await world.update(jobs[1], "status = 'failed'")
    await world.update(jobs[2], "detail = 'unchanged status'")
    assert await totals() == [4, 2, 1, 1]
    with suppress(ZeroDivisionError):
        async with world.database.transaction() as tx:
            await tx.execute(Statement(sa.text("DELETE FROM jobs")))
            raise ZeroDivisionError
    assert await totals() == [4, 2, 1, 1]
    await world.database.execute(Statement(sa.text("DELETE FROM jobs WHERE status = 'failed'")))
    assert await totals() == [3, 2, 1, 0]
    # all at once: the replica's own loop could fold a part of them, and then the rest would be too few to be folded
    async with world.database.transaction() as tx:
        for status in ("preparing", "active") * 40:
            await tx.execute(Statement(sa.text(f"UPDATE jobs SET status = '{status}' WHERE id = '{jobs[0]}'")))
    await fold_counts(world.context())

    async def folded() -> bool:
        return bool(await world.database.fetch_value(Statement(sa.text("SELECT count(*) FROM job_counts"))) == 2)

    await eventually(folded, "they are folded, unless that loop was just then at it")
    assert await totals() == [3, 2, 1, 0]


async def test_counts_hold_while_jobs_change_and_two_replicas_fold(world: JobsWorld, client: Client) -> None:
    jobs = [await world.submit(client) for _ in range(6)]
    done = False

    async def fold() -> None:
        while not done:
            await fold_counts(world.context())

    async def change(job_id: UUID) -> None:
        for status in ("active", "completed", "failed", "expired") * 8:
            await world.update(job_id, f"status = '{status}'")
            page = await client.get("/v1/jobs")
            assert page.json()["total"] == len(page.json()["jobs"]) == len(jobs)

    folding = [asyncio.create_task(fold()) for _ in range(2)]
    await asyncio.gather(*(change(job_id) for job_id in jobs))
    done = True
    await asyncio.gather(*folding)
    assert (await client.get("/v1/jobs?status=expired")).json()["total"] == len(jobs)


async def test_a_page_is_of_one_instant_while_jobs_change(world: JobsWorld, client: Client) -> None:
    """The status that is filtered by is the status that is shown."""
    jobs = [await world.submit(client) for _ in range(8)]
    done = False

    async def change() -> None:
        turn = 0
        while not done:
            turn += 1
            await world.update(jobs[turn % len(jobs)], f"status = '{('queued', 'active')[turn // len(jobs) % 2]}'")

    changing = asyncio.create_task(change())
    for _ in range(150):
        page = (await client.get("/v1/jobs?status=queued")).json()
        assert [job["status"] for job in page["jobs"]] == ["queued"] * page["total"]
    done = True
    await changing


async def test_pages_far_from_the_first_are_the_rest_of_the_same_list(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await world.database.execute(
        Statement(
            sa.text(
                "INSERT INTO jobs SELECT copied.* FROM jobs AS one, generate_series(1, 1099) AS number, "
                "jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid(), "
                "'created_at', one.created_at - number / 2 * interval '1 minute')) AS copied "
                f"WHERE one.id = '{job_id}'"
            )
        )
    )
    pages = [(await client.get(f"/v1/jobs?limit=100&offset={at}")).json() for at in range(0, 1200, 100)]
    ids = [job["job_id"] for page in pages for job in page["jobs"]]
    in_order = Statement(sa.text("SELECT id FROM jobs ORDER BY created_at DESC, id DESC"))
    assert ids == [str(row["id"]) for row in await world.database.fetch_all(in_order)]
    assert {page["total"] for page in pages} == {1100}


async def test_minutes_until_the_start_go_on_while_nothing_changes(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await world.update(job_id, "estimated_start_at = now() + interval '150 seconds'")
    now = later()
    shown = ShownJobs(dataclasses.replace(world.context(), clock=lambda: now))

    async def minutes() -> int:
        answer = await shown.one(user_id=1, ids=known_range(str(job_id)))
        page = await shown.page(user_id=1, query=JobQuery())
        found: int = msgspec.json.decode(answer.body)["estimated_wait_minutes"]
        assert msgspec.json.decode(page.body)["jobs"][0]["estimated_wait_minutes"] == found
        return found

    told = []
    for _ in range(5):
        told.append(await minutes())
        now += timedelta(seconds=45)
    assert told == [3, 2, 1, 1, 0]


async def test_jobs_that_are_read_at_once_are_each_their_owners_and_as_they_are_now(
    world: JobsWorld, client: Client
) -> None:
    jobs = [await world.submit(client, name=f"run-{number}") for number in range(6)]
    shown = ShownJobs(world.context())

    async def name(user_id: int, job_id: UUID) -> str | None:
        try:
            answer = await shown.one(user_id=user_id, ids=known_range(str(job_id)))
        except JobNotFound:
            return None
        found: str = msgspec.json.decode(answer.body)["name"]
        return found

    for job_id in jobs:
        await name(1, job_id)
    for round_number in range(3):
        names = [f"run-{number}-{round_number}" for number in range(6)]
        for job_id, now in zip(jobs, names, strict=True):
            await world.update(job_id, f"name = '{now}'")
        asked = [(user_id, number) for user_id in (1, 2, 1) for number in range(6)]
        answers = await asyncio.gather(*(name(user_id, jobs[number]) for user_id, number in asked))
        assert answers == [names[number] if user_id == 1 else None for user_id, number in asked]


async def test_what_is_kept_stays_within_its_bounds(world: JobsWorld, client: Client) -> None:
    jobs = [await world.submit(client, command="x" * 5000) for _ in range(8)]
    shown = ShownJobs(world.context(), kept_bytes=20_000)
    for _ in range(2):
        for job_id in jobs:
            answer = await shown.one(user_id=1, ids=known_range(str(job_id)))
            assert msgspec.json.decode(answer.body)["job_id"] == str(job_id)
    assert sum(entry.size for entry in shown._kept.values()) <= 20_000
    assert shown._kept


@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs?limit=10", "/v1/jobs?status=queued,active"])
@pytest.mark.parametrize("headers", [{}, FRAMEWORK])
async def test_who_has_an_answer_is_told_that_it_still_holds(
    world: JobsWorld, client: Client, path: str, headers: dict[str, str]
) -> None:
    job_id = await world.submit(client)
    path = path.format(job_id)
    tag = await tag_of(client, path)

    for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        same = await client.get(path, headers={"If-None-Match": given, **headers})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert same.headers["cache-control"] == "no-store"
    assert (await client.get(path, headers={"If-None-Match": '"other"', **headers})).status_code == 200

    await world.update(job_id, "detail = 'changed'")
    changed = await client.get(path, headers={"If-None-Match": tag, **headers})
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
    assert b"changed" in changed.content


async def test_a_list_is_another_when_its_total_is(world: JobsWorld, client: Client) -> None:
    for _ in range(2):
        await world.submit(client)
    path = "/v1/jobs?limit=1"
    tag = await tag_of(client, path)
    await world.database.execute(
        Statement(sa.text("DELETE FROM jobs WHERE id IN (SELECT id FROM jobs ORDER BY created_at LIMIT 1)"))
    )
    assert (await client.get(path, headers={"If-None-Match": tag})).json()["total"] == 1


async def test_a_read_is_held_until_the_job_changes(world: JobsWorld, client: Client) -> None:
    async with world.service() as other:
        job_id = await world.submit(client)
        path = f"/v1/jobs/{str(job_id)[:8]}"
        tag = await tag_of(client, path)
        held = asyncio.create_task(client.get(path, headers={"If-None-Match": tag, "Prefer": "wait=20"}))
        await asyncio.sleep(0)
        assert (await other.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
        while (answer := await held).json()["status"] != "cancelled":
            assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
            assert answer.headers["etag"] != tag
            tag = answer.headers["etag"]
            held = asyncio.create_task(client.get(path, headers={"If-None-Match": tag, "Prefer": "wait=20"}))
    assert answer.headers["etag"] != tag


async def test_a_held_read_of_a_job_that_stays_as_it_is_ends_without_a_body(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    tag = await tag_of(client, f"/v1/jobs/{job_id}")
    answer = await client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": tag, "Prefer": "wait=1"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert (answer.headers["etag"], answer.headers["preference-applied"]) == (tag, "wait=1")


@pytest.mark.parametrize("known", [{}, {"If-None-Match": '"what it was before"'}])
async def test_a_read_by_who_does_not_have_the_job_is_never_held(
    world: JobsWorld, client: Client, known: dict[str, str]
) -> None:
    job_id = await world.submit(client)
    async with asyncio.timeout(25):
        answer = await client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30", **known})
    assert (answer.status_code, "preference-applied" in answer.headers) == (200, False)


async def test_users_hold_as_many_reads_as_other_answers(world: JobsWorld) -> None:
    async with world.service(max_held_answers=1) as client:
        job_id = await world.submit(client)
        path = f"/v1/jobs/{job_id}"
        headers = {"If-None-Match": await tag_of(client, path), "Prefer": "wait=30"}
        both = [asyncio.create_task(client.get(path, headers=headers)) for _ in range(2)]
        (refused,), (held,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        answer = refused.result()
        assert (answer.status_code, "preference-applied" in answer.headers) == (304, False)
        await client.post(f"/v1/jobs/{job_id}/cancel")
        assert (await held).json()["status"] == "cancelled"


def test_the_statuses_of_the_index_are_those_that_are_open() -> None:
    (index,) = [one for one in storage.tables.jobs.indexes if one.name == "jobs_open_of_user"]
    condition = str(index.dialect_options["postgresql"]["where"])
    assert {f"'{status}'" for status in JobStatus if f"'{status}'" in condition} == {
        "'active'",
        "'pending'",
        "'preparing'",
        "'queued'",
    }


async def test_a_batch_is_counted_whole(client: Client) -> None:
    answer = await client.post("/v1/jobs/batch", json={"jobs": [body() for _ in range(5)]})
    assert answer.status_code == 200, answer.text
    assert (await client.get("/v1/jobs?status=queued")).json()["total"] == 5
