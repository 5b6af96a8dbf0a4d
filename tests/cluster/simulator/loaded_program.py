"""A program that the simulator loads once: what it says shows in which process it was loaded, and in which it ran."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_LOADED_IN = os.getpid()


def main(arguments: list[str]) -> int:
    """Says where it is and what it was given; its exit code is its last argument."""
    words = (_LOADED_IN, os.getpid() != _LOADED_IN, os.environ.get("COLOUR"), "HOME" in os.environ, *arguments)
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stderr.write("and that is an error\n")
    return int(arguments[-1])


async def probe(arguments: Sequence[str], environment: Mapping[str, str]) -> bool | None:
    """What a probe is told: whether the container's colour is the one asked for; of anything else, to execute it."""
    return environment["COLOUR"] == arguments[1] if arguments[0] == "is" else None


def init(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """What an init container is for: to write where it was told, and who did; of anything else, to execute it."""
    if arguments[0] != "write":
        return False
    Path(arguments[1]).write_text(f"{environment['COLOUR']} {os.getpid()}")
    return True
