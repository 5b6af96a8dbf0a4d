"""The twin of the tools image's program, in a folder that stands for a pod."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.tools.image import make_image
from deploy.local.tools.listing import fitting, list_tree
from services.jobs.domain.log_lines import LineReader
from tests.local.conftest import alive, eventually
from tests.support.jupyter_settings import THEIRS, write_settings_of_a_user

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


class FakePod:
    """A pod's mounts, and calls of the program in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        for path in ("home/dev", "gpudev/access", "dev"):
            (self.root / path).mkdir(parents=True)
        self.home = self.root / "home/dev"
        self.directory = self.root
        """Where its container starts."""
        (self.root / "gpudev/access/authorized_keys").write_text("ssh-ed25519 AAAA first\n")
        (self.root / "dev/termination-log").touch()
        make_image(folder / "image")
        self._image = folder / "image/gpudev-tools/bin/gpudev"
        self.tool = self.root / "gpudev/bin/gpudev"
        address = f"127.77.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
        self.environment = {**ENVIRONMENT, "GPUDEV_ROOT": str(self.root), "GPUDEV_POD_IP": address}
        self.running: list[subprocess.Popen[bytes]] = []

    def install(self) -> None:
        subprocess.run([self._image, "install", "/gpudev"], env=self.environment, check=True)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [self.tool, *arguments], env=self.environment, cwd=self.directory, start_new_session=True, **pipes
        )
        self.running.append(process)
        return process

    def wait_until_ready(self) -> None:
        eventually(lambda: self.call("ready")[0] == 0)

    def call(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out.decode(), err.decode()

    def clear(self) -> None:
        """What the shim does in a pod: nothing of it is left."""
        for entry in Path("/proc").iterdir():
            mark = f"GPUDEV_ROOT={self.root}".encode()
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        for process in self.running:
            process.communicate()


@pytest.fixture
def fake_pod(tmp_path: Path) -> Iterator[FakePod]:
    made = FakePod(tmp_path)
    made.install()
    yield made
    made.clear()


def test_the_commands_exit_code_and_output_are_passed_on_and_kept(fake_pod: FakePod) -> None:
    script = "i=0; while [ $i -lt 50 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; exit 3"
    code, out, err = fake_pod.call("run", "--", "/bin/sh", "-c", script)
    assert (code, err) == (3, "")
    assert out.splitlines() == [f"{stream} {number}" for number in range(50) for stream in ("out", "err")]
    assert (fake_pod.root / "gpudev/run/command.log").read_text() == out
    assert fake_pod.call("run", "--", "/bin/sh", "-c", "kill -9 $$")[0] == 137
    assert fake_pod.call("run", "--", "/no/such/program")[0] == 127


ASK = f"""{sys.executable} -c 'import os, socket
try:
    print(socket.create_connection((os.environ["GPUDEV_POD_IP"], 2222), 5).recv(8).decode())
except OSError as error:
    print(type(error).__name__)'"""


def test_the_command_begins_when_the_ssh_server_answers(fake_pod: FakePod) -> None:
    assert fake_pod.call("run", "--await", "60", "--", "/bin/sh", "-c", ASK) == (0, "SSH-2.0-\n", "")


def test_the_command_waits_no_longer_than_it_is_to(fake_pod: FakePod) -> None:
    """Another server has the port: SSH never answers."""
    with socket.create_server((fake_pod.environment["GPUDEV_POD_IP"], 2222)):
        began = time.monotonic()
        assert fake_pod.call("run", "--await", "2", "--", "/bin/sh", "-c", "echo begun") == (0, "begun\n", "")
        assert time.monotonic() - began >= 2


def test_a_command_that_is_ended_before_it_begins_never_does(fake_pod: FakePod) -> None:
    with socket.create_server((fake_pod.environment["GPUDEV_POD_IP"], 2222)):
        process = fake_pod.start("run", "--await", "60", "--", "/bin/sh", "-c", "echo begun")
        log = fake_pod.root / "gpudev/run/sshd.log"
        eventually(lambda: log.exists() and log.read_text())  # that it cannot listen
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, b"")


def test_an_ended_command_leaves_the_listing_that_was_asked_for(fake_pod: FakePod) -> None:
    command = ["--", "/bin/sh", "-c", 'printf abc > "$GPUDEV_ROOT/home/dev/file"']
    message = fake_pod.root / "dev/termination-log"
    fake_pod.call("run", *command)
    assert not message.read_text()
    fake_pod.call("run", "--list", "/home/dev", *command)
    entries = [{"path": "file", "type": "file", "size_bytes": 3}]
    assert json.loads(message.read_text()) == {"size_bytes": 3, "entries": entries, "truncated": False}


