"""Followed logs through the ingress, the real servers and the real auth."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import pytest

from tests.support.promises import promised
from tests.support.stack import ApiUser, LocalStack, hanging, until, users

HEAD_SECONDS, QUIET_SECONDS, KEY_SECONDS = 2.0, 15.0, 5.0
SILENT = "sleep 300"

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@asynccontextmanager
async def silent_job(user: ApiUser) -> AsyncIterator[str]:
    job_id = await user.submit(command=SILENT, gpu_count=1)
    await user.wait(job_id, "active")
    yield job_id
    await user.client.post(f"/v1/jobs/{job_id}/cancel")
    await user.wait(job_id, "cancelled")


async def test_who_follows_a_silent_job_is_answered_at_once_and_never_left_in_silence(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,), silent_job(alice) as job_id, AsyncExitStack() as open_answers:
        with promised(HEAD_SECONDS):
            follow = alice.client.stream("GET", f"/v1/jobs/{job_id}/logs?follow=true", timeout=80)
            answer = await open_answers.enter_async_context(follow)
        assert answer.status_code == 200
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"\n"
        with promised(QUIET_SECONDS + 2):
            assert await anext(pieces) == b"\n"


@pytest.mark.parametrize("broker", ["runs", "hangs"])
async def test_a_followed_log_ends_soon_after_its_key_was_revoked_and_says_why(stack: LocalStack, broker: str) -> None:
    async with users(stack, "alice", "alice") as (alice, other), silent_job(alice) as job_id:
        keys = (await other.client.get("/v1/keys")).json()["keys"]
        (prefix,) = [key["key_prefix"] for key in keys if other.key.startswith(key["key_prefix"])]
        async with other.client.stream("GET", f"/v1/jobs/{job_id}/logs?follow=true", timeout=40) as answer:
            assert answer.status_code == 200
            with hanging(stack, "nats") if broker == "hangs" else nullcontext():
                revoked = await alice.client.delete(f"/v1/keys/{prefix}")
                assert revoked.status_code == 200, revoked.text
                with promised(KEY_SECONDS):
                    told = (await answer.aread()).decode()
        last = told.rstrip("\n").split("\n")[-1]
        assert last.startswith("[gpudev: this answer ends here: it was revoked")
        # short requests go on by the remembered key until the news of its end comes, 30 s at most
        with promised(35):
            await until(lambda: refused(other), "the key opens nothing", seconds=60)
        await until(lambda: healthy(alice), "health", seconds=60)


async def refused(user: ApiUser) -> bool:
    return (await user.client.get("/v1/jobs")).status_code == 401


async def healthy(user: ApiUser) -> bool:
    return (await user.client.get("/health")).status_code == 200
