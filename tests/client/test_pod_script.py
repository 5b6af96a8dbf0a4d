"""`pod.sh` in every shell that jobs have, without a job: its sessions are run here as SSH runs them there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gpudev.cli.carrying import bring_back, finish, send
from gpudev.cli.folder import entries_of
from gpudev.cli.pod import MARK, SCRIPT, job_command, new_run_id
from tests.client.follow_here import Here

ROOT = Path(__file__).parents[2]
SHELLS = [words for words in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(words[0])]
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0]),
]


class Pod:
    """A job's command and the sessions beside it."""

    def __init__(self, shell: list[str], folder: Path) -> None:
        self.place = folder / "pod"
        self.place.mkdir()
        self.shell = shell
        self.run = Here.of(str(self.place), new_run_id(), shell)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.job = subprocess.Popen(
                # whoever runs the tests in the background has SIGINT ignored, which a shell cannot undo for its traps
                ["env", "--default-signal=INT", *shell, "-c", job_command(self.run.run_id, ["the command"])],
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.sent = folder / "sent"
        self.sent.mkdir()
        self._sessions: list[subprocess.Popen[bytes]] = []

    def send(self, *argv: str, outs: tuple[str, ...] = (), keep: bool = False, reads: bool = False) -> None:
        entries = list(entries_of(self.sent))
        send(self.run, self.sent, entries, argv=list(argv), outs=list(outs), keep=keep, reads=reads)

    def attach(self, owner: str = "me", number: int = 1, offset: int = 0, *says: bytes) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            self.run.session("attach", owner, str(number), str(offset)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._sessions.append(process)
        assert process.stdin is not None
        process.stdin.write(SCRIPT + b"".join(says))
        process.stdin.flush()
        return process

    def close(self) -> None:
        for session in self._sessions:
            session.kill()
            session.wait()
            for stream in (session.stdin, session.stdout, session.stderr):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()
        if self.job.poll() is None:
            os.killpg(self.job.pid, signal.SIGKILL)
        self.job.wait()


def read_end(process: "subprocess.Popen[bytes]") -> tuple[bytes, list[str]]:
    """What a session printed, and what it said, once it has ended by itself."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, said = process.stdout.read(), process.stderr.read().decode()
    process.wait(60)
    return output.partition(MARK)[2], said.splitlines()


def eventually(probe: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def pod(shell: list[str], tmp_path: Path) -> Iterator[Pod]:
    made = Pod(shell, tmp_path)
    yield made
    made.close()


def test_the_end_is_told_kept_for_the_log_and_is_the_jobs(pod: Pod) -> None:
    pod.send("echo out; echo err >&2; exit 9")
    output, said = read_end(pod.attach())
    assert output == b"out\nerr\n"
    assert said[-1] == "gpudev-run: exit 9 "
    assert not finish(pod.run)
    assert pod.job.wait(60) == 9
    assert pod.log.read_bytes() == output
    assert list(pod.place.iterdir()) == [], "nothing is left on a disk"


def test_words_are_the_commands_own_and_one_word_is_the_shells(pod: Pod) -> None:
    pod.send("printf", "%s|", "a b", "$HOME", "'", "", "\n")
    assert read_end(pod.attach())[0] == b"a b|$HOME|'||\n|"


def test_a_program_that_is_not_there_ends_it_with_127(pod: Pod) -> None:
    pod.send("no-such-program", "x")
    output, said = read_end(pod.attach())
    assert (said[-1], b"not found" in output) == ("gpudev-run: exit 127 ", True)


def test_output_goes_on_where_it_was_left(pod: Pod) -> None:
    pod.send("head -c 300000 /dev/zero | tr '\\0' x; echo; echo last")
    whole, _ = read_end(pod.attach())
    assert len(whole) == 300006
    assert read_end(pod.attach("me", 2, 299999))[0] == whole[299999:]
    assert read_end(pod.attach("me", 3, len(whole)))[0] == b""


def test_half_an_archive_starts_nothing(pod: Pod) -> None:
    (pod.sent / "file").write_bytes(os.urandom(100_000))
    process = subprocess.Popen(pod.run.session("receive"), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    # as much of one as came before a cut
    process.communicate(SCRIPT + subprocess.check_output(["tar", "-czf", "-", "-C", pod.sent, "file"])[:50_000])
    assert process.returncode != 0
    assert not (pod.place / pod.run.state / "go").exists()
    pod.send("echo whole")
    assert read_end(pod.attach())[0] == b"whole\n"
    pod.send("echo never")  # sent again after an answer that was lost: it runs already


def test_input_comes_once_whatever_is_cut(pod: Pod) -> None:
    pod.send("cat; echo end", reads=True)
    first = pod.attach("me", 1, 0, b"data 4\nabc\ndata 100\nhalf")
    size = pod.place / pod.run.state / "in"
    eventually(lambda: size.exists() and size.read_bytes() == b"abc\n", "the first frame came")
    first.kill()
    assert first.stdin is not None
    first.stdin.close()
    second = pod.attach("me", 2, 0)
    assert second.stderr is not None
    told = second.stderr.readline().decode()
    got = int(told.split()[2])
    assert told.split()[3] == "open"
    assert second.stdin is not None
    rest = b"abc\nhalf of it\n"[got:]
    second.stdin.write(b"data %d\n%bend\n" % (len(rest), rest))
    second.stdin.flush()
    assert read_end(second)[0] == b"abc\nhalf of it\nend\n"
    first.wait()


def test_what_an_older_session_still_reads_gets_into_no_frame_of_the_newer(pod: Pod) -> None:
    pod.send("cat; echo end", reads=True)
    first = pod.attach("me", 1, 0, b"data 100\nhalf")
    state = pod.place / pod.run.state

    def frames() -> list[bytes]:
        return [path.read_bytes() for path in state.glob("frame-*")]

    eventually(lambda: len(frames()) == 1, "a frame is begun")
    second = pod.attach("me", 2, 0)
    assert second.stderr is not None
    assert second.stderr.readline() == b"gpudev-run: input 0 open\n"
    (state / "lock").mkdir()  # between the reading of a frame and its being counted
    assert second.stdin is not None
    second.stdin.write(b"data 6\nwhole\nend\n")
    second.stdin.flush()
    eventually(lambda: b"whole\n" in frames(), "the newer session's frame came")
    assert first.stdin is not None
    first.stdin.close()
    eventually(lambda: any(frame.startswith(b"half") for frame in frames()), "the older session reads its end")
    (state / "lock").rmdir()
    assert read_end(second)[0] == b"whole\nend\n"


def test_every_byte_comes_once_over_sessions_that_are_killed(pod: Pod, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = f"[ $((line % 800)) -ne 0 ] || until [ -e {gate}-$line ]; do sleep 0.05; done"
    pod.send(f"while read -r line; do echo $line; {waits}; done; echo end", reads=True)
    for last in (3200, 4000):
        Path(f"{gate}-{last}").touch()
    given = b"".join(b"%d\n" % n for n in range(1, 4001))
    (tmp_path / "given").write_bytes(given)
    out = tmp_path / "out"
    words = [sys.executable, "-m", "tests.client.follow_here", str(pod.place), pod.run.run_id, *pod.shell]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client' / 'src'}"}
    with (tmp_path / "given").open("rb") as stdin, out.open("wb") as stdout, (tmp_path / "told").open("wb") as stderr:
        following = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, cwd=ROOT)
    session = pod.place / pod.run.state / "session"

    def has_come(turn: int) -> bool:
        return out.read_bytes().count(b"\n") == 800 * turn and session.read_text().split()[1] == str(turn)

    for turn in (1, 2, 3):
        eventually(lambda n=turn: has_come(n), "output of the next session comes")  # type: ignore[misc]
        Path(f"{gate}-{800 * turn}").touch()  # what comes now is cut off, or comes to the next session
        for process in sessions_of(pod.run.run_id):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    assert following.wait(90) == 0, (tmp_path / "told").read_text()
    assert out.read_bytes() == given + b"end\n"


def sessions_of(run_id: str) -> list[int]:
    """Processes of sessions that are attached."""
    found = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    mark = f"set -- attach .gpudev-run/{run_id}".encode()
    return [int(entry.name) for entry in found if mark in _command_line(entry)]


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_an_interrupt_reaches_all_of_the_command_once(pod: Pod) -> None:
    pod.send("trap 'echo caught' INT; echo begun; sleep 30; echo went on; exit 4")
    session = pod.attach()
    assert session.stdout is not None
    assert [session.stdout.readline(), session.stdout.readline()] == [MARK, b"begun\n"]
    assert session.stdin is not None
    session.stdin.write(b"int\nint\n")
    session.stdin.flush()
    rest = session.stdout.read()
    assert session.stderr is not None
    assert (rest, b"exit 4" in session.stderr.read()) == (b"caught\nwent on\n", True)
    session.wait()


def test_who_attaches_last_has_it_and_the_other_is_told(pod: Pod, tmp_path: Path) -> None:
    told = tmp_path / "told"
    pod.send(f"echo begun; until [ -e {told} ]; do sleep 0.1; done; echo done")
    first = pod.attach("one")
    assert first.stdout is not None
    assert [first.stdout.readline(), first.stdout.readline()] == [MARK, b"begun\n"]
    second = pod.attach("two")
    assert "gpudev-run: taken" in read_end(first)[1]
    assert "gpudev-run: taken" in read_end(pod.attach("one", 2))[1], "it does not take it back by itself"
    told.touch()
    assert read_end(second)[0] == b"begun\ndone\n"


def test_a_job_that_is_told_to_end_ends_its_command_and_does_not_linger(pod: Pod) -> None:
    pod.send("trap 'echo saved; exit 6' TERM; echo begun; while :; do sleep 0.1; done")
    eventually(lambda: pod.log.read_bytes() == b"begun\n", "it runs")
    os.killpg(pod.job.pid, signal.SIGTERM)
    assert pod.job.wait(60) == 6
    assert pod.log.read_bytes().endswith(b"saved\n"), "what was printed last is in the job's log"


def test_what_is_asked_for_comes_back_and_what_is_missing_is_named(pod: Pod, tmp_path: Path) -> None:
    (pod.sent / "deep").mkdir()
    (pod.sent / "deep" / "file").write_text("sent")
    (pod.sent / "link").symlink_to("deep/file")
    pod.send("echo made > deep/new; cat link", outs=("deep", "no such"))
    assert read_end(pod.attach())[0] == b"sent"
    back = tmp_path / "back"
    back.mkdir()
    assert bring_back(pod.run, back) == ["no such"]
    assert {path.name: path.read_text() for path in (back / "deep").iterdir()} == {"file": "sent", "new": "made\n"}


def test_a_kept_job_goes_on(pod: Pod) -> None:
    pod.send("true", keep=True)
    read_end(pod.attach())
    assert finish(pod.run)
    assert pod.job.poll() is None
