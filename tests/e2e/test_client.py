"""The Python client and the command line against the whole system."""

import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gpudev import AsyncClient, Client, errors
from tests.support.cutting_proxy import cutting_proxy
from tests.support.fault_proxy import Fault, api_fault_proxy
from tests.support.programs import outcome
from tests.support.promises import promised
from tests.support.stack import LocalStack, until

README = Path(__file__).parents[2] / "README.md"
ONE_GPU = {"image": "debian:12", "instance_type": "p5.48xlarge", "duration_hours": 0.1, "gpu_count": 1}


@asynccontextmanager
async def client_of(
    stack: LocalStack, name: str, url: str | None = None, *, retry_seconds: float = 60.0
) -> AsyncIterator[AsyncClient]:
    """The client of a user who has just logged in."""
    given = await asyncio.to_thread(stack.identity, name)
    async with AsyncClient(stack.url) as nobody:
        login = await nobody.aws_login(
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=given["AWS_SESSION_TOKEN"],
        )
    stack.secrets |= {given["AWS_SECRET_ACCESS_KEY"], given["AWS_SESSION_TOKEN"], login.api_key}
    assert login.username == name
    async with AsyncClient(url or stack.url, login.api_key, retry_seconds=retry_seconds) as client:
        yield client


async def test_a_job_from_its_submission_to_its_log(stack: LocalStack) -> None:
    async with client_of(stack, "client-ann") as client:
        command = "echo begun; sleep 2; echo done; exit 3"
        jobs = [job async for job in client.launch_job(**ONE_GPU, name="training", command=command)]
        assert jobs[-1].status in {"active", "failed"}
        job_id = jobs[-1].job_id
        log = b"".join([piece async for piece in client.follow_job_logs(job_id)])
        job = await client.get_job(job_id[:8])
        history = await client.get_job_history(job_id)
        listed = [job.job_id async for job in client.iter_jobs()]
        kept = await client.get_job_logs(job_id)
    assert log == b"begun\ndone\n"
    assert kept == "begun\ndone\n"
    assert (job.status, job.exit_code) == ("failed", 3)
    assert history.history[-1].status == "failed"
    assert listed == [job_id]


async def test_a_cancelled_job_is_over_when_that_is_answered(stack: LocalStack) -> None:
    async with client_of(stack, "client-bob") as client:
        submitted = await client.submit_job(**ONE_GPU)
        answer = await client.cancel_job(submitted.job_id, reason="enough", wait=30)
        job = await client.get_job(submitted.job_id)
        with pytest.raises(errors.Conflict):
            await client.extend_job(submitted.job_id, extension_hours=1)
    assert answer.status == "succeeded"
    assert (job.status, job.status_reason) == ("cancelled", "Cancelled by its user: enough")


async def test_the_life_of_a_disk(stack: LocalStack) -> None:
    async with client_of(stack, "client-cy") as client:
        created = await client.wait_for_disk_operation(await client.create_disk("data", size_gb=20))
        assert (created.status, created.error) == ("completed", None)
        assert (await client.rename_disk("data", new_name="old-data")).new_name == "old-data"
        await client.wait_for_disk_operation(await client.create_disk_snapshot("old-data"))
        snapshots = [snapshot async for snapshot in client.iter_disk_snapshots("old-data")]
        assert [snapshot.state for snapshot in snapshots] == ["completed"]
        await client.wait_for_disk_operation(await client.delete_disk("old-data"))
        assert [disk async for disk in client.iter_disks()] == []
        with pytest.raises(errors.Gone):
            await client.delete_disk("old-data")
        await client.restore_disk("old-data")
        assert (await client.get_disk("old-data")).size_gb == 20
        assert (await client.get_disk_content("old-data")).disk_name == "old-data"
        with pytest.raises(errors.InvalidRequest) as told:
            await client.create_disk("data", size_gb=1)
    assert [problem.loc for problem in told.value.problems] == [("body", "size_gb")]


async def test_a_key_is_rotated_and_revoked(stack: LocalStack) -> None:
    async with client_of(stack, "client-dee") as client:
        new = await client.rotate_key()
        stack.secrets.add(new.api_key)
        assert new.key_prefix in {key.key_prefix for key in (await client.list_keys()).keys}
        with Client(stack.url, new.api_key) as other:
            await asyncio.to_thread(other.list_jobs)  # jobs remembers the key now
            await client.revoke_key(new.key_prefix)
            with promised(1), pytest.raises(errors.Unauthenticated):
                await asyncio.to_thread(_until_refused, other)


