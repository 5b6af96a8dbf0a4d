"""What goes on while one of the things that everything rests on hangs, and that it all recovers by itself."""

import asyncio
import itertools
from functools import partial

import httpx
import pytest

from tests.support.promises import Stopwatch, promised
from tests.support.stack import ApiUser, LocalStack, hanging, read_events, until, users

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ENDS_WITHIN = 5.0
"""From the end of a key to the end of what it has opened."""
REMEMBERED_SECONDS = 33.0
"""30 s that a key is remembered, and a request."""


async def healthy(user: ApiUser) -> bool:
    return (await user.client.get("/health")).status_code == 200


async def names(user: ApiUser, status: str, **services: str) -> bool:
    """Whether health is bad, and of these services this; answered within two seconds.

    A machine that has much to do makes any of them late: then it is asked again.
    """
    with promised(2):
        answer = await user.client.get("/health")
    told = answer.json()
    found = {name: one["status"] for name, one in told.get("services", {}).items()}
    return (answer.status_code, told.get("status")) == (503, status) and services.items() <= found.items()


async def test_jobs_are_taken_while_the_broker_hangs_also_with_a_key_that_nobody_has_seen(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        with hanging(stack, "nats"):
            async with users(stack, "newcomer") as (newcomer,):
                job_ids = [await newcomer.submit(gpu_count=1, command="exit 0"), await alice.submit(command="exit 0")]
            await until(lambda: names(alice, "unhealthy"), "health is answered, and that it is bad")
            wrong = f"{alice.key[:-1]}{'y' if alice.key.endswith('x') else 'x'}"
            refused = await alice.client.get("/v1/jobs", headers={"Authorization": f"Bearer {wrong}"})
            assert refused.status_code == 401
        async with users(stack, "newcomer") as (newcomer,):
            await newcomer.wait(job_ids[0], "completed", seconds=60)
        await alice.wait(job_ids[1], "completed", seconds=60)
        await until(lambda: healthy(alice), "health", seconds=60)


async def test_a_user_who_is_disabled_while_no_news_comes_is_caught(stack: LocalStack) -> None:
    """What lasts ends at once, a remembered key within 30 s, jobs when the news comes, also those taken meanwhile."""
    async with users(stack, "dismissed", "dismissed") as (user, again):
        running = await user.submit(gpu_count=1, command="sleep 300")
        await user.wait(running, "active")
        assert (await user.client.get("/v1/disks")).status_code == 200
        user_id = await stack.user_id("dismissed")
        with hanging(stack, "nats"):
            # a key that jobs sees here for the first time is remembered for 30 s from now
            async with again.client.stream("GET", f"/v1/jobs/{running}/logs", params={"follow": "true"}) as followed:
                assert (await stack.admin("auth", "disable-user", user_id)).endswith("keys revoked: 2")
                since = Stopwatch()
                meanwhile = await again.submit(gpu_count=1, command="sleep 300")
                last = (await followed.aread()).decode().strip().split("\n")[-1]
            assert last == "[gpudev: this answer ends here: its user is disabled]"
            assert since.seconds() < ENDS_WITHIN
            for one, path in itertools.product((user, again), ("/v1/jobs", "/v1/disks")):
                await until(partial(forbidden, one, path), f"{path} is shut", seconds=2 * REMEMBERED_SECONDS)
            assert since.seconds() < REMEMBERED_SECONDS

        async def told() -> bool:
            log = await read_events(stack)
            return all("jobs.ended" in log.of(job_id) for job_id in (running, meanwhile))

        await until(told, "the jobs of the disabled user end", seconds=60)
        await stack.admin("auth", "enable-user", user_id)
    async with users(stack, "dismissed") as (again,):
        for job_id in (running, meanwhile):
            assert (await again.wait(job_id, "cancelled"))["status_reason"] == "Cancelled because its user was disabled"
        await until(lambda: healthy(again), "health", seconds=60)


async def forbidden(user: ApiUser, path: str) -> bool:
    return (await user.client.get(path)).status_code == httpx.codes.FORBIDDEN


async def test_jobs_are_taken_while_kubernetes_hangs(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        with hanging(stack, "cluster"):
            job_id = await alice.submit(command="exit 0")
            assert (await alice.job(job_id))["status"] in {"queued", "preparing"}
            cancelled = await alice.submit(command="exit 0", instance_type="p4d.24xlarge")
            assert (await alice.client.post(f"/v1/jobs/{cancelled}/cancel")).status_code == 200
        await alice.wait(job_id, "completed", seconds=60)
        await alice.wait(cancelled, "cancelled", seconds=60)


async def test_while_aws_hangs_a_login_is_503_and_a_disk_is_made_later(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        exported = await asyncio.to_thread(stack.identity, "late")
        stack.secrets |= {exported["AWS_SECRET_ACCESS_KEY"], exported["AWS_SESSION_TOKEN"]}
        body = {
            name.lower(): exported[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        }
        with hanging(stack, "moto"):
            refused = await alice.client.post("/v1/auth/aws-login", json=body)
            assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
            asked = await alice.client.post("/v1/disks", json={"disk_name": "while-away", "size_gb": 10})
            assert asked.status_code == 200
        path = f"/v1/disks/while-away/operations/{asked.json()['operation_id']}"

        async def made() -> bool:
            return (await alice.client.get(path)).json()["status"] == "completed"

        async def logged_in() -> bool:
            answer = await alice.client.post("/v1/auth/aws-login", json=body)
            if answer.status_code == httpx.codes.OK:
                stack.secrets.add(answer.json()["api_key"])
            return answer.status_code == httpx.codes.OK

        await until(made, "the disk", seconds=60)
        await until(logged_in, "logins", seconds=60, period=1)


async def test_a_service_that_hangs_is_named_within_two_seconds(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        with hanging(stack, "disks-1"):
            await until(lambda: names(alice, "unhealthy", disks="unhealthy", jobs="healthy"), "the one that hangs")
        await until(lambda: healthy(alice), "health")


@pytest.mark.parametrize("door", ["traefik", "auth-1"])
async def test_a_body_that_does_not_come_in_time_is_told_so(stack: LocalStack, door: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.parts()[door].port)
    head = "POST /v1/auth/aws-login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: 500\r\n\r\n{{".encode())
    try:
        async with asyncio.timeout(40):
            answer = await reader.read()
    finally:
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'{"detail":' in answer
