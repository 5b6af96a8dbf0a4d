"""Jobs as their users have them, in real containers of a real cluster."""

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.github_keys import make_key_pair
from tests.nodes.conftest import needed
from tests.support.environments import TELL, differences, environments
from tests.support.load import cluster_objects
from tests.support.shell import Shell
from tests.support.ssh import paste
from tests.support.stack import ApiUser, LocalStack, until, users

pytestmark = [pytest.mark.needs_containers, pytest.mark.timeout(300)]

HELD = {"Prefer": "wait=30"}
DEBIAN, BUSYBOX = "local/debian:bookworm", "local/busybox:static"


async def opened(user: ApiUser, job_id: str) -> str:
    """The active job's `ssh_command`, once the node's port leads to it: kube-proxy lags a moment behind readiness."""
    command = str((await user.wait(job_id, "active", seconds=150))["ssh_command"])

    async def answers() -> bool:
        return (await paste(command, "true")).code == 0

    await until(answers, "a session", seconds=60)
    return command


async def submit(user: ApiUser, **fields: Any) -> str:
    return await user.submit(**{"image": DEBIAN, "gpu_count": 1, "github_user": "demo", **fields})


async def end(user: ApiUser, stack: LocalStack, job_id: str) -> None:
    """Cancel a job and see that nothing of it is left."""
    await user.client.post(f"/v1/jobs/{job_id}/cancel")
    await user.wait(job_id, "cancelled", seconds=60)
    await nothing_left(stack, job_id)


async def nothing_left(stack: LocalStack, job_id: str) -> None:
    async def gone() -> bool:
        return not any(job_id in name for name in await asyncio.to_thread(cluster_objects, stack))

    await until(gone, "nothing of the job left in the cluster")


@pytest.mark.parametrize("image", [DEBIAN, BUSYBOX])
async def test_a_job_is_a_place_to_work_on_any_image(stack: LocalStack, tmp_path: Path, image: str) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, image=image, env_vars={"COLOUR": "red"})
        ssh = await opened(demo, job_id)
        there = await paste(ssh, "pwd; echo $COLOUR; echo $USER; echo kept > kept; exit 7")
        assert (there.code, there.output.split()) == (7, ["/home/dev", "red", "dev"])
        assert (await paste(ssh, "cat kept")).output == "kept\n"

        make_key_pair(tmp_path, "colleague")
        colleague = tmp_path / "colleague"
        assert (await paste(ssh, "true", key=colleague)).code == 255
        pages = stack.state.github
        (pages / "colleague.keys").write_text(colleague.with_suffix(".keys").read_text())
        await demo.client.post(f"/v1/jobs/{job_id}/users", json={"github_username": "colleague"}, headers=HELD)

        async def added() -> bool:
            return "colleague" in (await demo.job(job_id))["secondary_users"]

        await until(added, "the colleague among the job's users")
        assert (await paste(ssh, "echo here", key=colleague)).output == "here\n"
        await end(demo, stack, job_id)
        assert (await paste(ssh, "true")).code == 255


async def test_a_command_ends_its_job_and_its_words_are_kept(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, image=BUSYBOX, command="echo out; echo err >&2; echo $$ '$(HOME)'; exit 3")
        ended = await demo.wait(job_id, "failed", seconds=150)
        assert ended["exit_code"] == 3
        log = (await demo.client.get(f"/v1/jobs/{job_id}/logs")).text
        out, err, number_and_text = log.splitlines()
        assert (out, err) == ("out", "err")
        assert re.fullmatch(r"[0-9]+ \$\(HOME\)", number_and_text)
        await nothing_left(stack, job_id)


@pytest.mark.parametrize("image", [DEBIAN, BUSYBOX])
async def test_every_way_in_finds_the_same_environment(stack: LocalStack, image: str) -> None:
    given = {"COLOUR": "red and $(HOME) $$", "PATH_TO": "a=b"}
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, image=image, command=f"{TELL}; exec sleep 600", env_vars=given)
        await opened(demo, job_id)
        found = await environments(stack, demo, job_id)
        command = found["command"]
        # of the image, which is not asked where exec starts
        assert found["exec"].pop("here") == "/"
        assert differences({**found, "exec": {**found["exec"], "here": command["here"]}}) == {}
        assert given.items() <= command.items()
        assert (command["HOME"], command["here"], command["USER"]) == ("/home/dev", "/home/dev", "dev")
        await end(demo, stack, job_id)


async def test_a_home_and_a_directory_of_the_users_are_the_commands(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await submit(
            demo,
            image=BUSYBOX,
            command="echo mine > file; echo $HOME; pwd; exec sleep 600",
            working_dir="/home/dev/a $(b) $$",
            env_vars={"HOME": "/tmp/else where"},
        )
        ssh = await opened(demo, job_id)

        async def told() -> bool:
            return (await log_of(demo, job_id)).splitlines() == ["/tmp/else where", "/home/dev/a $(b) $$"]

        await until(told, "what the command prints, which begins when SSH answers")
        session = await paste(ssh, "echo $HOME; pwd; cat '/home/dev/a $(b) $$/file'")
        assert session.output.splitlines() == ["/home/dev", "/home/dev", "mine"]
        await end(demo, stack, job_id)


async def test_a_program_below_a_shell_may_save_when_its_job_is_cancelled(stack: LocalStack) -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print('saved'), sys.exit()))\n"
        "print('ready')\n"
        "time.sleep(600)\n"
    )
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, command=f'python3 -c "{program}"; echo unreached')
        await opened(demo, job_id)

        async def ready() -> bool:
            return await log_of(demo, job_id) == "ready\n"

        await until(ready, "the program's line, which it has not flushed")
        await end(demo, stack, job_id)
        assert (await log_of(demo, job_id)).splitlines()[:2] == ["ready", "saved"]


