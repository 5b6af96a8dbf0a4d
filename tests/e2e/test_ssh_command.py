"""What people do over SSH, with OpenSSH's own programs and the command line as its way to the job."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from deploy.local.ports import free_ports
from tests.support.programs import outcome
from tests.support.promises import promised
from tests.support.stack import ApiUser, LocalStack, until, users

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed"),
]
MIB = 1 << 20
NAME = "work"
HOST = f"{NAME}.gpudev"


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    output: str
    errors: str


class Desk:
    """A user's own machine: a home of its own, the command line in it, and a job of the name `work`.

    Args:
        stack: Of the job.
        home: An empty folder.
        job_id: Of the job.
    """

    def __init__(self, stack: LocalStack, home: Path, job_id: str) -> None:
        self.home = home
        self.job_id = job_id
        self.gpudev = str(stack.state.command)
        self.config = home / ".ssh" / "all"
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "GPUDEV_CONFIG_DIR": str(home / "gpudev"),
            "GIT_SSH_COMMAND": f"ssh -F {self.config}",
        }

    async def run(self, *command: str, stdin: int = DEVNULL, seconds: float = 90) -> Ended:
        """Run a program; for ssh and its kin with the user's configuration."""
        program, *arguments = command
        if program in {"ssh", "scp", "sftp"}:
            arguments = ["-F", str(self.config), *arguments]
        options = {"env": self.environment, "stdin": stdin, "cwd": self.home}
        code, output, errors = await outcome(program, *arguments, seconds=seconds, **options)
        return Ended(code, output.decode(), errors.decode())


@asynccontextmanager
async def desk_of(stack: LocalStack, demo: ApiUser, home: Path, *, hours: float = 0.1) -> AsyncIterator[Desk]:
    job_id = await demo.submit(gpu_count=1, github_user=demo.name, name=NAME, duration_hours=hours)
    desk = Desk(stack, home, job_id)
    (home / ".ssh").mkdir(mode=0o700)
    try:
        await demo.wait(job_id, "active")
        logged_in = await desk.run(desk.gpudev, "login")
        assert logged_in.code == 0, logged_in
        block = await desk.run(desk.gpudev, "ssh-config")
        desk.config.write_text(block.output)
        yield desk
    finally:
        if (home / "gpudev").exists():
            await desk.run("ssh", "-O", "exit", HOST)
        await demo.client.post(f"/v1/jobs/{job_id}/cancel", headers={"Prefer": "wait=30"})


async def test_the_programs_of_openssh_and_git_know_a_job_by_its_name(stack: LocalStack, tmp_path: Path) -> None:
    sent = os.urandom(4 * MIB)
    (tmp_path / "sent").write_bytes(sent)
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk:
        told = await desk.run("ssh", "-o", "BatchMode=yes", HOST, "uname; exit 3")
        assert (told.code, told.output) == (3, "Linux\n"), told
        copied = await desk.run("scp", "sent", f"{HOST}:data")
        assert copied.code == 0, copied
        (tmp_path / "batch").write_text("get data back\n")
        fetched = await desk.run("sftp", "-b", "batch", HOST)
        assert fetched.code == 0, fetched
        assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == hashlib.sha256(sent).digest()
        made = await desk.run(
            "ssh",
            HOST,
            "git init -q repo && cd repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first",
        )
        assert made.code == 0, made
        cloned = await desk.run("git", "clone", "-q", f"dev@{HOST}:repo", "clone")
        assert cloned.code == 0, cloned
        checked = await desk.run("ssh", "-O", "check", HOST)
        assert "Master running" in checked.errors, "the sessions share one connection"
        again = await desk.run(desk.gpudev, "ssh", NAME, "echo", "again")
        assert (again.code, again.output) == (0, "again\n"), again
        given = await desk.run(desk.gpudev, "cp", "sent", f"{NAME}:second")
        assert given.code == 0, given
        if shutil.which("rsync"):
            synced = await desk.run("rsync", "-e", f"ssh -F {desk.config}", "sent", f"{HOST}:data")
            assert synced.code == 0, synced