@pytest.mark.parametrize(
    ("options", "image", "where"),
    [
        ([], ".", "home/dev"),
        ([], "opt/app", "opt/app"),
        (["--in", "/home/dev"], "opt/app", "home/dev"),
        (["--in", "/home/dev/new one/$$"], ".", "home/dev/new one/$$"),
        (["--in", "/"], "opt/app", "."),
    ],
)
def test_the_command_starts_where_it_is_asked_to(fake_pod: FakePod, options: list[str], image: str, where: str) -> None:
    fake_pod.directory = fake_pod.root / image
    fake_pod.directory.mkdir(parents=True, exist_ok=True)
    told = fake_pod.call("run", *options, "--", "/bin/sh", "-c", "pwd")
    assert told == (0, f"{fake_pod.root / where}\n", "")


def test_a_directory_that_cannot_be_made_is_told(fake_pod: FakePod) -> None:
    (fake_pod.home / "file").touch()
    code, _, err = fake_pod.call("run", "--in", "/home/dev/file/x", "--", "/bin/sh", "-c", "pwd")
    assert code == 126
    assert str(fake_pod.home / "file") in err


@pytest.mark.parametrize("arguments", [["--in"], ["--"], ["--in", "/", "--"], ["--out", "/"], ["sh"]])
def test_a_call_that_is_none_is_refused(fake_pod: FakePod, arguments: list[str]) -> None:
    code, _, err = fake_pod.call("run", *arguments)
    assert code == 2
    assert err.startswith("usage:")


def test_a_home_of_the_users_is_the_commands(fake_pod: FakePod) -> None:
    fake_pod.environment["HOME"] = str(fake_pod.home)
    tell = ["--", "/bin/sh", "-c", 'echo "$HOME"']
    assert fake_pod.call("run", *tell)[1] == f"{fake_pod.home}\n"
    given = fake_pod.root / "gpudev/access/home"
    for home, meant in (("/home/dev/me", str(fake_pod.home / "me")), ("/nowhere", "/nowhere"), ("", "")):
        given.write_text(home)
        assert fake_pod.call("run", *tell)[1] == f"{meant}\n"


def test_everything_that_the_shell_has_started_is_asked_to_end_and_may_clean_up(fake_pod: FakePod) -> None:
    program = "trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.05; done"
    # the shell between dies of the signal; what it had started has its time all the same
    process = fake_pod.start("run", "--", "/bin/sh", "-c", f'bash -c "{program}"; echo unreached')
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    said = process.stdout.read()
    assert said.endswith(b"saved\n")
    assert b"unreached" not in said
    assert process.wait(60) == 143


def test_a_line_without_an_end_is_seen_while_it_is_printed_and_the_log_is_as_printed(fake_pod: FakePod) -> None:
    """A runtime hands on what has an end."""
    go = fake_pod.root / "go"
    script = (
        f"printf '\\r10%%'; while [ ! -e {go} ]; do sleep 0.01; done; "
        "printf '\\r99%%\\n'; printf 'a\\037\\n\\036\\nb\\036\\037\\n\\n'; printf '\\037'; sleep 0.5; printf 'end\\037'"
    )
    process = fake_pod.start("run", "--", "/bin/sh", "-c", script)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == b"\r10%\x1f\n"
    go.touch()
    rest, _ = process.communicate(timeout=60)
    printed = b"\r10%\r99%\na\x1f\n\x1e\nb\x1e\x1f\n\n\x1fend\x1f"
    with_times = b"".join(b"2026-01-20T18:30:00Z " + line + b"\n" for line in (first + rest).split(b"\n")[:-1])
    assert LineReader().feed(with_times) == printed
    assert (fake_pod.root / "gpudev/run/command.log").read_bytes() == printed


