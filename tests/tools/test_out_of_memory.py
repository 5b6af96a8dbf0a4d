"""`gpudev run` where the kernel kills for want of memory: in a cgroup that it sees as a container sees its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev.cli.carrying import finish
from tests.client.test_pod_script import Pod, eventually, read_end

MOST_BYTES = 96 << 20
HUNGRY = "x = bytearray(300 << 20)"
ROOT = Path("/sys/fs/cgroup")
ENTER = """
set -e
echo $$ > "$GROUP/cgroup.procs"
mount --make-rprivate /
mount --bind "$GROUP" "$SEEN"
exec sh "$@"
"""


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """A run's job with so much memory."""
    if os.geteuid() != 0:
        raise pytest.UsageError("These tests make cgroups: run them as root")
    first = (ROOT / "memory" / "memory.limit_in_bytes").exists()  # cgroups of version 1
    seen = ROOT / "memory" if first else ROOT
    group = seen / f"gpudev-test-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(MOST_BYTES))
    made = Pod(["unshare", "--mount", "env", f"GROUP={group}", f"SEEN={seen}", "sh", "-c", ENTER, "sh"], tmp_path)
    yield made
    made.close()
    eventually(lambda: not (group / "cgroup.procs").read_text(), "nothing of it runs")
    group.rmdir()


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["python3", "-c", HUNGRY], 137), ([f"python3 -c '{HUNGRY}' || exit 9"], 9)],
    ids=["the command", "a process of it"],
)
def test_what_the_kernel_kills_is_told(pod: Pod, argv: list[str], code: int) -> None:
    pod.send(*argv)
    _, said = read_end(pod.attach())
    assert said[-1] == f"gpudev-run: exit {code} out of memory: the kernel killed a process of it"
    assert not finish(pod.run)
    assert pod.job.wait(60) == code


def test_who_ends_by_itself_has_not_run_out_of_memory(pod: Pod) -> None:
    pod.send("kill -9 $$")
    _, said = read_end(pod.attach())
    assert said[-1].rstrip() == "gpudev-run: exit 137"
