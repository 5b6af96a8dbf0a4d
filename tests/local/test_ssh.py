"""What OpenSSH's clients do with a job's pod of the local stack, as they do with a real one."""

import functools
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.local.github_keys import make_key_pair
from deploy.local.ports import free_ports
from tests.local.test_tools import FakePod
from tests.tools.container import ssh_options

pytestmark = pytest.mark.skipif(shutil.which("scp") is None, reason="no OpenSSH client")


class Job:
    """A pod with an SSH server, whose volumes are links as in the simulator, and the clients' calls."""

    def __init__(self, folder: Path) -> None:
        self.pod = FakePod(folder)
        self.home = folder / "volumes/home"
        self.home.mkdir(parents=True)
        (self.pod.root / "home/dev").rmdir()
        (self.pod.root / "home/dev").symlink_to(self.home)
        self.pod.install()
        make_key_pair(folder, "alice")
        keys = (folder / "alice.keys").read_text()
        (self.pod.root / "gpudev/access/authorized_keys").write_text(keys)
        self.key = folder / "alice"
        self._options = ssh_options(self.key, folder)
        self.target = f"dev@{self.pod.environment['GPUDEV_POD_IP']}"
        self.pod.start("run")
        self.pod.wait_until_ready()

    def client(self, program: str, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        port = "-p" if program == "ssh" else "-P"
        return subprocess.run(
            [program, *self._options, port, "2222", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env={**os.environ, **env},
        )

    def ssh(self, script: str, *options: str, **env: str) -> str:
        done = self.client("ssh", *options, self.target, script, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    # a home of somebody on this machine, whose path begins as the disk's in the pod does
    folder = tmp_path / "home/somebody"
    folder.mkdir(parents=True)
    made = Job(folder)
    yield made
    made.pod.clear()


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_copies_and_says_so(job: Job, tmp_path: Path, protocol: str) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/file").write_bytes(b"x" * 100_000)

    def scp(*arguments: str) -> int:
        return job.client("scp", "-q", protocol, *arguments).returncode

    assert scp("-r", str(tmp_path / "tree"), f"{job.target}:/home/dev/there") == 0
    assert (job.home / "there/below/file").stat().st_size == 100_000
    assert scp(f"{job.target}:/home/dev/there/below/file", str(tmp_path / "back")) == 0
    assert (tmp_path / "back").stat().st_size == 100_000
    assert scp("-r", "-p", f"{job.target}:/home/dev/there", str(tmp_path / "again")) == 0
    assert (tmp_path / "again/below/file").stat().st_size == 100_000
    assert scp("-r", f"{job.target}:/home/dev", str(tmp_path / "all")) == 0
    assert (tmp_path / "all/there/below/file").exists()
    assert scp("-3", f"{job.target}:/home/dev/there/below/file", f"{job.target}:/home/dev/copy") == 0
    assert (job.home / "copy").stat().st_size == 100_000

    assert scp(str(tmp_path / "back"), f"{job.target}:relative") == 0
    assert job.ssh("wc -c < relative").strip() == "100000"
    assert scp(f"{job.target}:/home/dev/none", str(tmp_path / "none")) != 0
    assert scp(str(tmp_path / "back"), f"{job.target}:/home/dev/no/such/folder") != 0


def test_sftp_ends_well_and_speaks_of_the_pods_paths(job: Job, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("content")
    batch = f"cd /home/dev\nput {shlex.quote(str(tmp_path / 'sent'))}\npwd\nls\n"
    done = job.client("sftp", "-q", "-b", "-", job.target, stdin=batch)
    assert done.returncode == 0, done.stderr
    assert "Remote working directory: /home/dev\n" in done.stdout
    assert (job.home / "sent").read_text() == "content"
    assert job.client("sftp", "-q", "-b", "-", job.target, stdin="get /home/dev/none\n").returncode != 0


def test_a_port_of_the_users_machine_is_reached_from_the_job(job: Job, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("from home")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (port,) = free_ports(1)
        get = f"exec 3<>/dev/tcp/localhost/{port}; printf 'GET /page HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        there = ("-o", "ExitOnForwardFailure=yes", "-R", f"{port}:127.0.0.1:{server.server_port}")
        assert job.ssh(get, *there).endswith("from home")
        taken = ("-o", "ExitOnForwardFailure=yes", "-R", f"{server.server_port}:127.0.0.1:{port}")
        assert job.client("ssh", *taken, job.target, "true").returncode == 255
        server.shutdown()


def test_what_listens_in_the_job_is_reached_from_the_users_machine(job: Job) -> None:
    (port,) = free_ports(1)
    forwarded = job.client("ssh", "-W", "localhost:2222", job.target)
    assert forwarded.stdout.startswith("SSH-2.0-"), "the pod's own address is its localhost"
    assert job.client("ssh", "-W", f"localhost:{port}", job.target).returncode == 255


def test_the_users_agent_is_at_hand_in_a_session_that_asks_for_it(job: Job) -> None:
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    env = dict(re.findall(r"(SSH_AUTH_SOCK|SSH_AGENT_PID)=([^;]+);", agent))
    try:
        subprocess.run(["ssh-add", "-q", job.key], env={**os.environ, **env}, check=True)
        listed = subprocess.run(
            ["ssh-add", "-L"], env={**os.environ, **env}, capture_output=True, text=True, check=True
        )
        assert job.ssh("ssh-add -L", "-A", **env) == listed.stdout
        assert job.ssh("echo ${SSH_AUTH_SOCK:-none}", "-a", **env) == "none\n"
    finally:
        subprocess.run(["ssh-agent", "-k"], env={**os.environ, **env}, check=True, capture_output=True)
