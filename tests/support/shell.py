"""Somebody at a shell with the command line of a stack, and what they see of `gpudev run`."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import outcome
from tests.support.stack import LocalStack

_SECONDS = 600.0
"""A run may be of a gigabyte."""
DEFAULTS = {"image": "debian:12", "instance_type": "p5.48xlarge", "github_user": "demo", "duration_hours": 0.2}


class Shell:
    """Somebody who is logged in, in a folder of theirs.

    Args:
        stack: Whose user they are: demo.
        folder: For their project and settings.
        defaults: Of their jobs.
    """

    def __init__(self, stack: LocalStack, folder: Path, **defaults: Any) -> None:
        self._program = str(stack.state.command)
        self.folder = folder / "project"
        self.folder.mkdir()
        self.config = folder / "config"
        self.config.mkdir(mode=0o700)
        (self.config / "defaults.yaml").write_text(yaml.safe_dump({**DEFAULTS, **defaults}))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GPUDEV_")}
        self._environment = {**plain, **stack.identity("demo"), "GPUDEV_CONFIG_DIR": str(self.config)}

    @classmethod
    async def logged_in(cls, stack: LocalStack, folder: Path, **defaults: Any) -> "Shell":
        shell = await asyncio.to_thread(lambda: cls(stack, folder, **defaults))
        assert (await shell.type("login"))[0] == 0
        stack.secrets.add(shell.key["api_key"])
        return shell

    @property
    def key(self) -> dict[str, Any]:
        """As it is kept."""
        return dict(json.loads((self.config / "key.json").read_text()))

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
        options = {"stdin": asyncio.subprocess.DEVNULL, "env": self._environment, "cwd": self.folder}
        code, output, told = await outcome(self._program, *arguments, given=stdin, seconds=_SECONDS, **options)
        return code, output, told.decode()

    @asynccontextmanager
    async def running(self, *command: str, options: Sequence[str] = ("--no-send",)) -> AsyncIterator["Running"]:
        """A run whose command has begun; it is killed at the end of the block, unless it has ended."""
        process = await self.start("run", *options, "--", *command)
        try:
            yield await Running.begun(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def jobs(self) -> list[dict[str, Any]]:
        return list(json.loads((await self.type("list", "--all", "--json"))[1]))


class Running:
    """A `gpudev run`, as its user sees it.

    Args:
        process: It.
        job_id: The beginning of its job's.
    """

    def __init__(self, process: Process, job_id: str) -> None:
        self.process, self.job_id = process, job_id
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout, self._stderr = process.stdout, process.stderr

    @classmethod
    async def begun(cls, process: Process) -> "Running":
        told = await wait_for_line(process, "Runs in the job ")
        return cls(process, told.partition("Runs in the job ")[2][:8])

    async def told(self, text: str) -> str:
        """The line beside the output that has this in it, once it comes."""
        return await wait_for_line(self.process, text)

    async def line(self) -> str:
        """The next line of the output."""
        return (await asyncio.wait_for(self.stdout.readline(), 60)).decode()

    async def end(self) -> tuple[int, bytes, str]:
        """Exit code, the rest of the output, and the rest of what was told beside it."""
        output, told = await asyncio.wait_for(asyncio.gather(self.stdout.read(), self._stderr.read()), 90)
        return await self.process.wait(), output, told.decode()


async def wait_for_line(process: Process, text: str) -> str:
    """The first line of what is told beside the output that has this in it."""
    assert process.stderr is not None
    before: list[str] = []
    while text not in (line := (await asyncio.wait_for(process.stderr.readline(), 60)).decode()):
        assert line, f"never told: {text}; only {before}"
        before.append(line)
    return line
