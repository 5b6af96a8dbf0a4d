"""Logs: from the pod while there is one, from what was kept afterwards, over connections that break."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster, ClusterUnavailable
from services.jobs.context import Context, Hints
from services.jobs.domain.job import KeptLog
from services.jobs.domain.log_lines import EARLIER_LEFT_OUT, KEPT_BYTES, NOT_KEPT, RECORD_BYTES
from services.jobs.operations.archive_log import find_kept_log, find_log_state, keep_log
from services.jobs.operations.read import get_job
from services.jobs.operations.stream_log import LogReader, LogRequest
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy, is_log
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body, job_of, later, until_status

ENDLESS = "echo one; echo two; trap 'echo last words; exit 0' TERM; while :; do sleep 0.05; done"
GATED = 'for n in $(seq 1 {count}); do echo "line $n"; done; while [ ! -e go ]; do sleep 0.05; done; echo end'
FOLLOW = LogRequest(follow=True)


@pytest.fixture
async def proxy(world: JobsWorld, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(Path(world.settings.kubeconfig or ""), tmp_path) as proxy:
        yield proxy


@asynccontextmanager
async def reading(world: JobsWorld, kubeconfig: Path | None = None, **settings: Any) -> AsyncIterator[LogReader]:
    """A reader of logs as a replica has it."""
    context = with_settings(world.context(), **settings)
    cluster = Cluster(kubeconfig=str(kubeconfig or world.settings.kubeconfig), namespace=world.settings.namespace)
    try:
        yield LogReader(context, cluster)
    finally:
        await context.wake_ups.close()
        await cluster.close()


def with_settings(context: Context, **settings: Any) -> Context:
    return dataclasses.replace(context, settings=msgspec.structs.replace(context.settings, **settings), hints=Hints())


async def run(world: JobsWorld, client: Client, command: str | None, *statuses: str) -> UUID:
    job_id = await world.submit(client, command=command)
    await world.grant(job_id)
    await until_status(client, job_id, *statuses)
    return job_id


async def log_of(client: Client, job_id: object, **query: object) -> str:
    answer = await client.get(f"/v1/jobs/{job_id}/logs", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return str(answer.text)


async def follow(reader: LogReader, job: Any, request: LogRequest = FOLLOW) -> str:
    """All of it, until it ends by itself."""
    async with aclosing(await reader.open(job, request)) as pieces:
        return b"".join([piece async for piece in pieces]).decode()


async def own(world: JobsWorld, job_id: UUID) -> Any:
    return await get_job(user_id=1, job_id=str(job_id), context=world.context())


async def printed(client: Client, job_id: UUID, text: str) -> None:
    async def there() -> bool:
        return text in await log_of(client, job_id)

    await eventually(there, f"{text!r} is in the log")


async def test_a_running_jobs_log_is_read_whole_by_lines_and_by_time(world: JobsWorld, client: Client) -> None:
    job_id = await run(world, client, ENDLESS, "active")
    await printed(client, job_id, "two\n")
    assert await log_of(client, str(job_id)[:8]) == "one\ntwo\n"
    assert await log_of(client, job_id, tail=1) == "two\n"
    assert not await log_of(client, job_id, tail=0)
    assert await log_of(client, job_id, since=3600) == "one\ntwo\n"
    assert not await log_of(client, job_id, since="2100-01-01T00:00:00Z")
    launched = (await job_of(client, job_id))["created_at"]
    assert await log_of(client, job_id, since=launched, tail=5) == "one\ntwo\n"


@pytest.mark.parametrize(
    "query",
    [
        "tail=-1",
        "tail=x",
        "tail=1.5",
        "tail=99999999",
        "since=yesterday",
        "since=-5",
        "since=2026-01-20",
        "since=2026-01-20T18:30:00",
        "since=",
        "follow=perhaps",
        "since=9999999999",
        "since=2026-01-20T25:00:00Z",
        "since=0000-01-01T00:00:00Z",
        "since=2026-01-20T18:30:00%2B99:00",
    ],
)
async def test_a_bad_query_is_refused(world: JobsWorld, client: Client, query: str) -> None:
    job_id = await world.submit(client)
    answer = await client.get(f"/v1/jobs/{job_id}/logs?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize(
    ("since", "told"),
    [
        ("0001-01-01T00:00:00Z", "one\ntwo\n"),
        ("0001-01-01T00:00:00+14:00", "one\ntwo\n"),
        ("1969-12-31T23:59:59Z", "one\ntwo\n"),
        ("999999999", "one\ntwo\n"),
        ("2262-04-12T00:00:00Z", ""),
        ("9999-12-31T23:59:59Z", ""),
        ("9999-12-31T23:59:59-14:00", ""),
    ],
)
async def test_since_may_be_any_time(world: JobsWorld, client: Client, since: str, told: str) -> None:
    job_id = await run(world, client, ENDLESS, "active")
    await printed(client, job_id, "two\n")
    assert await log_of(client, job_id, since=since) == told
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await until_status(client, job_id, "cancelled")
    assert await log_of(client, job_id, since=since) == (told and f"{told}last words\n")


@pytest.mark.parametrize("tail", [0, 1, 2])
@pytest.mark.parametrize("before", [0, 3])
async def test_what_is_printed_while_a_silent_stream_is_opened_again_is_told(  # noqa: PLR0917
    world: JobsWorld, client: Client, proxy: FaultProxy, tmp_path: Path, tail: int, before: int
) -> None:
    """A connection that brought nothing new breaks; the command prints before the next one."""
    gate = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo new 1; echo new 2; echo end"
    job_id = await run(world, client, f'for n in $(seq 1 {before}); do echo "line $n"; done; {gate}', "active")
    if before:
        await printed(client, job_id, f"line {before}\n")
    async with reading(world, proxy.kubeconfig) as reader:
        request = LogRequest(follow=True, tail=tail)
        following = asyncio.create_task(follow(reader, await own(world, job_id), request))
        if before:
            await eventually(lambda: proxy.log_bytes, "it has come to the place")
        else:
            await eventually(lambda: proxy.open_streams, "it listens")
        proxy.rule = lambda request: Fault(status=500) if is_log(request) else None
        proxy.break_streams()
        await eventually(lambda: proxy.count("GET", "/log") >= 2, "it is opened again")
        (tmp_path / "go").touch()
        await printed(client, job_id, "new 2\n")
        proxy.rule = lambda _: None
        told = await asyncio.wait_for(following, 60)
    wanted = [*(f"line {n}\n" for n in range(1, before + 1))][-tail or before :] if before else []
    assert told == "".join(wanted) + "new 1\nnew 2\nend\n"


async def test_a_progress_bar_is_told_while_it_runs(world: JobsWorld, client: Client) -> None:
    bar = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); printf '\\r%01023d' $n; done; sleep 600"
    job_id = await run(world, client, bar, "active")
    seen = b""
    async with (
        reading(world) as reader,
        asyncio.timeout(60),
        aclosing(await reader.open(await own(world, job_id), FOLLOW)) as pieces,
    ):
        while len(seen) < 2 * RECORD_BYTES:
            seen += await anext(pieces)
    assert seen.startswith(b"\r%01023d\r%01023d" % (1, 2))
    assert b"Z " not in seen


async def test_another_users_log_is_not_found_like_a_missing_one(world: JobsWorld, client: Client) -> None:
    job_id = await run(world, client, "echo secret", "completed")
    mallory = world.people.bearer("mallory")
    theirs = await client.get(f"/v1/jobs/{job_id}/logs", headers=mallory)
    missing = await client.get(f"/v1/jobs/{uuid4()}/logs", headers=mallory)
    assert (theirs.status_code, theirs.content) == (404, missing.content)


async def test_there_is_no_log_before_there_is_a_pod(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    assert not await log_of(client, job_id)
    waiting = await world.submit(client, image="docker.io/library/does-not-exist:1")
    await world.grant(waiting)
    await eventually(lambda: world.objects(waiting), "its pod is there")
    assert not await log_of(client, waiting)


@pytest.mark.parametrize("command", ["printf 'a\\nb'", "echo a; echo b >&2", "echo a; echo b; exit 3"])
async def test_the_log_of_a_job_that_has_ended_is_kept(world: JobsWorld, client: Client, command: str) -> None:
    job_id = await run(world, client, command, "completed", "failed")
    assert not [kind for kind, _ in await world.objects(job_id) if kind == "pods"]
    assert (await log_of(client, job_id)).split() == ["a", "b"]
    assert (await log_of(client, job_id, tail=1)).split() == ["b"]
    assert not await log_of(client, job_id, since="2100-01-01T00:00:00Z")


async def test_what_a_command_says_on_being_ended_is_kept_too(world: JobsWorld, client: Client) -> None:
    job_id = await run(world, client, ENDLESS, "active")
    await printed(client, job_id, "two\n")
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await until_status(client, job_id, "cancelled")
    assert await log_of(client, job_id) == "one\ntwo\nlast words\n"


async def test_a_kept_log_is_the_last_megabyte_and_is_encrypted(world: JobsWorld, client: Client) -> None:
    command = "seq 1 190000; echo s3cr3t"
    job_id = await run(world, client, command, "completed")
    text = await log_of(client, job_id)
    assert text.startswith(EARLIER_LEFT_OUT.decode())
    assert KEPT_BYTES <= len(text) - len(EARLIER_LEFT_OUT) < KEPT_BYTES + 10
    assert text.endswith("190000\ns3cr3t\n")
    row = await world.database.fetch_one(storage.logs.KEPT_LOG, job_id=job_id)
    assert b"s3cr3t" not in row["sealed"]
    assert len(row["sealed"]) < KEPT_BYTES


@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("yes 0123456789012345678901234567890 | head -c 120000000; echo end", "0\nend\n"),
        ("yes '' | head -c 20000000 | tr '\\n' '\\r'; echo end", "\rend\n"),
    ],
)
async def test_however_much_was_printed_the_last_megabyte_is_kept(
    world: JobsWorld, client: Client, command: str, end: str
) -> None:
    job_id = await world.submit(client, command=command)
    await world.grant(job_id)
    await until_status(client, job_id, "completed", seconds=120)
    text = await log_of(client, job_id)
    assert text.startswith("[gpudev: ")
    # of a line that is too long to be read in time, its last records
    assert 0.98 * KEPT_BYTES < len(text) < KEPT_BYTES + 1000
    assert text.endswith(end)


async def test_env_values_are_nowhere_in_clear(world: JobsWorld, logged: Callable[[], str]) -> None:
    secret = "s3cr3t-value-of-a-user"
    async with world.service(log_level="debug") as client:
        job_id = await world.submit(client, env_vars={"TOKEN": secret})
        refused = await client.post("/v1/jobs/submit", json=body(env_vars={"TOKEN": secret, "9": secret, "B": 5}))
        await world.grant(job_id)
        await until_status(client, job_id, "active")
        shown = (await client.get(f"/v1/jobs/{job_id}")).text
        written = logged()
    assert refused.status_code == 400
    assert str(job_id) in written, "nothing was logged: the test proves nothing"
    row = await world.row(job_id)
    events = await world.events(job_id)
    assert secret not in repr(dict(row)) + repr(events) + refused.text + shown + written


async def test_logs_show_up_in_neither_our_log_nor_our_events(world: JobsWorld, logged: Callable[[], str]) -> None:
    async with world.service(log_level="debug") as client:
        job_id = await run(world, client, "printf s3; echo cr3t; exit 1", "failed")
        assert "s3cr3t" in await log_of(client, job_id)
        written = logged()
    assert str(job_id) in written, "nothing was logged: the test proves nothing"
    assert "s3cr3t" not in repr(await world.events(job_id)) + repr(dict(await world.row(job_id))) + written


async def test_a_followed_log_begins_before_the_job_and_ends_with_it(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client, command="echo one; echo two")
    async with reading(world) as reader:
        following = asyncio.create_task(follow(reader, await own(world, job_id)))
        await eventually(lambda: following.done() or True, "it has begun")
        await world.grant(job_id)
        assert await asyncio.wait_for(following, 60) == "one\ntwo\n"
    assert (await job_of(client, job_id))["status"] == "completed"


async def test_following_a_job_that_has_ended_tells_what_was_kept(world: JobsWorld, client: Client) -> None:
    job_id = await run(world, client, "seq 1 5", "completed")
    async with reading(world) as reader:
        job = await own(world, job_id)
        assert await follow(reader, job) == "1\n2\n3\n4\n5\n"
        assert await follow(reader, job, LogRequest(follow=True, tail=2)) == "4\n5\n"


@pytest.mark.parametrize("cut_after", [1, 37, 500, 4096])
async def test_a_followed_log_that_breaks_again_and_again_is_told_once(
    world: JobsWorld, client: Client, proxy: FaultProxy, cut_after: int
) -> None:
    """The first connections break after so many bytes, mid-line; the next ones break with an error, or are refused."""
    count = 400
    job_id = await run(world, client, f"cd /; {GATED.format(count=count).replace('-e go', '-e /nowhere')}", "active")
    breaks = iter([Fault(cut_after=cut_after), Fault(status=500), Fault(cut_after=2 * cut_after), Fault(status=429)])
    proxy.rule = lambda request: next(breaks, None) if is_log(request) else None
    await printed(client, job_id, f"line {count}\n")
    async with reading(world, proxy.kubeconfig) as reader:
        following = asyncio.create_task(follow(reader, await own(world, job_id)))
        await eventually(lambda: proxy.count("GET", "/log") >= 5, "it has come back four times")
        await client.post(f"/v1/jobs/{job_id}/cancel")
        told = await asyncio.wait_for(following, 60)
    assert told == "".join(f"line {number}\n" for number in range(1, count + 1))


async def test_a_log_read_whole_survives_a_break_and_a_lasting_outage_is_told(
    world: JobsWorld, client: Client, proxy: FaultProxy
) -> None:
    job_id = await run(world, client, "seq 1 500; sleep 600", "active")
    await printed(client, job_id, "500\n")
    faults = iter([Fault(cut_after=700), Fault(status=503)])
    proxy.rule = lambda request: next(faults, None) if is_log(request) else None
    async with reading(world, proxy.kubeconfig) as reader:
        job = await own(world, job_id)
        assert await follow(reader, job, LogRequest()) == "".join(f"{number}\n" for number in range(1, 501))
        proxy.rule = lambda _: Fault(status=500)
        with pytest.raises(ClusterUnavailable):
            await reader.open(job, LogRequest())


async def test_who_goes_away_leaves_no_stream_behind(world: JobsWorld, client: Client, proxy: FaultProxy) -> None:
    job_id = await run(world, client, ENDLESS, "active")
    async with reading(world, proxy.kubeconfig, max_followed_logs=1) as reader:
        job = await own(world, job_id)
        pieces = await reader.open(job, FOLLOW)
        while not await anext(pieces):
            pass
        assert proxy.open_streams == 1
        await pieces.aclose()
        await eventually(lambda: proxy.open_streams == 0, "the connection to Kubernetes is closed")
        await (await reader.open(job, FOLLOW)).aclose()  # and its place is free again


async def test_a_slow_reader_is_read_for_no_faster(world: JobsWorld, client: Client, proxy: FaultProxy) -> None:
    job_id = await run(world, client, "yes 0123456789012345678901234567890 | head -c 40000000; sleep 600", "active")
    async with reading(world, proxy.kubeconfig) as reader:
        async with aclosing(await reader.open(await own(world, job_id), FOLLOW)) as pieces:
            while not await anext(pieces):
                pass
            seen = -1
            while seen != proxy.log_bytes:  # until Kubernetes finds that nobody takes more
                seen = proxy.log_bytes
                await asyncio.sleep(0.5)
        assert 0 < seen < 20_000_000


@pytest.mark.parametrize(("kind", "request_of_kind"), [("follow", FOLLOW), ("read", LogRequest())])
async def test_a_user_follows_and_reads_only_so_many_at_once(
    world: JobsWorld, client: Client, kind: str, request_of_kind: LogRequest
) -> None:
    job = await own(world, await run(world, client, "echo one", "completed"))
    async with reading(world, max_followed_logs=2, max_read_logs=2) as reader:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(aclosing(await reader.open(job, request_of_kind)))
            with pytest.raises(Exception, match=f"{kind} 2 logs") as refused:
                await reader.open(job, request_of_kind)
            assert getattr(refused.value, "retry_after_seconds", 0) > 0
        assert await follow(reader, job, request_of_kind) == "one\n"


async def test_a_service_that_stops_ends_what_is_followed(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    async with reading(world) as reader:
        following = asyncio.create_task(follow(reader, await own(world, job_id)))
        context = reader._context
        await eventually(lambda: context.wake_ups.waiting, "it waits for the job")
        await context.wake_ups.close()
        assert not await asyncio.wait_for(following, 60)


async def test_a_log_that_cannot_be_had_holds_up_no_end(world: JobsWorld, proxy: FaultProxy) -> None:
    """The node's kubelet does not answer: the API server says 500, or hangs, for its logs alone."""
    for fault in (Fault(status=500), Fault(hang=True)):
        proxy.rule = lambda request, fault=fault: fault if is_log(request) else None
        async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
            job_id = await run(world, client, "echo lost", "completed")
            assert await find_log_state(job_id=job_id, context=world.context()) == KeptLog(tries=2)
            proxy.rule = lambda _: None
            assert await log_of(client, job_id) == NOT_KEPT.decode()


async def test_a_log_is_kept_with_its_note_or_not_at_all(world: JobsWorld) -> None:
    """A worker that was overtaken, or killed before its commit, has stored nothing."""
    async with world.service() as client:
        job_id = await run(world, client, "echo one; sleep 600", "active")
        await printed(client, job_id, "one\n")
    await world.update(job_id, "outcome = 'failed'")
    job = await own(world, job_id)
    keep = partial(keep_log, final=False, cluster=world.cluster, now=later(), context=world.context())
    assert not await keep(job=msgspec.structs.replace(job, revision=job.revision - 1))
    assert await find_kept_log(job_id=job_id, context=world.context()) is None
    assert await keep(job=job)
    assert await find_log_state(job_id=job_id, context=world.context()) == KeptLog(kept=True)
    assert b" one\n" in (await find_kept_log(job_id=job_id, context=world.context()) or b"")
    assert await own(world, job_id) == job, "the job's own row is not written for its log"
