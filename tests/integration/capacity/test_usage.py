"""GPU hours by day, through the door: what ran, whose it was, and what still runs."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import sqlalchemy as sa

from services.capacity.domain.usage import Period
from services.capacity.operations.purge import RUNS_KEPT, purge_queue
from services.capacity.operations.usage import read_usage
from shared.contracts.auth import Identity
from shared.contracts.jobs import JobEnded, JobEvent, JobRequeued, JobStarted, JobStatus
from shared.database import Statement
from shared.errors import OperatorsOnly
from tests.support.capacity import NOW, Capacity, about, facts, later
from tests.support.capacity_stage import Stage

TODAY = NOW.date()
PERIOD = Period(TODAY - timedelta(days=7), TODAY + timedelta(days=7))
ANN = Identity(user_id=1, username="alice", key_id="k", expires_at=later(hours=1))
BOB = Identity(user_id=2, username="bob", key_id="b", expires_at=later(hours=1))
OPERATOR = Identity(user_id=9, username="op", key_id="o", expires_at=later(hours=1), is_operator=True)


def started(job: JobEvent, at: datetime = NOW, epoch: int = 1) -> JobEvent:
    times: dict[str, Any] = {"started_at": at, "expires_at": at + timedelta(hours=9), "node": "n1", "epoch": epoch}
    return about(job, JobStarted, JobStatus.ACTIVE, **times)


def over(job: JobEvent, at: datetime) -> JobEvent:
    return about(job, JobEnded, JobStatus.COMPLETED, ended_at=at, epoch=1)


async def used(
    capacity: Capacity, asker: Identity, whose: str | None = None, now: datetime | None = None
) -> list[tuple[date, str, str, float]]:
    """Day, user, type and hours of each row."""
    rows = await read_usage(capacity.context, asker, whose=whose, period=PERIOD, now=now or later(hours=1))
    return [(row.day, row.username, row.gpu_type, row.gpu_time / timedelta(hours=1)) for row in rows]


async def run(capacity: Capacity, gpus: int, hours: float, **owner: Any) -> UUID:
    """A job that runs so long from NOW."""
    job = await capacity.submit(gpus, **owner)
    await capacity.schedule()
    await capacity.apply(started(job))
    await capacity.apply(over(job, later(hours=hours)))
    return job.job_id


async def test_hours_are_those_from_start_to_end_times_gpus_split_at_midnight_in_utc(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await run(capacity, 4, 7.5)  # from 18:30
    tomorrow = TODAY + timedelta(days=1)
    assert await used(capacity, ANN) == [(TODAY, "alice", "h100", 22.0), (tomorrow, "alice", "h100", 8.0)]


async def test_what_runs_counts_until_now_and_once_when_it_has_ended(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(2)
    await capacity.schedule()
    assert await used(capacity, ANN) == []
    await capacity.apply(started(job))
    assert await used(capacity, ANN, now=later(hours=2)) == [(TODAY, "alice", "h100", 4.0)]
    await capacity.apply(over(job, later(hours=3)))
    assert await used(capacity, ANN, now=later(hours=5)) == [(TODAY, "alice", "h100", 6.0)]


async def test_a_start_that_is_told_after_the_end_counts_all_the_same(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(1)
    await capacity.schedule()
    await capacity.apply(over(job, later(hours=1)), sequence=9)
    assert await used(capacity, ANN) == []
    await capacity.apply(started(job), sequence=5)
    assert await used(capacity, ANN) == [(TODAY, "alice", "h100", 1.0)]


async def test_a_start_that_was_taken_back_does_not_count(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    job = await capacity.submit(1)
    await capacity.schedule()
    await capacity.apply(started(job))
    await capacity.apply(about(job, JobRequeued, JobStatus.QUEUED, epoch=1, reason="pod lost"))
    assert await used(capacity, ANN) == []


async def test_one_sees_ones_own_and_operators_everybodys(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await run(capacity, 2, 1)
    await run(capacity, 4, 1, user_id=2, username="bob")
    mine, his = (TODAY, "alice", "h100", 2.0), (TODAY, "bob", "h100", 4.0)
    assert await used(capacity, ANN) == await used(capacity, ANN, "alice") == [mine]
    assert await used(capacity, OPERATOR) == []
    assert await used(capacity, OPERATOR, "*") == [mine, his]
    assert await used(capacity, OPERATOR, "bob") == await used(capacity, BOB) == [his]
    for whose in ("*", "bob", "nobody"):
        with pytest.raises(OperatorsOnly):
            await used(capacity, ANN, whose)


async def test_two_users_of_one_name_are_two_and_neither_sees_the_other(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await run(capacity, 2, 1)
    await run(capacity, 4, 1, user_id=7)
    rows = await read_usage(capacity.context, OPERATOR, whose="alice", period=PERIOD, now=NOW)
    assert [(row.user_id, row.gpu_time) for row in rows] == [(1, timedelta(hours=2)), (7, timedelta(hours=4))]
    assert await used(capacity, ANN) == [(TODAY, "alice", "h100", 2.0)]


async def test_a_run_of_a_release_that_kept_no_names_counts_for_its_user(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await run(capacity, 2, 1)
    await capacity.database.execute(Statement(sa.text("UPDATE runs SET username = NULL")))
    assert await used(capacity, ANN) == [(TODAY, "alice", "h100", 2.0)]
    assert await used(capacity, OPERATOR, "*") == [(TODAY, "user 1", "h100", 2.0)]


async def test_runs_are_kept_as_long_as_they_can_be_asked_about(capacity: Capacity) -> None:
    await capacity.nodes(facts("n1"))
    await run(capacity, 1, 1)
    ended_at = later(hours=1)
    await purge_queue(capacity.database, ended_at + RUNS_KEPT)
    assert await used(capacity, ANN) == [(TODAY, "alice", "h100", 1.0)]
    await purge_queue(capacity.database, ended_at + RUNS_KEPT + timedelta(seconds=1))
    assert await used(capacity, ANN) == []


async def test_the_route_answers_in_the_form_of_a_plot(stage: Stage) -> None:
    now = datetime.now(UTC)
    job = await stage.capacity.submit(4, "l4", at=now)
    lease = await stage.grant_of(job)
    begun, ended_at = now - timedelta(hours=3), now - timedelta(hours=1)
    await stage.capacity.apply(started(job, begun, lease.epoch))
    await stage.capacity.apply(over(job, ended_at))
    last = ended_at.date()
    body = (await stage.get(f"/v1/usage?from={last - timedelta(days=1)}&to={last}")).json()
    assert list(body) == ["from", "to", "rows"]
    assert (body["from"], body["to"]) == (str(last - timedelta(days=1)), str(last))
    assert all(list(row) == ["date", "username", "gpu_type", "gpu_hours", "user_id"] for row in body["rows"])
    assert sum(row["gpu_hours"] for row in body["rows"]) == pytest.approx(8.0, abs=0.001)
    assert {(row["username"], row["gpu_type"], row["user_id"]) for row in body["rows"]} == {("alice", "l4", 1)}
    default = (await stage.get("/v1/usage")).json()
    assert msgspec.convert(default["to"], date) - msgspec.convert(default["from"], date) == timedelta(days=29)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("from=yesterday", "from"),
        ("from=2026-02-30", "from"),
        ("to=0001-01-01", "to"),
        ("to=9999-12-31", "to"),
        ("from=2026-01-02&to=2026-01-01", "from"),
        ("from=2024-01-01&to=2026-01-01", "from"),
        ("user=" + "x" * 65, "user"),
    ],
)
async def test_a_period_that_is_none_is_refused_with_what_is_wrong(stage: Stage, query: str, where: str) -> None:
    answer = await stage.get(f"/v1/usage?{query}")
    assert answer.status_code == 400
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["query", where]]


async def test_the_route_asks_for_a_key_and_tells_nobody_of_others(stage: Stage) -> None:
    assert (await stage.client.get("/v1/usage")).status_code == 401
    for whose in ("*", "bob"):
        answer = await stage.get(f"/v1/usage?user={whose}")
        assert (answer.status_code, answer.json()["detail"]) == (403, "Only operators may see the usage of others")