def _until_refused(client: Client) -> None:
    """A revocation holds everywhere within a second, however often one asks."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        client.list_jobs()


async def test_what_the_cluster_has_and_how_it_is(stack: LocalStack) -> None:
    async with client_of(stack, "client-eve") as client:
        assert (await client.api_info()).service == "GPU Dev API"
        assert (await client.health()).services.keys() == {"auth", "jobs", "disks", "capacity"}
        assert (await client.health_jobs()).service == "jobs"
        available = await client.gpu_availability()
        assert available.availability["h100"].total == 16
        assert (await client.cluster_status()).total_gpus == 32
        assert "/v1/jobs" in (await client.openapi())["paths"]


async def test_connections_that_are_cut_double_nothing_and_lose_nothing(stack: LocalStack) -> None:
    dice = random.Random(13)

    def cut(request: web.Request) -> Fault | None:
        if request.method != "POST" or dice.random() > 0.5:
            return None
        return dice.choice([Fault(lost=True), Fault(cut_after=20), Fault(status=503, message="away")])

    async with api_fault_proxy(stack.url) as (proxy, url), client_of(stack, "client-fay", url) as client:
        proxy.rule = cut
        submitted = await asyncio.gather(*(client.submit_job(**ONE_GPU, name=f"job-{n}") for n in range(36)))
        proxy.rule = lambda _: None
        jobs = [job async for job in client.iter_jobs()]
        posts = proxy.count("POST", "/submit")
        await asyncio.gather(*(client.cancel_job(job.job_id) for job in jobs))
    assert sorted(str(job.name) for job in jobs) == sorted(f"job-{n}" for n in range(36))
    assert {job.job_id for job in jobs} == {answer.job_id for answer in submitted}
    assert posts > 36 + 10, "connections were cut"


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
        pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
    ids=str,
)
async def test_submits_over_connections_that_are_cut_anywhere_are_neither_doubled_nor_lost(
    stack: LocalStack, count: int
) -> None:
    waiting = {**ONE_GPU, "instance_type": "p6-b200.48xlarge"}
    places = asyncio.Semaphore(50)
    async with (
        cutting_proxy(stack.port, random.Random(count), longest=3000) as (proxy, url),
        client_of(stack, "client-jo", url, retry_seconds=1200) as cut,
        client_of(stack, "client-jo") as client,
    ):

        async def submit(number: int) -> str:
            async with places:
                return (await cut.submit_job(**waiting, name=f"job-{number}")).job_id

        async def cancel(job_id: str) -> None:
            async with places:
                await client.cancel_job(job_id)

        told = await asyncio.gather(*map(submit, range(count)))
        jobs = [job async for job in client.iter_jobs()]
        await asyncio.gather(*(cancel(job.job_id) for job in jobs))
    assert len(jobs) == count
    assert {job.name: job.job_id for job in jobs} == {f"job-{n}": job_id for n, job_id in enumerate(told)}
    assert proxy.cuts > count / 10, "connections were cut"
    assert proxy.cut_answers > count / 50, "and some of them when the job was there already"


async def test_a_followed_log_outlives_the_connections_that_it_comes_over(stack: LocalStack, tmp_path: Path) -> None:
    async with api_fault_proxy(stack.url) as (proxy, url), client_of(stack, "client-gil", url) as client:
        # a hundred at a time, the next ones when the connection is cut
        cut = "until [ -e {} ]; do sleep 0.02; done"
        gates = [tmp_path / f"cut-{number}" for number in range(3)]
        pieces = [f"for n in $(seq {n} {n + 99}); do echo line; echo number $n; done" for n in (1, 101, 201, 301)]
        between = [cut.format(gate) for gate in gates]
        command = "\n".join([pieces[0], *(line for pair in zip(between, pieces[1:], strict=True) for line in pair)])
        submitted = await client.submit_job(**ONE_GPU, command=command, wait=30)
        told: list[bytes] = []
        cuts = 0
        async for piece in client.follow_job_logs(submitted.job_id):
            told.append(piece)
            if cuts < 3 and len(b"".join(told).splitlines()) > 150 * (cuts + 1):
                proxy.break_streams()
                gates[cuts].touch()
                cuts += 1
    wanted: Any = [text for n in range(1, 401) for text in ("line", f"number {n}")]
    assert b"".join(told).decode().splitlines() == wanted
    assert cuts == 3


class CommandLine:
    """What `make run` leaves to type, as a user with a shell of their own."""

    def __init__(self, stack: LocalStack, name: str, folder: Path) -> None:
        self._program = str(stack.state.command)
        plain = {variable: value for variable, value in os.environ.items() if not variable.startswith("GPUDEV_")}
        self._environment = {**plain, **stack.identity(name), "GPUDEV_CONFIG_DIR": str(folder / "config")}

    async def type(self, *arguments: str, code: int = 0) -> str:
        """The output of a command that ends with `code`."""
        ended, output, told = await outcome(self._program, *arguments, env=self._environment, cwd="/")
        assert ended == code, f"{arguments}: {ended}\n{output.decode()}\n{told.decode()}"
        return output.decode() if code == 0 else told.decode()

    async def read(self, *arguments: str) -> Any:
        """Its answer with --json."""
        return json.loads(await self.type(*arguments, "--json"))


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_day_at_the_command_line(stack: LocalStack, tmp_path: Path) -> None:
    shell = await asyncio.to_thread(CommandLine, stack, "client-hal", tmp_path)
    assert "gpudev login" in await shell.type("whoami", code=3)
    assert "client-hal" in await shell.type("login")
    stack.secrets.add(json.loads((tmp_path / "config" / "key.json").read_text())["api_key"])
    assert (await shell.read("whoami"))["username"] == "client-hal"
    job = ["--image", "debian:12", "-t", "p5.48xlarge", "--gpus", "1", "--hours", "0.5"]
    told = await shell.type("submit", *job, "--name", "work", "--github-user", "client-hal", "--wait")
    job_id = told.splitlines()[0]
    assert "ssh" in told
    assert job_id[:8] in await shell.type("list")
    assert (await shell.read("show", "work"))["status"] == "active"
    assert [one["status"] for one in (await shell.read("history"))["history"]][-1] == "active"
    assert "does not wait" in await shell.type("explain", job_id[:4])
    before = (await shell.read("show"))["expires_at"]
    assert (await shell.read("extend", "--hours", "0.5"))["status"] == "succeeded"
    assert (await shell.read("show"))["expires_at"] > before
    assert "http" in await shell.type("jupyter", "on")
    await shell.type("jupyter", "off")
    await shell.type("users", "add", "demo")
    assert (await shell.read("show"))["secondary_users"] == ["demo"]
    assert "no-such-user" in await shell.type("users", "add", "no-such-user", code=8)
    await shell.type("cancel", "work", "--reason", "done")
    assert (await shell.read("show", "work"))["status"] == "cancelled"
    watched = (await shell.type("watch", "work")).splitlines()
    assert watched[0].endswith("work  submitted")
    assert any("  work  cancelled" in line for line in watched[-2:]), "its GPUs may be given back at once"
    assert "gpudev show" in await shell.type("extend", "work", code=6)
    submitted = await shell.read("submit", *job, "--command", "echo a; sleep 1; echo b; exit 4")
    assert await shell.type("logs", "-f", submitted["job_id"]) == "a\nb\n"
    assert await shell.type("logs", submitted["job_id"], "--tail", "1") == "b\n"
    assert "h100" in await shell.type("avail")

    async def healthy() -> bool:
        return "healthy" in (await shell.type("status")).split()

    await until(healthy, "a machine that is busy just then may make a service late")
    assert len(await shell.read("keys")) == 1
    assert await shell.type("logout") == "Logged out.\n"
    await shell.type("list", code=3)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_disks_at_the_command_line(stack: LocalStack, tmp_path: Path) -> None:
    shell = await asyncio.to_thread(CommandLine, stack, "client-ivy", tmp_path)
    await shell.type("login")
    stack.secrets.add(json.loads((tmp_path / "config" / "key.json").read_text())["api_key"])
    await shell.type("disk", "create", "data", "--size", "20")
    await shell.type("disk", "rename", "data", "mine")
    await shell.type("disk", "snapshots", "mine", "--take")
    assert [one["state"] for one in await shell.read("disk", "snapshots", "mine")] == ["completed"]
    assert "available" in await shell.type("disk", "list")
    await shell.type("disk", "content", "mine")
    await shell.type("disk", "delete", "mine")
    assert await shell.read("disk", "list") == []
    assert "gpudev disk restore" in await shell.type("disk", "delete", "mine", code=6)
    await shell.type("disk", "restore", "mine")
    assert (await shell.read("disk", "show", "mine"))["size_gb"] == 20
    assert "size_gb" in await shell.type("disk", "create", "small", "--size", "1", code=2)
    assert "gpudev disk list" in await shell.type("disk", "show", "none", code=5)


@pytest.mark.timeout(400)
async def test_the_commands_of_the_readme_do_what_it_says(stack: LocalStack) -> None:
    section = README.read_text().split("\n## From the command line\n")[1]
    commands = section.split("```sh\n")[1].split("```")[0].replace(".local/bin/gpudev", str(stack.state.command))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "API_", "GPUDEV_"))}
    code, output, told = await outcome("sh", "-ec", commands, env=plain, seconds=300)
    assert code == 0, told.decode()
    assert re.search(r"^http\S+token=", output.decode(), re.MULTILINE), output.decode()
    assert output.decode().endswith("\nhello\n")
