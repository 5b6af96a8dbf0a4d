"""The files of the local tools image: one program, which runs this package with our interpreter."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.tools.pod import inside

IMAGE = "gpudev/tools:local"
MODULE = "deploy.local.tools.loaded"
"""The program with all that it needs, for who loads it once and forks it."""
PROBES = "deploy.local.tools.ready"
"""Answers what the pods' probes ask the program."""
INITS = "deploy.local.tools.image"
"""Does what the pods' init containers are for."""
_MAIN = Path(__file__).with_name("__main__.py")


def make_image(directory: Path) -> Path:
    """Lay out the image's files below `directory`; where the program is. Idempotent."""
    program = directory / "gpudev-tools/bin/gpudev"
    write_program(program)
    return program


def init(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Do what `gpudev install DIR` does in a pod of this environment, without a process for it; False: it is not that.

    Raises:
        OSError: The program would fail too.
    """
    match list(arguments):
        case ["install", directory]:
            install(inside(Path(environment["GPUDEV_ROOT"]), directory))
            return True
    return False


def install(directory: Path) -> None:
    """Lay out what a pod's tools consist of; idempotent."""
    write_program(directory / "bin/gpudev")
    for name in ("etc", "run"):
        (directory / name).mkdir(mode=0o700, exist_ok=True)


def write_program(program: Path) -> None:
    """Write `gpudev`; idempotent."""
    program.parent.mkdir(parents=True, exist_ok=True)
    # -S: most calls need the standard library alone, and are made for every pod again and again.
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(_MAIN))} "$@"\n')
    program.chmod(0o755)
