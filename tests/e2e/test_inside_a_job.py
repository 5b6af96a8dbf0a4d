"""A job from inside: its command as it was written, its home, its environment, its end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.environments import TELL, differences, environments
from tests.support.ssh import paste
from tests.support.stack import ApiUser, LocalStack, until, users

BYTES = r"""
printf '%s\n' 'single $$ $(SECRET) $(HOME) ${HOME} `id`' "double \$\$ \$(SECRET)"
x=$(printf '%s' $(echo nested)); echo "$x" $((1 + 1)) $(SECRET; true)
test "$$" -gt 1 && echo process
exec /bin/sh -c 'echo "$0 $1"' '$(SECRET)' '$$'
""".lstrip()


async def log_of(user: ApiUser, job_id: str) -> list[str]:
    answer = await user.client.get(f"/v1/jobs/{job_id}/logs")
    assert answer.status_code == 200, answer.text
    return answer.text.splitlines()


async def test_the_shell_gets_exactly_the_command_that_the_api_shows(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(command=BYTES, gpu_count=1, env_vars={"SECRET": "echo pwned"})
        job = await alice.wait(job_id, "completed")
        assert job["command"] == BYTES
        lines = await log_of(alice, job_id)
        assert [line for line in lines if "not found" not in line] == [
            "single $$ $(SECRET) $(HOME) ${HOME} `id`",
            "double $$ $(SECRET)",
            "nested 2",
            "process",
            "$(SECRET) $$",
        ]
        assert len(lines) == 6, "SECRET is no program, and was not put in its place"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("disk", [{}, {"disk_name": "inside", "disk_size_gb": 10}], ids=["scratch", "disk"])
async def test_every_way_in_finds_the_same_environment(stack: LocalStack, disk: dict[str, Any]) -> None:
    given = {"COLOUR": "red and $(HOME) $$", "PATH_TO": "a=b"}
    async with users(stack, "demo") as (demo,):
        job_id = await demo.submit(
            command=f"{TELL}; exec sleep 300", gpu_count=1, github_user="demo", env_vars=given, **disk
        )
        await demo.wait(job_id, "active")
        found = await environments(stack, demo, job_id)
        command = found["command"]
        if not disk:
            found["exec"]["here"] = found["command"]["here"]  # where the image says, which is not asked for exec
        assert differences(found) == {}
        assert given.items() <= command.items()
        assert command["HOME"].endswith("/home/dev")
        assert command["here"].endswith("/disks/" + str((await demo.job(job_id))["ebs_volume_id"]) if disk else "/home")
        assert (command["USER"], command["LOGNAME"], command["PYTHONUNBUFFERED"]) == ("dev", "dev", "1")
        await demo.client.post(f"/v1/jobs/{job_id}/cancel")
        await demo.wait(job_id, "cancelled")


async def test_a_home_and_a_directory_of_the_users_are_the_commands(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await demo.submit(
            command=f"{TELL}; exec sleep 300",
            gpu_count=1,
            github_user="demo",
            working_dir="/home/dev/a $b",
            env_vars={"HOME": "/tmp/elsewhere", "PYTHONUNBUFFERED": "0"},
        )
        job = await demo.wait(job_id, "active")
        assert (job["home"], job["working_dir"], job["grace_seconds"]) == ("/home/dev", "/home/dev/a $b", 30)

        async def told() -> Any:
            lines = await log_of(demo, job_id)
            return [line for line in lines if line.startswith("here=")] and lines

        lines = await until(told, "the command's environment")
        assert "HOME=/tmp/elsewhere" in lines
        assert "PYTHONUNBUFFERED=0" in lines
        assert lines[-1].endswith("/home/a $b")
        session = (await paste(job["ssh_command"], 'echo "$HOME"; pwd; ls')).output.splitlines()
        assert session[0].endswith("/home/dev")
        assert session[1:] == [session[0], "a $b"]
        await demo.client.post(f"/v1/jobs/{job_id}/cancel")
        await demo.wait(job_id, "cancelled")


async def test_what_a_command_leaves_at_home_is_on_its_disk(stack: LocalStack) -> None:
    disk = {"disk_name": "checkpoints", "disk_size_gb": 10, "gpu_count": 1}
    async with users(stack, "alice") as (alice,):
        first = await alice.submit(command="echo 1 > ~/checkpoint; echo 2 > relative", **disk)
        told = await alice.wait(first, "completed")
        assert told["working_dir"] == told["home"] == "/home/dev"

        async def free() -> bool:
            return not (await alice.client.get("/v1/disks/checkpoints")).json()["in_use"]

        await until(free, "the disk")
        second = await alice.submit(command="cat ~/checkpoint relative", **disk)
        await alice.wait(second, "completed")
        assert await log_of(alice, second) == ["1", "2"]


async def test_both_outputs_are_one_stream_in_the_order_of_writing(stack: LocalStack) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(command=script, gpu_count=1)
        await alice.wait(job_id, "completed")
        wanted = [f"{name} {number}" for number in range(40) for name in ("out", "err")]
        assert await log_of(alice, job_id) == wanted


async def test_what_python_prints_is_seen_while_it_runs(stack: LocalStack) -> None:
    script = "python3 -c \"import time; print('step 1'); time.sleep(300)\""
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(command=script, gpu_count=1)
        await alice.wait(job_id, "active")

        async def seen() -> bool:
            return await log_of(alice, job_id) == ["step 1"]

        await until(seen, "the line in the log")
        await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        await alice.wait(job_id, "cancelled")
        assert await log_of(alice, job_id) == ["step 1"]


async def test_a_progress_bar_is_seen_while_it_runs_and_is_told_as_it_was_printed(
    stack: LocalStack, tmp_path: Path
) -> None:
    """Each state is printed when the one before it was seen; US and RS at ends of lines are the command's own."""
    awaited = "while [ ! -e {} ]; do sleep 0.02; done"
    seen = [tmp_path / f"seen-{number}" for number in range(3)]
    states = [rf"\r{number}0%%" for number in range(3)]
    steps = "; ".join(f"printf '{state}'; {awaited.format(file)}" for state, file in zip(states, seen, strict=True))
    printed = "head\n\r00%\r10%\r20%\n\x1f\n\x1e\nend\x1f\n"
    async with users(stack, "alice") as (alice,):
        command = rf"printf 'head\n'; {steps}; printf '\n\037\n\036\nend\037\n'; {awaited.format(tmp_path / 'end')}"
        job_id = await alice.submit(command=command, gpu_count=1)
        told = ""
        logs = f"/v1/jobs/{job_id}/logs"
        async with (
            asyncio.timeout(90),
            alice.client.stream("GET", logs, params={"follow": "true"}, timeout=90) as answer,
        ):
            async for text in answer.aiter_text():
                told += text
                for number, file in enumerate(seen):
                    if f"\r{number}0%" in told:
                        file.touch()
                if told.endswith("end\x1f\n"):
                    for tail, wanted in ((1, "end\x1f\n"), (4, "\r00%\r10%\r20%\n\x1f\n\x1e\nend\x1f\n"), (5, printed)):
                        assert (await alice.client.get(logs, params={"tail": tail})).text == wanted
                    (tmp_path / "end").touch()
        assert told.lstrip("\n") == printed
        await alice.wait(job_id, "completed")
        assert (await alice.client.get(logs)).text == printed
        assert (await alice.client.get(logs, params={"tail": 4})).text == printed.removeprefix("head\n")


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_a_checkpoint_is_saved_when_the_job_ends(stack: LocalStack, end: str) -> None:
    name = f"saved-{end}"
    program = "trap 'sleep 0.3; echo saved > ~/checkpoint; exit' TERM; echo ready; while :; do sleep 0.05; done"
    async with users(stack, "alice") as (alice,):
        # the shell between passes no signal on, and is not the one that saves
        job_id = await alice.submit(
            command=f'bash -c "{program}"; echo unreached', gpu_count=1, disk_name=name, disk_size_gb=10
        )
        await alice.wait(job_id, "active")

        async def ready() -> bool:
            return await log_of(alice, job_id) == ["ready"]

        await until(ready, "the program")
        if end == "cancelled":
            await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        else:
            # the clock moved: the shortest job would take five minutes
            await stack.execute("jobs", "UPDATE jobs SET expires_at = now(), due_at = now() WHERE id = $1", job_id)
        await alice.wait(job_id, end)
        handle = (await alice.job(job_id))["ebs_volume_id"]
        (kept,) = await asyncio.to_thread(lambda: list(stack.state.root.rglob(f"disks/{handle}/checkpoint")))
        assert kept.read_text() == "saved\n"


async def test_names_of_the_platform_are_refused(stack: LocalStack) -> None:
    body = {"image": "debian:12", "instance_type": "p5.48xlarge", "env_vars": {"NVIDIA_VISIBLE_DEVICES": "all"}}
    async with users(stack, "alice") as (alice,):
        refused = await alice.client.post("/v1/jobs/submit", json=body)
        assert refused.status_code == 400
        (problem,) = refused.json()["detail"]
        assert problem["loc"] == ["body", "env_vars", "NVIDIA_VISIBLE_DEVICES"]
        assert "platform" in problem["msg"]


async def test_the_longest_name_of_a_variable_reaches_the_job(stack: LocalStack) -> None:
    name = "A" * 253
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(command=f'echo "${name}"', gpu_count=1, env_vars={name: "here"})
        await alice.wait(job_id, "completed")
        assert await log_of(alice, job_id) == ["here"]
