"""Both clients against a server that errs, cuts and pages as it is told."""

import socket
import time
from typing import Any

import pytest
from aiohttp import web

from gpudev import Client, GpuDevError, errors
from tests.client.scripted import call, cuts, says, scripted, streams
from tests.support.promises import promised

pytestmark = pytest.mark.parametrize("kind", ["blocking", "awaited"])
SUBMITTED = {"job_id": "5f0c1b9e-93a4-4cfb-a2a5-6f2b2b6ad0f1", "status": "queued", "message": "ok"}
ACTIVE = {
    "job_id": SUBMITTED["job_id"],
    "reservation_id": SUBMITTED["job_id"],
    "user_id": "ann",
    "status": "active",
    "gpu_type": "h100",
    "gpu_count": 8,
    "instance_type": "p5.48xlarge",
    "duration_hours": 1,
    "created_at": "2026-01-20T18:30:00Z",
}
ENDED = {**ACTIVE, "status": "completed"}
PRESSED = {"image": "debian:12", "instance_type": "p5.48xlarge"}


@pytest.mark.parametrize(
    "first",
    [
        cuts(),
        cuts(b'{"job_id"'),
        says({"detail": "down"}, 503),
        says({"detail": "many"}, 429, Retry_After="1"),
        says("bad", 502),
        says("late", 504),
        says({"detail": "A request with this Idempotency-Key is still in flight"}, 409, Retry_After="1"),
    ],
    ids=["cut", "cut in the answer", "503", "429", "502", "504", "in flight"],
)
async def test_a_post_is_sent_again_the_same(kind: str, first: Any) -> None:
    async with scripted(first, says(SUBMITTED)) as server:
        answer = await call(kind, server.url, "submit_job", **PRESSED)
    assert answer.job_id == SUBMITTED["job_id"]
    one, two = server.seen
    assert one == two
    assert one["headers"]["idempotency-key"]
    assert one["headers"]["authorization"] == "Bearer the-key"


async def test_two_submissions_have_two_keys(kind: str) -> None:
    async with scripted(says(SUBMITTED)) as server:
        await call(kind, server.url, "submit_job", **PRESSED)
        await call(kind, server.url, "submit_job", **PRESSED)
    assert len({one["headers"]["idempotency-key"] for one in server.seen}) == 2


async def test_retry_after_is_kept_to(kind: str) -> None:
    began = time.monotonic()
    async with scripted(says({"detail": "many"}, 429, Retry_After="2"), says(SUBMITTED)) as server:
        await call(kind, server.url, "submit_job", **PRESSED)
    assert time.monotonic() - began >= 2


async def test_who_would_come_back_too_late_is_told_at_once(kind: str) -> None:
    async with scripted(says({"detail": "many"}, 429, Retry_After="60")) as server:
        with promised(20), pytest.raises(errors.RateLimited) as told:
            await call(kind, server.url, "submit_job", **PRESSED)
    assert told.value.retry_after == 60
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (408, errors.InvalidRequest),
        (409, errors.Conflict),
        (410, errors.Gone),
        (413, errors.InvalidRequest),
        (415, errors.InvalidRequest),
        (422, errors.IdempotencyMismatch),
        (500, errors.ServerError),
    ],
)
async def test_other_errors_are_raised_by_kind_and_never_sent_again(
    kind: str, status: int, error: type[GpuDevError]
) -> None:
    async with scripted(says({"detail": "so it is"}, status, X_Request_Id="r-1")) as server:
        with pytest.raises(error) as told:
            await call(kind, server.url, "submit_job", **PRESSED)
    assert type(told.value) is error
    assert (told.value.detail, told.value.status, told.value.request_id) == ("so it is", status, "r-1")
    assert len(server.seen) == 1


async def test_all_problems_of_an_input_are_told(kind: str) -> None:
    problems = [
        {"type": "missing", "loc": ["body", "image"], "msg": "Field required"},
        {"type": "int_type", "loc": ["body", "env_vars", 3], "msg": "Must be an integer", "input": "x"},
    ]
    async with scripted(says({"detail": problems}, 400)) as server:
        with pytest.raises(errors.InvalidRequest) as told:
            await call(kind, server.url, "submit_job", **PRESSED)
    assert [problem.loc for problem in told.value.problems] == [("body", "image"), ("body", "env_vars", 3)]
    assert told.value.detail == "image: Field required; env_vars.3: Must be an integer"


async def test_an_answer_of_somebody_else_is_an_error_of_its_own(kind: str) -> None:
    async with scripted(streams(b"<html>Sign in</html>")) as server:
        with pytest.raises(errors.UnexpectedAnswer):
            await call(kind, server.url, "get_job", "12345678")


async def test_an_unhealthy_service_is_an_answer(kind: str) -> None:
    told = {"status": "unhealthy", "database": "healthy", "queue": "unhealthy", "timestamp": "2026-01-20T18:30:00Z"}
    async with scripted(says(told, 503)) as server:
        assert (await call(kind, server.url, "health")).status == "unhealthy"
        assert "authorization" not in server.seen[0]["headers"]


