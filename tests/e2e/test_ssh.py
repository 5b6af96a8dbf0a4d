"""SSH through the API: the tunnel, its ends, and who may open it."""

import asyncio
import hashlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gpudev import AsyncClient, Client, errors
from gpudev.tunnel import SshEnded, SshTunnel
from tests.support.promises import promised
from tests.support.stack import ApiUser, LocalStack, running_stack, until, users
from tests.support.tunnel import read_until_end

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
BANNER = b"SSH-2.0-"
MIB = 1 << 20


@asynccontextmanager
async def job_of(user: ApiUser, **fields: Any) -> AsyncIterator[str]:
    job_id = await user.submit(gpu_count=1, github_user=user.name, **fields)
    await user.wait(job_id, "active")
    try:
        yield job_id
    finally:
        await user.client.post(f"/v1/jobs/{job_id}/cancel", headers={"Prefer": "wait=30"})


@asynccontextmanager
async def tunnel(stack: LocalStack, user: ApiUser, job_id: str) -> AsyncIterator[SshTunnel]:
    async with AsyncClient(stack.url, user.key) as client, client.open_ssh(job_id) as opened:
        yield opened


@asynccontextmanager
async def session(stack: LocalStack, user: ApiUser, job_id: str) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A user's SSH client whose bytes go through the API."""
    key = stack.state.github / user.name
    async with tunnel(stack, user, job_id) as opened:
        here, there = socket.socketpair()
        for one in (here, there):
            one.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=there)
        pumps = [asyncio.create_task(_up(reader, opened)), asyncio.create_task(_down(opened, writer))]
        try:
            async with asyncssh.connect(
                sock=here, host="job", username="dev", known_hosts=None, client_keys=[str(key)], config=None
            ) as connection:
                yield connection
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()


async def _up(reader: asyncio.StreamReader, opened: SshTunnel) -> None:
    data = b"-"
    while data:
        data = await reader.read(MIB)
        await opened.write(data)


async def _down(opened: SshTunnel, writer: asyncio.StreamWriter) -> None:
    while data := await opened.read():
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_a_command_runs_and_its_exit_code_comes_back(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,), job_of(demo) as job_id, session(stack, demo, job_id[:8]) as ssh:
        done = await ssh.run("echo printed; echo $((6 * 7)); exit 7")
    assert (done.exit_status, done.stdout) == (7, "printed\n42\n")


async def test_bytes_come_through_whole_both_ways(stack: LocalStack, tmp_path: Path) -> None:
    sent = os.urandom(8 * MIB) * 4
    (tmp_path / "sent").write_bytes(sent)
    async with users(stack, "demo") as (demo,), job_of(demo) as job_id, session(stack, demo, job_id) as ssh:
        await asyncssh.scp(str(tmp_path / "sent"), (ssh, "data"))
        told = await ssh.run("sha256sum < data")
        await asyncssh.scp((ssh, "data"), str(tmp_path / "back"))
    assert str(told.stdout).split()[0] == hashlib.sha256(sent).hexdigest()
    assert (tmp_path / "back").read_bytes() == sent


async def test_the_blocking_client_has_the_same_way(stack: LocalStack) -> None:
    def talk(user: ApiUser, job_id: str) -> SshEnded:
        with Client(stack.url, user.key) as client, client.open_ssh(job_id) as opened:
            assert opened.read().startswith(BANNER)
            opened.write(b"no ssh\r\n")
            opened.write(b"")
            try:
                while True:
                    opened.read()
            except SshEnded as ended:
                return ended

    def refuse(user: ApiUser, job_id: str) -> None:
        with Client(stack.url, user.key) as client, pytest.raises(errors.NotFound), client.open_ssh(job_id):
            pass

    async with users(stack, "demo", "bob") as (demo, bob), job_of(demo) as job_id:
        ended = await asyncio.to_thread(talk, demo, job_id)
        await asyncio.to_thread(refuse, bob, job_id)
    assert (ended.code, ended.again) == (1000, False)


async def test_it_is_a_route_like_others(stack: LocalStack) -> None:
    async with users(stack, "demo", "bob", "operator") as (demo, bob, operator), job_of(demo) as job_id:
        plain = await demo.client.get(f"/v1/jobs/{job_id}/ssh")
        assert plain.status_code == 426  # the ingress keeps the Upgrade header, which is for one hop
        with pytest.raises(errors.NotFound):
            async with tunnel(stack, bob, job_id):
                pass
        with pytest.raises(errors.Unauthenticated):
            async with AsyncClient(stack.url, f"{demo.key[:-4]}AAAA") as nobody, nobody.open_ssh(job_id):
                pass
        async with tunnel(stack, operator, job_id) as opened:
            assert (await opened.read()).startswith(BANNER)
        waiting = await demo.submit(instance_type="p6-b200.48xlarge")
        with pytest.raises(errors.Conflict, match="not active"):
            async with tunnel(stack, demo, waiting):
                pass
        await demo.client.post(f"/v1/jobs/{waiting}/cancel")


