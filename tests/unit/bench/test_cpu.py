"""The benchmark counts what a process and its descendants cost."""

import os
import subprocess
import sys

from tests.bench.cpu import cpu_seconds

_SPIN = "import time\nwhile time.process_time() < 0.3: pass"
_OF_A_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_SPIN!r}])\nprint(flush=True)\ninput()"


def test_the_time_of_a_descendant_that_has_ended_is_counted_too() -> None:
    command = [sys.executable, "-c", _OF_A_CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert cpu_seconds((process.pid,)) >= 0.25

        process.communicate(b"\n")


def test_other_processes_are_not_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert cpu_seconds((process.pid,)) < cpu_seconds((os.getpid(),))

        process.communicate(b"\n")
