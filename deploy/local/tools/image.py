"""The files of the local tools image: one program, which runs this package with our interpreter."""

import shlex
import sys
from pathlib import Path

IMAGE = "gpudev/tools:local"
MODULE = "deploy.local.tools.loaded"
"""The program with all that it needs, for who loads it once and forks it."""
PROBES = "deploy.local.tools.ready"
"""Answers what the pods' probes ask the program."""
_MAIN = Path(__file__).with_name("__main__.py")


def make_image(directory: Path) -> Path:
    """Lay out the image's files below `directory`; where the program is. Idempotent."""
    program = directory / "gpudev-tools/bin/gpudev"
    write_program(program)
    return program


def write_program(program: Path) -> None:
    """Write `gpudev`; idempotent."""
    program.parent.mkdir(parents=True, exist_ok=True)
    # -S: most calls need the standard library alone, and are made for every pod again and again.
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(_MAIN))} "$@"\n')
    program.chmod(0o755)
