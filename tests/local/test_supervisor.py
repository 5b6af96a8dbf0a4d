import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import proc
from deploy.local.part import Part, PartFailedError, bound_log
from deploy.local.supervisor import RestartPolicy, Supervisor, run_once
from tests.local.conftest import alive, eventually
from tests.support.promises import promised

SERVES = """
import pathlib, os, time
pathlib.Path("starts").open("a").write(f"{os.getpid()}\\n")
pathlib.Path("%s.ready").touch()
time.sleep(600)
"""

# A parent and a worker, as granian has: the worker outlives the parent's death.
HAS_A_WORKER = """
import pathlib, os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("worker").write_text(str(worker.pid))
pathlib.Path("pair.ready").touch()
sys.exit(worker.wait())
"""

NOTES_ITS_END = """
import pathlib, signal, sys
name = sys.argv[1] if len(sys.argv) > 1 else "%s"
def end(*_):
    pathlib.Path("ends").open("a").write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(name + ".ready").touch()
while True:
    signal.pause()
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
async def supervisor(lines: list[str]) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(report=lines.append, policy=RestartPolicy(limit=3, stable_seconds=60))
    yield supervisor
    await supervisor.stop()


async def until(look: Callable[[], object], *, seconds: float = 60) -> None:
    await asyncio.to_thread(eventually, look, seconds=seconds)


def starts(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().splitlines()]


def only_pid(supervisor: Supervisor) -> int:
    (part,) = supervisor.running
    return part.pid


async def test_a_part_counts_as_started_once_it_serves(
    supervisor: Supervisor, make_part: Callable[..., Part], lines: list[str], tmp_path: Path
) -> None:
    await supervisor.start(make_part("one", SERVES % "one"))

    assert (tmp_path / "one.ready").exists()
    assert alive(only_pid(supervisor))
    assert lines[0].split()[:2] == ["one", "ready"]


async def test_a_killed_part_is_started_again_and_shown(
    supervisor: Supervisor, make_part: Callable[..., Part], lines: list[str], tmp_path: Path
) -> None:
    await supervisor.start(make_part("one", SERVES % "one", port=12345))
    first = only_pid(supervisor)

    os.kill(first, signal.SIGKILL)

    await until(lambda: only_pid(supervisor) != first and any("ready again" in line for line in lines))
    assert alive(only_pid(supervisor))
    assert supervisor.running[0].port == 12345
    assert any("died (signal SIGKILL)" in line for line in lines)
    await until(lambda: starts(tmp_path) == [first, only_pid(supervisor)])


async def test_a_parts_children_are_gone_before_it_starts_again(
    supervisor: Supervisor, make_part: Callable[..., Part], tmp_path: Path
) -> None:
    await supervisor.start(make_part("pair", HAS_A_WORKER))
    parent, worker = only_pid(supervisor), int((tmp_path / "worker").read_text())

    os.kill(parent, signal.SIGKILL)

    await until(lambda: only_pid(supervisor) != parent)
    assert not alive(worker)


async def test_a_part_whose_worker_dies_is_recovered_as_a_whole(
    supervisor: Supervisor, make_part: Callable[..., Part], tmp_path: Path
) -> None:
    await supervisor.start(make_part("pair", HAS_A_WORKER))
    parent, worker = only_pid(supervisor), int((tmp_path / "worker").read_text())

    os.kill(worker, signal.SIGKILL)

    await until(lambda: only_pid(supervisor) != parent)
    assert not alive(parent)


@pytest.fixture
def stray() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


async def test_a_part_waits_for_its_strays_to_end_before_it_starts_again(
    supervisor: Supervisor, make_part: Callable[..., Part], stray: subprocess.Popen[bytes]
) -> None:
    part = make_part("one", SERVES % "one", strays=lambda: [] if stray.poll() is not None else [stray.pid])
    await supervisor.start(part)
    first = only_pid(supervisor)

    os.kill(first, signal.SIGKILL)

    await until(lambda: only_pid(supervisor) != first)
    assert stray.returncode == -signal.SIGKILL


async def test_what_keeps_dying_is_given_up_with_the_end_of_its_log(
    supervisor: Supervisor, make_part: Callable[..., Part], tmp_path: Path
) -> None:
    source = SERVES % "one" + "\nraise SystemExit('out of luck')"
    waits = "while not pathlib.Path('die').exists(): time.sleep(0.01)"
    await supervisor.start(make_part("one", source.replace("time.sleep(600)", waits)))

    (tmp_path / "die").touch()

    failure = await asyncio.wait_for(supervisor.failure(), 60)

    assert "one keeps dying" in str(failure)
    assert "out of luck" in str(failure)
    assert len(starts(tmp_path)) == 4


async def test_a_part_that_cannot_be_started_again_is_no_secret(
    make_part: Callable[..., Part], lines: list[str], tmp_path: Path
) -> None:
    def fail_later() -> None:
        if (tmp_path / "starts").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    supervisor = Supervisor(report=lines.append, changed=fail_later)
    await supervisor.start(make_part("one", SERVES % "one"))
    os.kill(only_pid(supervisor), signal.SIGKILL)
    try:
        failure = await asyncio.wait_for(supervisor.failure(), 60)
    finally:
        supervisor.kill()
    assert "one died, and cannot be started again: [Errno 28]" in str(failure)


def test_a_log_that_becomes_too_large_begins_anew_and_its_part_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    with log.open("ab") as written:
        for line in (b"old\n", b"first\n", b"second\n"):
            written.write(line)
            written.flush()
            bound_log(log, most_bytes=4)
        assert log.read_bytes() == b""
        assert log.with_name("one.log.1").read_bytes() == b"second\n"
        written.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    bound_log(tmp_path / "none.log")


def test_a_log_that_a_full_disk_cannot_keep_is_emptied_all_the_same(tmp_path: Path) -> None:
    log, kept = tmp_path / "one.log", tmp_path / "one.log.1"
    log.write_text("too much")
    kept.symlink_to("/dev/full")
    bound_log(log, most_bytes=4)
    assert (log.read_bytes(), kept.is_symlink()) == (b"", False)


async def test_deaths_after_a_long_life_are_never_too_many(
    make_part: Callable[..., Part], lines: list[str], tmp_path: Path
) -> None:
    supervisor = Supervisor(report=lines.append, policy=RestartPolicy(limit=0, stable_seconds=0))
    await supervisor.start(make_part("one", SERVES % "one"))
    try:
        for life in (1, 2, 3):
            os.kill(only_pid(supervisor), signal.SIGKILL)
            await until(lambda: len(starts(tmp_path)) == life + 1)  # noqa: B023 - awaited here
            await until(lambda: starts(tmp_path)[-1] == only_pid(supervisor) and "ready again" in lines[-1])
    finally:
        await supervisor.stop()


async def test_a_part_that_ends_while_starting_fails_the_start(
    supervisor: Supervisor, make_part: Callable[..., Part]
) -> None:
    with pytest.raises(PartFailedError, match=r"(?s)one ended while starting.*no luck"):
        await supervisor.start(make_part("one", "raise SystemExit('no luck')"))


async def test_a_part_that_never_serves_fails_the_start(supervisor: Supervisor, make_part: Callable[..., Part]) -> None:
    with pytest.raises(PartFailedError, match="does not serve"):
        await supervisor.start(make_part("one", "import time; time.sleep(600)", ready_seconds=0.3))


async def test_parts_are_stopped_from_the_highest_level_down(
    supervisor: Supervisor, make_part: Callable[..., Part], tmp_path: Path
) -> None:
    for level, name in enumerate(("database", "service", "ingress")):
        await supervisor.start(make_part(name, NOTES_ITS_END % name), level=level)

    await supervisor.stop()

    assert (tmp_path / "ends").read_text().split() == ["ingress", "service", "database"]
    assert supervisor.running == []


async def test_a_part_that_ignores_its_stop_signal_is_killed_in_time(
    supervisor: Supervisor, make_part: Callable[..., Part]
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SERVES % "deaf"
    await supervisor.start(make_part("deaf", deaf, stop_seconds=0.3))
    pid = only_pid(supervisor)

    with promised(5):
        await supervisor.stop()

    assert not alive(pid)


async def test_a_part_that_is_being_stopped_is_not_started_again(
    supervisor: Supervisor, make_part: Callable[..., Part], tmp_path: Path, lines: list[str]
) -> None:
    await supervisor.start(make_part("one", SERVES % "one"))

    await supervisor.stop()

    assert len(starts(tmp_path)) == 1
    assert not any("died" in line for line in lines)


async def test_kill_ends_everything_at_once(supervisor: Supervisor, make_part: Callable[..., Part]) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SERVES
    await supervisor.start(*(make_part(name, deaf % name, stop_seconds=60) for name in ("one", "two")))
    pids = [part.pid for part in supervisor.running]

    supervisor.kill()

    assert [pid for pid in pids if alive(pid)] == []


async def test_a_step_that_fails_shows_its_log(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "raise SystemExit('no such table')")

    with pytest.raises(PartFailedError, match=r"(?s)migrate failed.*no such table"):
        await run_once("migrate", argv, log=tmp_path / "log", env={}, cwd=tmp_path)


def test_parts_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    supervise = """
import pathlib, sys, time
from deploy.local.part import Part, spawn
source = "import time; time.sleep(600)"
part = Part(name="x", argv=(sys.executable, "-c", source), log=pathlib.Path("log"), ready=lambda: True)
pathlib.Path("pid.new").write_text(str(spawn(part).pid))
pathlib.Path("pid.new").rename("pid")
time.sleep(600)
"""
    env = {**os.environ, "PYTHONPATH": str(root)}
    supervisor = subprocess.Popen([sys.executable, "-c", supervise], cwd=tmp_path, env=env)
    try:
        eventually((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
    finally:
        supervisor.kill()
        supervisor.wait()

    eventually(lambda: not alive(child))


def test_a_start_time_tells_a_process_from_a_later_one_with_its_pid() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    started = proc.start_time(child.pid)
    child.kill()
    child.wait()

    assert started is not None
    assert started != proc.start_time(os.getpid())
    assert proc.start_time(child.pid) is None