async def log_of(user: ApiUser, job_id: str) -> str:
    return (await user.client.get(f"/v1/jobs/{job_id}/logs")).text


async def test_the_commands_output_is_seen_in_a_session_too(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, command="echo it runs; exec sleep 600")
        ssh = await opened(demo, job_id)

        async def told() -> bool:
            return (await paste(ssh, "cat /gpudev/run/command.log")).output == "it runs\n"

        await until(told, "the command's output")
        await end(demo, stack, job_id)


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"command": "python3 -c 'x = bytearray(3 << 30)'"}, ["memory"]),
        # /dev/shm is 1 GiB a GPU here: a newer kubelet makes it no larger and the writer is told, an older one evicts
        (
            {"command": "head -c 1200M /dev/zero > /dev/shm/x || exit 28; exec sleep 600"},
            ["evicted", "The command ended with exit code 28"],
        ),
        ({"image": "local/missing:1"}, ["local/missing:1"]),
    ],
    ids=["too much memory", "too large a file in memory", "a missing image"],
)
async def test_a_job_that_fails_says_why(stack: LocalStack, fields: dict[str, str], reasons: list[str]) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, **fields)
        ended = await demo.wait(job_id, "failed", seconds=150)
        assert any(reason in ended["failure_reason"] for reason in reasons), ended["failure_reason"]
        await nothing_left(stack, job_id)


async def test_a_run_that_takes_too_much_memory_ends_with_137_and_the_reason(stack: LocalStack, tmp_path: Path) -> None:
    """The kernel kills the command alone: its container goes on, and knows of it."""
    shell = await Shell.logged_in(stack, tmp_path, image=DEBIAN)
    code, output, told = await shell.type("run", "--no-send", "--", "echo begun; python3 -c 'x = bytearray(3 << 30)'")
    assert (code, output.splitlines()[0]) == (137, b"begun"), told
    assert "out of memory" in told

    async def over() -> dict[str, Any] | None:
        job = (await shell.jobs())[0]
        return job if job["ended_at"] else None

    job = await until(over, "the job is over", seconds=60)
    assert (job["status"], job["exit_code"]) == ("failed", 137)
    assert "memory" in job["failure_reason"], job["failure_reason"]
    await nothing_left(stack, job["job_id"])


@pytest.mark.parametrize("image", [DEBIAN, BUSYBOX])
async def test_jupyter_answers_through_its_node_port(stack: LocalStack, image: str) -> None:
    async with users(stack, "demo") as (demo,), httpx.AsyncClient(trust_env=False, timeout=10) as browser:
        job_id = await submit(demo, image=image)
        await demo.wait(job_id, "active", seconds=150)
        await demo.client.post(f"/v1/jobs/{job_id}/jupyter/enable", headers=HELD)

        async def enabled() -> Any:
            job = await demo.job(job_id)
            assert not job["jupyter_error"], job
            return job["jupyter_enabled"] and job

        first = await until(enabled, "Jupyter", seconds=150)
        stack.secrets.add(first["jupyter_token"])

        async def shown() -> httpx.Response | None:
            answer = await browser.get(first["jupyter_url"])
            return answer if answer.status_code == httpx.codes.OK else None

        page = await until(shown, "the node's port leads to it: kube-proxy lags a moment behind", seconds=60)
        assert "JupyterLab" in page.text
        await demo.client.post(f"/v1/jobs/{job_id}/jupyter/disable", headers=HELD)

        async def away() -> bool:
            try:
                await browser.get(first["jupyter_url"])
            except httpx.TransportError:
                return True
            return False

        await until(away, "nobody answers at its address", seconds=60)
        await end(demo, stack, job_id)


async def test_a_job_expires_and_leaves_nothing(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await submit(demo, command="exec sleep 600")
        await demo.wait(job_id, "active", seconds=150)
        # the clock moved: the shortest job would take five minutes
        await stack.execute("jobs", "UPDATE jobs SET expires_at = now(), due_at = now() WHERE id = $1", job_id)
        await demo.wait(job_id, "expired", seconds=60)
        await nothing_left(stack, job_id)


async def test_an_api_server_that_is_killed_and_comes_back_changes_nothing(stack: LocalStack) -> None:
    cluster = needed("GPUDEV_CLUSTER", "the command that kills and starts the API server")

    async def control(verb: str) -> None:
        done = await asyncio.to_thread(
            subprocess.run, [cluster, verb, "apiserver"], capture_output=True, text=True, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr

    async with users(stack, "demo") as (demo,):
        running = await submit(demo, command="exec sleep 600")
        ssh = await opened(demo, running)
        active = await demo.job(running)
        await control("kill")
        try:
            meanwhile = await submit(demo, image=BUSYBOX, command="echo made")
            assert (await paste(ssh, "echo here")).output == "here\n"
            assert (await demo.job(running))["status"] == "active"
        finally:
            await control("start-again")
        await demo.wait(meanwhile, "completed", seconds=200)
        now = await demo.job(running)
        assert (now["status"], now["pod_name"], now["launched_at"]) == (
            "active",
            active["pod_name"],
            active["launched_at"],
        )
        await end(demo, stack, running)