async def test_nobody_there_is_told_within_the_time_for_retries(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with promised(15), pytest.raises(errors.ConnectionFailed):
            await call(kind, url, "get_job", "12345678", retry_seconds=5)
    assert time.monotonic() - began > 1


async def test_pages_are_joined_and_what_moved_on_is_not_told_twice(kind: str) -> None:
    def page(*names: str) -> Any:
        return says({"jobs": [{**ACTIVE, "job_id": name} for name in names], "total": 5})

    async with scripted(page("e", "d", "c"), page("c", "b"), page("a")) as server:
        jobs = await call(kind, server.url, "iter_jobs", status="active")
    assert [job.job_id for job in jobs] == ["e", "d", "c", "b"]
    assert [one["path"] for one in server.seen] == [
        "/v1/jobs?status=active&limit=100&offset=0",
        "/v1/jobs?status=active&limit=100&offset=3",
    ]


async def test_waiting_holds_the_answer_until_the_job_is_another(kind: str) -> None:
    queued = says({**ACTIVE, "status": "queued"}, ETag='"1"')
    async with scripted(says(SUBMITTED), queued, is_the_same, says(ACTIVE, ETag='"2"')) as server:
        jobs = await call(kind, server.url, "launch_job", **PRESSED)
    assert [job.status for job in jobs] == ["queued", "queued", "active"]
    assert [one["method"] for one in server.seen] == ["POST", "GET", "GET", "GET"]
    headers = [one["headers"] for one in server.seen]
    assert [one.get("prefer") for one in headers] == [None, "wait=10", "wait=10", "wait=10"]
    assert [one.get("if-none-match") for one in headers] == [None, None, '"1"', '"1"']


async def is_the_same(_: web.Request) -> web.Response:
    return web.Response(status=304, headers={"ETag": '"1"'})


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_what_would_be_another_path_is_no_name(kind: str, name: str) -> None:
    async with scripted(says({})) as server:
        with pytest.raises(ValueError, match="is no name"):
            await call(kind, server.url, "get_disk", name)
    assert server.seen == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((b"a\nb\n",), (b"a\nb\n", b"c\n"), b"a\nb\nc\n"),
        ((b"a\na\n",), (b"a\na\na\na\n",), b"a\na\na\na\n"),
        ((b"a\nb: 10%",), (b"a\nb: 10% 20%\n",), b"a\nb: 10% 20%\n"),
        ((b"\na\n",), (b"\n", b"a\n\nb\n"), b"\na\n\nb\n"),
        ((b"\n", b"a\n"), (b"\n", b"a\n", b"b\n"), b"a\nb\n"),
        ((b"a\nb\nc\n",), (b"c\n", b"d\n"), b"a\nb\nc\nd\n"),
        ((b"a\n",), (b"x\n", b"y\n"), b"a\nx\ny\n"),
        ((b"half",), (b"other\n",), b"half\nother\n"),
    ],
    ids=["more", "alike", "in a line", "empty lines", "signs of life", "beginning lost", "all lost", "line lost"],
)
async def test_a_followed_log_goes_on_after_a_cut(kind: str, before: Any, after: Any, told: bytes) -> None:
    async with scripted(cuts(*before), streams(*after), says(ENDED)) as server:
        pieces = await call(kind, server.url, "follow_job_logs", "12345678", since="100")
    assert b"".join(pieces) == told
    first, second = (one["path"] for one in server.seen[:2])
    assert first == second
    assert "since=20" in first, "a moment, which stays the same"


async def test_a_log_that_began_with_its_tail_goes_on_too(kind: str) -> None:
    whole = b"".join(b"line %d\n" % number for number in range(50))
    async with scripted(cuts(b"line 38\nline 39\n"), streams(whole), says(ENDED)) as server:
        pieces = await call(kind, server.url, "follow_job_logs", "12345678", tail=2)
    assert b"".join(pieces) == whole[whole.index(b"line 38") :]
    assert [("tail=2" in one["path"]) for one in server.seen[:2]] == [True, False]


async def test_a_log_whose_service_goes_is_followed_on_another(kind: str) -> None:
    async with scripted(streams(b"a\n"), says(ACTIVE), streams(b"a\nb\n"), says(ENDED)) as server:
        pieces = await call(kind, server.url, "follow_job_logs", "12345678")
    assert b"".join(pieces) == b"a\nb\n"


async def test_a_job_that_is_not_there_is_no_log_that_waits(kind: str) -> None:
    async with scripted(says({"detail": "Job not found"}, 404)) as server:
        with pytest.raises(errors.NotFound):
            await call(kind, server.url, "follow_job_logs", "12345678")


async def test_an_address_without_a_scheme_is_refused(kind: str) -> None:
    del kind
    with pytest.raises(ValueError, match="https://"):
        Client("localhost:8000")
