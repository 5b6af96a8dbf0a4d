"""`gpudev run` as a user types it, against the whole system."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.stack import LocalStack, until

pytestmark = pytest.mark.timeout(180)
DEFAULTS = {"image": "debian:12", "instance_type": "p5.48xlarge", "github_user": "demo", "duration_hours": 0.2}


class Shell:
    """Somebody who is logged in, in a folder of theirs."""

    def __init__(self, stack: LocalStack, folder: Path) -> None:
        self._program = str(stack.state.command)
        self.folder = folder / "project"
        self.folder.mkdir()
        self.config = folder / "config"
        self.config.mkdir(mode=0o700)
        (self.config / "defaults.yaml").write_text(yaml.safe_dump(DEFAULTS))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GPUDEV_")}
        self._environment = {**plain, **stack.identity("demo"), "GPUDEV_CONFIG_DIR": str(self.config)}

    @classmethod
    async def logged_in(cls, stack: LocalStack, folder: Path) -> "Shell":
        shell = await asyncio.to_thread(cls, stack, folder)
        assert (await shell.type("login"))[0] == 0
        stack.secrets.add(json.loads((shell.config / "key.json").read_text())["api_key"])
        return shell

    async def start(self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL) -> Process:
        return await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            env=self._environment,
            cwd=self.folder,
            stdin=stdin,
            stdout=PIPE,
            stderr=PIPE,
            limit=1 << 24,
        )

    async def type(self, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes, str]:
        """Exit code, output, and what was told beside it."""
        process = await self.start(*arguments, stdin=asyncio.subprocess.DEVNULL if stdin is None else PIPE)
        output, told = await process.communicate(stdin)
        return process.returncode or 0, output, told.decode()

    async def jobs(self) -> list[dict[str, Any]]:
        return list(json.loads((await self.type("list", "--all", "--json"))[1]))


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
