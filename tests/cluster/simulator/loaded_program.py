"""A program that the simulator loads once: what it says shows in which process it was loaded, and in which it ran."""

import os
import sys

_LOADED_IN = os.getpid()


def main(arguments: list[str]) -> int:
    """Says where it is and what it was given; its exit code is its last argument."""
    words = (_LOADED_IN, os.getpid() != _LOADED_IN, os.environ.get("COLOUR"), "HOME" in os.environ, *arguments)
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stderr.write("and that is an error\n")
    return int(arguments[-1])
