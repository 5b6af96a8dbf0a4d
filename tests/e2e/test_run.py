"""`gpudev run` as a user types it, against the whole system."""

import asyncio
import hashlib
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.shell import Shell
from tests.support.stack import LocalStack, until, users

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


WAITS = "until [ -e go ]; do sleep 0.1; done"
UNTIL_GO = f"echo begun; {WAITS}; echo went on; exit 4"
"""A command that goes on when somebody lets it."""


async def test_a_folder_goes_there_and_what_it_makes_comes_back(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    (shell.folder / ".gitignore").write_text("*.tmp\n/data/\n")
    (shell.folder / ".gpudevignore").write_text("!kept.tmp\nnotes\n")
    for name in ("main.sh", "a.tmp", "kept.tmp", "notes", "data/big", "deep er/ä file"):
        (shell.folder / name).parent.mkdir(exist_ok=True)
        (shell.folder / name).write_text("echo ran; mkdir results; echo 42 > results/answer; exit 7")
    run = ["run", "--out", "results", "--out", "nothing", "--", "sh", "-c", 'find . -type f | sort; . ./main.sh "$1"']
    code, output, told = await shell.type(*run, "a b")
    lines = [line for line in output.decode().splitlines() if ".gpudev-run" not in line]
    assert (code, lines[-1:]) == (7, ["ran"]), told
    assert lines[:-1] == ["./.gitignore", "./.gpudevignore", "./deep er/ä file", "./kept.tmp", "./main.sh"]
    assert (shell.folder / "results" / "answer").read_text() == "42\n"
    assert "nothing: there is nothing to bring back" in told
    assert "Sends 5 files" in told

    async def over() -> dict[str, Any] | None:
        job = (await shell.jobs())[0]
        return job if job["ended_at"] else None

    job = await until(over, "the job is over")
    assert (job["status"], job["exit_code"]) == ("failed", 7)
    assert (await shell.type("logs", job["job_id"]))[1] == output


async def let_go(shell: Shell, job_id: str) -> None:
    """For UNTIL_GO, in another terminal."""
    code, _, told = await shell.type("ssh", job_id, f"touch {shell.folder.name}/go")
    assert code == 0, told


async def status_of(shell: Shell, job_id: str) -> dict[str, Any]:
    return dict(json.loads((await shell.type("show", job_id, "--json"))[1]))


async def test_a_run_that_is_killed_is_found_again_with_all_its_output(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    command = f"seq 1 2000; mkdir out; echo 42 > out/answer; {UNTIL_GO}"
    async with shell.running(command, options=["--no-send", "--out", "out"]) as run:
        assert await run.line() == "1\n"
        run.process.kill()
        await run.process.communicate()
    attaching = await shell.start("run", "--attach", run.job_id)
    assert attaching.stdout is not None
    lines = [(await asyncio.wait_for(attaching.stdout.readline(), 60)).decode() for _ in range(2001)]
    assert lines == [*(f"{n}\n" for n in range(1, 2001)), "begun\n"]
    await let_go(shell, run.job_id)
    output, told = await asyncio.wait_for(attaching.communicate(), 60)
    assert (attaching.returncode, output) == (4, b"went on\n"), told.decode()
    assert (shell.folder / "out" / "answer").read_text() == "42\n"


COUNTS = "echo begun; for n in $(seq 60); do echo $n; sleep 0.1; done; exit 4"
COUNTS_UNTIL_GO = f"echo begun; for n in $(seq 30); do echo $n; sleep 0.1; done; {WAITS}; seq 31 60; exit 4"
"""Half of it: it is not over before somebody lets it."""


async def test_a_run_goes_on_over_the_death_of_the_api(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    async with shell.running(COUNTS_UNTIL_GO) as run:
        assert await run.line() == "begun\n"
        for part in ("jobs-1", "auth-1", "traefik"):
            stack.kill(part)
        await run.told("The connection to the job is lost")
        await run.told("Connected again")
        await let_go(shell, run.job_id)
        code, output, told = await run.end()
    assert code == 4, told
    assert output.decode().split("\n")[:-1] == [*map(str, range(1, 61))]


async def test_a_replica_that_stops_lets_a_run_end(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    async with shell.running(COUNTS) as run:
        assert await run.line() == "begun\n"
        for part in ("jobs-1", "auth-1"):
            os.kill(stack.parts()[part].pid, signal.SIGTERM)
        code, output, told = await run.end()
    assert code == 4, told
    assert output.decode().split("\n")[:-1] == [*map(str, range(1, 61))]


async def test_a_command_reads_what_this_program_is_given(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    given = os.urandom(5 << 20)
    code, output, told = await shell.type("run", "--no-send", "--", "sha256sum", stdin=given)
    assert (code, output.split()[:1]) == (0, [hashlib.sha256(given).hexdigest().encode()]), told
    nothing = await shell.type("run", "--no-send", "--", "cat; echo ended", stdin=b"")
    assert nothing[:2] == (0, b"ended\n"), nothing[2]


async def test_a_job_that_runs_out_of_memory_ends_its_run_with_137_and_the_reason(
    stack: LocalStack, tmp_path: Path
) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    async with shell.running(UNTIL_GO) as run:
        assert await run.line() == "begun\n"
        job = await status_of(shell, run.job_id)
        await asyncio.to_thread(stack.simulate, f"pods/gpudev/{job['pod_name']}/oom")
        code, _, told = await run.end()
    assert code == 137, told
    assert "ran out of memory" in told


async def test_ctrl_c_goes_to_the_command_and_twice_cancels_the_job(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    async with shell.running("trap 'echo caught; exit 6' INT; echo begun; while :; do sleep 0.1; done") as run:
        assert await run.line() == "begun\n"
        run.process.send_signal(signal.SIGINT)
        code, output, told = await run.end()
        assert (code, output) == (6, b"caught\n"), told
    async with shell.running("trap 'echo caught' INT; echo begun; while :; do sleep 0.1; done") as run:
        assert await run.line() == "begun\n"
        run.process.send_signal(signal.SIGINT)
        assert await run.line() == "caught\n"
        run.process.send_signal(signal.SIGINT)
        code, _, told = await run.end()
        assert code == 130, told
        assert "cancelled" in told

    async def is_cancelled() -> bool:
        return bool((await status_of(shell, run.job_id))["status"] == "cancelled")

    await until(is_cancelled, "the job is cancelled")


async def test_a_run_goes_on_when_its_key_ends_and_somebody_logs_in_again(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    async with users(stack, "demo") as (demo,), shell.running(UNTIL_GO) as run:
        assert await run.line() == "begun\n"
        await demo.client.delete(f"/v1/keys/{shell.key['key_prefix']}")
        assert "gpudev login" in await run.told("Your key has ended")
        assert (await shell.type("login"))[0] == 0
        stack.secrets.add(shell.key["api_key"])
        await run.told("Connected again")
        await let_go(shell, run.job_id)
        code, output, told = await run.end()
    assert (code, output) == (4, b"went on\n"), told


@pytest.mark.slow
async def test_a_run_that_is_longer_than_its_keys_life_renews_it(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    async with shell.running(UNTIL_GO) as run:
        assert await run.line() == "begun\n"
        key, now = shell.key, datetime.now(UTC)
        ends = now + timedelta(seconds=45)
        statement = "UPDATE api_keys SET expires_at = $2 WHERE key_id = $1"
        await stack.execute("auth", statement, key["key_prefix"].rpartition("_")[2], ends)
        times = {"obtained_at": (now - timedelta(hours=2)).isoformat(), "expires_at": ends.isoformat()}
        (shell.config / "key.json").write_text(json.dumps({**key, **times}))
        await run.told("The connection to the job is lost")
        await run.told("Connected again")
        assert shell.key["key_prefix"] != key["key_prefix"]
        stack.secrets.add(shell.key["api_key"])
        await let_go(shell, run.job_id)
        code, output, told = await run.end()
    assert (code, output) == (4, b"went on\n"), told


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_gigabyte_of_output_comes_whole(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    block = os.urandom(16 << 20)
    (shell.folder / "block").write_bytes(block)
    wanted, came = hashlib.sha256(), hashlib.sha256()
    for _ in range(64):
        wanted.update(block)
    async with shell.running("for n in $(seq 64); do cat block; done; exit 3", options=()) as run:
        while piece := await asyncio.wait_for(run.stdout.read(1 << 20), 60):
            came.update(piece)
        code, _, told = await run.end()
    assert (code, came.digest()) == (3, wanted.digest()), told


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_thousand_small_files_go_there_and_come_back(stack: LocalStack, tmp_path: Path) -> None:
    shell = await Shell.logged_in(stack, tmp_path)
    for place in range(100):
        folder = shell.folder / "data" / str(place)
        folder.mkdir(parents=True)
        for number in range(1000):
            (folder / str(number)).write_text(f"{place} {number}\n")
    command = "find data -type f -exec cat {} + | LC_ALL=C sort | sha256sum; mkdir out; mv data out/data"
    code, output, told = await shell.type("run", "--out", "out", "--", command)
    lines = sorted(f"{place} {number}\n".encode() for place in range(100) for number in range(1000))
    assert (code, output.split()[:1]) == (0, [hashlib.sha256(b"".join(lines)).hexdigest().encode()]), told
    assert "Sends 100,000 files" in told
    back = shell.folder / "out" / "data"
    assert sum(len(names) for _, _, names in os.walk(back)) == 100_000
    assert (back / "99" / "999").read_text() == "99 999\n"
