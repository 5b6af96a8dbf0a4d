"""Follows a run whose sessions are this machine's: `python -m tests.client.follow_here PLACE RUN_ID SHELL...`."""

import asyncio
import sys

from gpudev.cli.pod import Run
from gpudev.cli.streaming import Following


class Here(Run):
    """A run whose sessions are this machine's."""

    shell: list[str]

    @classmethod
    def of(cls, place: str, run_id: str, shell: list[str]) -> "Here":
        run = cls("job", run_id, place)
        object.__setattr__(run, "shell", shell)
        return run

    def session(self, verb: str, *arguments: str) -> list[str]:
        return ["env", "-C", "/", *self.shell, "-c", self._remote_command(verb, *arguments)]


async def unknown() -> None:
    """What the job is cannot be asked for."""


async def follow(run: Run) -> int:
    return (await Following(run, unknown).end()).code


if __name__ == "__main__":
    sys.exit(asyncio.run(follow(Here.of(sys.argv[1], sys.argv[2], sys.argv[3:]))))