async def test_the_end_of_the_job_ends_it_with_the_reason(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,), job_of(demo) as job_id, tunnel(stack, demo, job_id) as opened:
        assert (await opened.read()).startswith(BANNER)
        await demo.client.post(f"/v1/jobs/{job_id}/cancel?reason=enough")
        ended = await asyncio.wait_for(read_until_end(opened), 60)
    assert (ended.code, ended.again) == (4001, False)
    assert ended.detail.endswith("Cancelled by its user: enough")


async def test_a_key_that_is_revoked_ends_it_within_5_s(stack: LocalStack) -> None:
    async with (
        users(stack, "demo", "demo") as (demo, other),
        job_of(demo) as job_id,
        tunnel(stack, other, job_id) as opened,
    ):
        assert (await opened.read()).startswith(BANNER)
        answer = await demo.client.delete(f"/v1/keys/{other.key.rpartition('_')[0]}")
        assert answer.status_code == 200, answer.text
        with promised(5):
            ended = await asyncio.wait_for(read_until_end(opened), 60)
    assert (ended.code, ended.again) == (4003, False)
    assert "revoked" in ended.detail


async def test_a_key_that_expires_ends_it_within_5_s(stack: LocalStack) -> None:
    async with users(stack, "demo", "demo") as (demo, other), job_of(demo) as job_id:
        began = time.monotonic()
        async with tunnel(stack, demo, job_id) as opened:
            await opened.read()
        left = 6 + 4 * (time.monotonic() - began)
        # nobody has seen it yet: so its end is nobody's memory
        statement = "UPDATE api_keys SET expires_at = now() + $2 WHERE key_id = $1"
        await stack.execute("auth", statement, other.key.split("_")[1], timedelta(seconds=left))
        with promised(left + 5):
            async with tunnel(stack, other, job_id) as opened:
                assert (await opened.read()).startswith(BANNER)
                ended = await asyncio.wait_for(read_until_end(opened), 60)
        assert (ended.code, ended.again) == (4003, False)
        assert "expired" in ended.detail
        with pytest.raises(errors.Unauthenticated):
            async with tunnel(stack, other, job_id):
                pass


async def test_the_end_of_each_direction_is_passed_on(stack: LocalStack) -> None:
    """A client that says that it has no more is answered to the end."""
    async with users(stack, "demo") as (demo,), job_of(demo) as job_id, tunnel(stack, demo, job_id) as opened:
        await opened.write(b"no ssh\r\n")
        await opened.write(b"")
        ended = await asyncio.wait_for(read_until_end(opened), 60)
    assert (ended.code, ended.detail) == (1000, "The session has ended")


async def test_one_user_has_so_many_at_once_and_no_more(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,), job_of(demo) as job_id:
        async with AsyncExitStack() as opened:
            for _ in range(50):
                await opened.enter_async_context(tunnel(stack, demo, job_id))
            with pytest.raises(errors.RateLimited):
                async with tunnel(stack, demo, job_id):
                    pass

        async def again() -> bool:
            try:
                async with tunnel(stack, demo, job_id):
                    return True
            except errors.RateLimited:
                return False

        await until(again, "room again")


async def test_a_replica_that_dies_is_told_of_and_one_that_stops_loses_nothing() -> None:
    sent = os.urandom(MIB) * 20
    with running_stack(GPUDEV_DRAIN_SECONDS="0") as stack:
        async with users(stack, "demo") as (demo,), job_of(demo) as job_id:
            async with tunnel(stack, demo, job_id) as opened:
                await opened.read()
                stack.kill("jobs-1")
                ended = await asyncio.wait_for(read_until_end(opened), 60)
                assert ended.again
                assert "broke" in ended.detail

            async def back() -> bool:
                try:
                    async with tunnel(stack, demo, job_id) as again:
                        return (await again.read()).startswith(BANNER)
                except errors.GpuDevError:
                    return False

            await until(back, "SSH again, with the next replica", seconds=60)
            async with session(stack, demo, job_id) as ssh:
                writing = await ssh.create_process("sha256sum", encoding=None)
                writing.stdin.write(sent[: len(sent) // 2])
                os.kill(stack.parts()["jobs-1"].pid, signal.SIGTERM)
                writing.stdin.write(sent[len(sent) // 2 :])
                writing.stdin.write_eof()
                told = await asyncio.wait_for(writing.wait(), 60)
            assert bytes(told.stdout or b"").split()[0].decode() == hashlib.sha256(sent).hexdigest()
            await until(back, "SSH again, with the replica after that", seconds=60)