def test_a_signal_is_passed_to_the_command(fake_pod: FakePod) -> None:
    process = fake_pod.start("run", "--", "/bin/sh", "-c", "trap 'exit 9' TERM; echo here; while :; do sleep 0.1; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 9


def test_an_idle_pod_is_ready_gets_its_server_again_and_ends_when_asked(fake_pod: FakePod) -> None:
    assert fake_pod.call("ready")[0] == 1
    process = fake_pod.start("run")
    fake_pod.wait_until_ready()
    first = sshd_of(process.pid)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not alive(first))  # until then it may still answer
    while fake_pod.call("ready")[0] != 0:
        assert process.poll() is None
    assert sshd_of(process.pid) != first
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def sshd_of(pid: int) -> int:
    """The server that a first process runs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(next(child for child in children if Path(f"/proc/{child}/comm").read_text() == "gpudev sshd\n"))


def test_keys_are_replaced_whole_and_the_first_ones_come_only_once(fake_pod: FakePod) -> None:
    keys = fake_pod.root / "gpudev/etc/authorized_keys"
    fake_pod.call("run", "--", "true")
    assert keys.read_text() == "ssh-ed25519 AAAA first\n"
    text = b"ssh-ed25519 BBBB\n"
    assert fake_pod.call("keys", stdin=b"%d\n%b and what no length covers" % (len(text), text))[0] == 0
    fake_pod.call("run", "--", "true")
    assert keys.read_bytes() == text
    assert keys.stat().st_mode & 0o777 == 0o600
    assert fake_pod.call("keys", stdin=b"100\nssh-ed25519 cut off")[0] != 0
    assert keys.read_bytes() == text


def test_jupyter_that_cannot_start_says_why(fake_pod: FakePod) -> None:
    stdin = b'{"token": "secret"}'
    program = fake_pod.root / "bin/jupyter-lab"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no space left; exit 4\n")
    program.chmod(0o755)
    fake_pod.environment["PATH"] = f"{program.parent}:{fake_pod.environment['PATH']}"
    code, _, err = fake_pod.call("jupyter", "start", stdin=b"%d\n%b" % (len(stdin), stdin))
    assert (code, err) == (1, "JupyterLab ended with exit code 4: no space left\n")
    assert not (fake_pod.root / "gpudev/etc/jupyter.json").exists()
    assert fake_pod.call("jupyter", "stop")[0] == 0


def test_the_users_own_jupyter_settings_do_not_move_or_open_it(fake_pod: FakePod) -> None:
    home = fake_pod.root / "home/dev"
    write_settings_of_a_user(home)
    (home / "marker").touch()
    wanted = b'{"token": "ours-0123456789ab"}'
    started = fake_pod.call("jupyter", "start", stdin=b"%d\n%b" % (len(wanted), wanted))
    assert started[0] == 0, started[2]
    url = f"http://{fake_pod.environment['GPUDEV_POD_IP']}:8888"
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as browser:
        page = browser.get("/lab", params={"token": "ours-0123456789ab"})
        assert (page.status_code, page.url.path) == (200, "/lab")
        assert "marker" in browser.get("/api/contents").text
    for headers in ({}, {"Authorization": f"token {THEIRS}"}):
        assert httpx.get(f"{url}/api/contents", headers=headers, trust_env=False, timeout=60).status_code == 403


def wish(number: int, **token: str) -> bytes:
    frame = json.dumps({**token, "wish": number}).encode()
    return b"%d\n%b" % (len(frame), frame)


def test_jupyter_that_is_starting_makes_way_for_a_later_wish_and_an_earlier_one_that_comes_late_is_void(
    fake_pod: FakePod,
) -> None:
    program = fake_pod.root / "bin/jupyter-lab"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {fake_pod.root}/begun; exec sleep 600\n")
    program.chmod(0o755)
    fake_pod.environment["PATH"] = f"{program.parent}:{fake_pod.environment['PATH']}"
    starting = fake_pod.start("jupyter", "start")
    assert starting.stdin is not None
    starting.stdin.write(wish(1, token="first-token-0123456789"))
    starting.stdin.flush()
    while not (fake_pod.root / "begun").exists():
        assert starting.poll() is None
    assert fake_pod.call("jupyter", "stop", stdin=wish(2)) == (0, "", "")
    assert starting.wait(60) == 1
    late = fake_pod.call("jupyter", "start", stdin=wish(1, token="first-token-0123456789"))
    assert late == (1, "", "Another request came while JupyterLab started\n")
    assert not (fake_pod.root / "gpudev/etc/jupyter.json").exists()


def test_a_listing_goes_to_depth_three_and_counts_everything(tmp_path: Path) -> None:
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    (tmp_path / "a/b/c/d/deep").write_bytes(b"x" * 1000)
    (tmp_path / "a.txt").write_bytes(b"xy")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = list_tree(tmp_path)
    assert [(e["path"], e["type"], e["size_bytes"]) for e in found["entries"]] == [
        ("a", "directory", 1000),
        ("a/b", "directory", 1000),
        ("a/b/c", "directory", 1000),
        ("a.txt", "file", 2),
        ("link", "link", 7),
        ("pipe", "other", 0),
    ]
    assert (found["size_bytes"], found["truncated"]) == (1009, False)


def test_a_listing_is_bounded_and_is_cut_to_what_fits(tmp_path: Path) -> None:
    for number in range(2001):
        (tmp_path / f"{number:04}").write_bytes(b"x")
    found = list_tree(tmp_path)
    assert (len(found["entries"]), found["size_bytes"], found["truncated"]) == (2000, 2001, True)
    text = fitting(found, 4096)
    cut = json.loads(text)
    assert 3500 < len(text) <= 4096
    assert (cut["truncated"], cut["size_bytes"], cut["entries"]) == (
        True,
        2001,
        found["entries"][: len(cut["entries"])],
    )


def test_a_tree_that_is_very_deep_is_listed(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2040):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    found = list_tree(tmp_path)
    assert [entry["path"] for entry in found["entries"]] == ["d", "d/d", "d/d/d"]
    assert found["truncated"]
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