async def test_a_web_server_in_the_job_is_reached_on_a_port_here(stack: LocalStack, tmp_path: Path) -> None:
    (here,) = free_ports(1)
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk:
        (there,) = free_ports(1)
        serving = await asyncio.create_subprocess_exec(
            "ssh",
            "-F",
            str(desk.config),
            HOST,
            f"echo of the job > page; exec python3 -m http.server {there} --bind 127.0.0.1",
            env=desk.environment,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        forwarding = await asyncio.create_subprocess_exec(
            desk.gpudev, "forward", NAME, f"{here}:{there}", env=desk.environment, stdin=DEVNULL, stderr=DEVNULL
        )
        try:

            async def page() -> str | None:
                try:
                    async with httpx.AsyncClient(trust_env=False) as client:
                        return (await client.get(f"http://127.0.0.1:{here}/page")).text
                except httpx.HTTPError:
                    return None

            assert await until(page, "the page of the job", seconds=60) == "of the job\n"
            assert (await desk.run("ssh", "-O", "exit", HOST)).code == 0, "the sessions' shared connection ends"
            assert (await desk.run("ssh", HOST, "true")).code == 0
            assert forwarding.returncode is None, "forwarding goes on until it is interrupted"
        finally:
            for process in (forwarding, serving):
                if process.returncode is None:
                    process.terminate()
                await process.wait()


# what VS Code's Remote-SSH extension sends to a shell, in short: it asks what system it is, starts a server that lives
# on by itself, and reads where that listens; then the connection stays, and carries all that the editor says
EDITORS_SCRIPT = """
echo "mark: running"
uname -rsv
folder="$HOME/.vscode-server/bin/0123abcd"
mkdir -p "$folder"
cd "$folder"
echo "of the server" > page
cat > server.py << 'END'
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer, test
ThreadingHTTPServer.request_queue_size = 128  # at the usual 5 the kernel lets connections that come together wait
test(SimpleHTTPRequestHandler, ThreadingHTTPServer, port=0, bind="127.0.0.1")
END
nohup python3 -u server.py < /dev/null > log 2>&1 &
echo $! > pid
until grep -q "port [0-9]" log; do sleep 0.1; done
echo "listeningOn==$(sed -n 's/.* port \\([0-9]*\\) .*/\\1/p' log)=="
echo "mark: end"
"""


async def fetch_by_socks(proxy: int, port: int) -> bytes:
    """The page of a server on a port of the job, through a proxy here (RFC 1928)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
    try:
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x01\x00\x01" + bytes([127, 0, 0, 1]) + port.to_bytes(2, "big"))
        assert (await reader.readexactly(10))[:2] == b"\x05\x00"
        writer.write(b"GET /page HTTP/1.0\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("shared", [False, True], ids=["first", "beside-another-session"])
async def test_an_editor_installs_its_server_and_speaks_with_it(
    stack: LocalStack, tmp_path: Path, *, shared: bool
) -> None:
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk:
        if shared:
            assert (await desk.run("ssh", HOST, "true")).code == 0
        (proxy,) = free_ports(1)
        command = ("ssh", "-F", str(desk.config), "-T", "-o", "ConnectTimeout=15")
        editor = await asyncio.create_subprocess_exec(
            *command, "-D", str(proxy), HOST, "bash", env=desk.environment, stdin=PIPE, stdout=PIPE
        )
        assert editor.stdin is not None
        assert editor.stdout is not None
        try:
            editor.stdin.write(EDITORS_SCRIPT.encode())
            told = (await asyncio.wait_for(editor.stdout.readuntil(b"mark: end\n"), 60)).decode().splitlines()
            assert (told[0], told[1].split()[0]) == ("mark: running", "Linux")
            port = int(told[-2].split("==")[1])
            assert (await fetch_by_socks(proxy, port)).endswith(b"of the server\n")

            (tmp_path / "asked").write_text("uname -rsv; exit 3\n")
            with (tmp_path / "asked").open("rb") as asked:
                again = await desk.run(*command[:1], *command[3:], HOST, "bash", stdin=asked.fileno())
            assert (again.code, again.output.split()[0]) == (3, "Linux"), again
            # a hundred at once, as an editor's windows and extensions open them
            pages = await asyncio.gather(*(fetch_by_socks(proxy, port) for _ in range(100)))
            assert all(page.endswith(b"of the server\n") for page in pages)
            editor.stdin.write(b'kill "$(cat pid)"; exit 4\n')
            assert await asyncio.wait_for(editor.wait(), 60) == 4
        finally:
            if editor.returncode is None:
                editor.kill()
                await editor.wait()


async def has_host_keys(user: ApiUser, job_id: str) -> bool:
    return bool((await user.job(job_id))["ssh_host_keys"])


async def test_a_server_with_another_key_is_refused_with_the_reason(stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk:
        others = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
        # they are stored once, shortly after the job is active
        await until(lambda: has_host_keys(demo, desk.job_id), "its own keys are known")
        await stack.execute(
            "jobs",
            "UPDATE job_access SET ssh_host_keys = to_jsonb($2::text[]) WHERE job_id = $1",
            desk.job_id,
            [others],
        )
        # every change of a job has a revision of its own: what is shown of one is kept
        await stack.execute("jobs", "UPDATE jobs SET revision = revision + 1 WHERE id = $1", desk.job_id)
        refused = await desk.run("ssh", "-o", "BatchMode=yes", "-o", "ControlPath=none", HOST, "true")
    assert refused.code == 255
    assert (
        "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.errors or "Host key verification failed" in refused.errors
    )


async def test_what_is_in_the_way_is_told_in_one_line(stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, "demo", "bob") as (demo, bob), desk_of(stack, demo, tmp_path) as desk:

        async def told(host: str) -> str:
            ended = await desk.run("ssh", "-o", "BatchMode=yes", "-o", "ControlPath=none", host, "true")
            assert ended.code == 255, ended
            assert "Traceback" not in ended.errors
            return ended.errors

        others = await bob.submit(gpu_count=1, github_user=bob.name)
        await bob.wait(others, "active")
        assert "gpudev list" in await told(f"{others}.gpudev")
        await bob.client.post(f"/v1/jobs/{others}/cancel", headers={"Prefer": "wait=30"})
        await demo.client.post(f"/v1/jobs/{desk.job_id}/cancel?reason=enough", headers={"Prefer": "wait=30"})
        await demo.wait(desk.job_id, "cancelled")
        assert "cancelled" in await told(f"{desk.job_id}.gpudev")
        logged_out = await desk.run(desk.gpudev, "logout")
        assert logged_out.code == 0, logged_out
        assert "gpudev login" in await told(f"{desk.job_id}.gpudev")


async def test_a_key_that_is_revoked_ends_the_session_with_a_line_that_says_so(
    stack: LocalStack, tmp_path: Path
) -> None:
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk:
        session = await asyncio.create_subprocess_exec(
            *("ssh", "-F", str(desk.config), "-o", "ControlPath=none", HOST, "echo here; sleep 100"),
            env=desk.environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        assert session.stdout is not None
        assert await asyncio.wait_for(session.stdout.readline(), 60) == b"here\n"
        key = json.loads((tmp_path / "gpudev" / "key.json").read_text())["key_prefix"]
        assert (await demo.client.delete(f"/v1/keys/{key}")).status_code == 200
        with promised(5):
            _, told = await asyncio.wait_for(session.communicate(), 60)
    assert session.returncode == 255
    lines = told.decode().splitlines()
    assert [line for line in lines if line.startswith("gpudev: Your API key: it was revoked")], lines
    assert [line for line in lines if "gpudev login" in line], lines


async def test_who_connects_while_a_session_is_frozen_is_not_cut_off(stack: LocalStack, tmp_path: Path) -> None:
    """A job that takes nothing holds up its sender, which is no reason to end the session."""
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk:
        (tmp_path / "zeros").write_bytes(bytes(64 * MIB))
        with (tmp_path / "zeros").open("rb") as source:
            # longer than a WebSocket's keep-alive waits
            ended = await desk.run("ssh", HOST, "sleep 45; wc -c", stdin=source.fileno(), seconds=120)
    assert (ended.code, ended.output.strip()) == (0, str(64 * MIB)), ended


@asynccontextmanager
async def gigabyte(folder: Path) -> AsyncIterator[tuple[Path, str]]:
    """A file of a gigabyte that no compression makes smaller, and its SHA-256."""
    path, digest = folder / "gigabyte", hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(64):
            piece = os.urandom(16 * MIB)
            digest.update(piece)
            file.write(piece)
    yield path, digest.hexdigest()
    path.unlink()


@asynccontextmanager
async def program(desk: Desk, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program at the desk, whose output and errors are pipes."""
    process = await asyncio.create_subprocess_exec(
        *command, env=desk.environment, cwd=desk.home, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def healthy(user: ApiUser) -> bool:
    return (await user.client.get("/health")).status_code == 200


async def size_there(desk: Desk, pattern: str) -> int:
    told = await desk.run("ssh", HOST, f"cat {pattern} 2>/dev/null | wc -c")
    return int(told.output or 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_rsync_of_a_gigabyte_over_a_replica_that_stops_and_one_that_is_killed(
    stack: LocalStack, tmp_path: Path
) -> None:
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path) as desk, gigabyte(tmp_path) as one:
        path, digest = one
        # a connection of its own, so that who looks on another is not cut with it
        rsync = ["rsync", "--partial", "--inplace", "-e", f"ssh -F {desk.config} -o ControlPath=none", str(path)]
        checked = f"cd there && sha256sum {path.name}"

        async def some_is_there() -> bool:
            return await size_there(desk, f"there/{path.name}") > 50 * MIB

        for number in (signal.SIGTERM, signal.SIGKILL):
            await desk.run("ssh", HOST, "rm -rf there; mkdir there")
            async with program(desk, *rsync, f"{HOST}:there/") as syncing:
                await until(some_is_there, "a part of it there", seconds=60)
                assert syncing.returncode is None
                os.kill(stack.parts()["jobs-1"].pid, number)
                _, told = await asyncio.wait_for(syncing.communicate(), 240)
            if number == signal.SIGTERM:
                assert syncing.returncode == 0, told.decode()
            else:
                assert syncing.returncode != 0
                assert "gpudev: The connection to GPU Dev broke" in told.decode(), told.decode()
                assert "Connect again" in told.decode()
                again = await desk.run(*rsync, f"{HOST}:there/", seconds=240)
                assert again.code == 0, again
            assert (await desk.run("ssh", HOST, checked)).output.split()[:1] == [digest]
            # the replica that stops waits for the sessions that share this connection
            await desk.run("ssh", "-O", "exit", HOST)
            await until(lambda: healthy(demo), "the next replica", seconds=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_session_that_is_idle_for_ten_minutes_is_there_still(stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, "demo") as (demo,), desk_of(stack, demo, tmp_path, hours=0.5) as desk:
        # SSH itself says nothing meanwhile
        quiet = ["-o", "ServerAliveInterval=0", "-o", "ControlPath=none"]
        ended = await desk.run("ssh", *quiet, HOST, "echo begun; sleep 600; echo here still; exit 5", seconds=700)
    assert (ended.code, ended.output) == (5, "begun\nhere still\n"), ended
