"""SSH into jobs, and what rides on it: copying files, forwarding ports, editors.

OpenSSH does the work; `gpudev proxy` is its way to the job, through the API, and `gpudev host-keys` tells it which keys
the job's server has, so that no first use is trusted.
"""

import asyncio
import hashlib
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from typer.core import TyperCommand

from gpudev import AsyncClient, Client
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import KeyFile, config_folder, open_client
from gpudev.cli.output import print_line, tell
from gpudev.cli.picking import Named, is_called, pick
from gpudev.tunnel import SSH_DONE, SSH_KEY_ENDED, SshEnded, SshTunnel

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".gpudev"
"""Of the host name by which SSH knows a job: what it is called, with this."""
USER = "dev"
HOME = "/home/dev"
_PIECE_BYTES = 512 << 10
_BULK_BYTES = 16 << 10
"""Who sends so much at once sends more: a moment's pause makes one message of many, each of which costs the same."""
_PAUSE_SECONDS = 0.001
_PIPE_BYTES = 1 << 20
"""What Linux lets everybody have, in place of 64 kB."""
_HOST_KEYS_SECONDS = 20.0
"""They are read a moment after the job is active."""
_LOOK_SECONDS = 0.5
_ACTIVE = "active"
_EDITORS = {"vscode": "code", "cursor": "cursor"}
_SOCKET_FOLDER_BYTES = 45
_INCLUDED = "gpudev.conf"
_GIVEN = "GPUDEV_SSH_CONFIG"
"""A configuration of OpenSSH's to take into account, such as where keys are; a local stack has one for its users."""
_PORTS = re.compile(r"(\d{1,5}:)?\d{1,5}")
SSH_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


class SshCommand(TyperCommand):
    """What follows `--` is the command, also where no job is named before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        return super().parse_args(ctx, ["", *args[1:]] if args[:1] == ["--"] else args)


def ssh(
    context: typer.Context,
    job: Named = None,
) -> None:
    """Open a shell in a job, or run a command there: `gpudev ssh JOB nvidia-smi`. Ends as that ends.

    In your only job: `gpudev ssh -- nvidia-smi`.
    """
    with open_client() as client:
        host = ready(client, job or None)
    _become(["ssh", *options(), host, *context.args])


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A path here, or JOB:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Likewise.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Whole folders.")] = False,
) -> None:
    """Copy files to or from a job. JOB:PATH is relative to its home; for much, see `gpudev ssh-config` and rsync.

    In your only job: `gpudev cp model.pt :`.
    """
    with open_client() as client:
        ends = [_end(client, source), _end(client, target)]
    if sum(remote for _, remote in ends) != 1:
        raise CommandError("One of both must be JOB:PATH", step="`gpudev cp model.pt JOB:` or `gpudev cp JOB:out .`.")
    _become(["scp", *(["-r"] if recursive else []), *options(), *(path for path, _ in ends)])


def forward(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[JOB] [HERE:]THERE...",
            help="The job's id, the beginning of it, or its name; may be left out if there is one. Then ports, such as "
            "6006, or 8080:6006.",
        ),
    ],
) -> None:
    """Reach ports of a job on this machine, until interrupted."""
    first, *others = words
    if not others and not _PORTS.fullmatch(first):
        raise CommandError("Which port is not said", step="Such as `gpudev forward JOB 6006`.")
    pairs = [_port_pair(text) for text in others]
    with open_client() as client:
        # a job may be called by a number
        is_port = _PORTS.fullmatch(first) and not (others and first.isdigit() and is_called(client, first))
        if is_port:
            pairs.insert(0, _port_pair(first))
        host = ready(client, None if is_port else first)
    for here, there in pairs:
        tell(f"http://localhost:{here} is port {there} of the job")
    forwards = [part for here, there in pairs for part in ("-L", f"127.0.0.1:{here}:127.0.0.1:{there}")]
    # over a connection that is shared, OpenSSH would open a shell, and forward for as long as that connection lasts
    alone = ("-o", "ControlMaster=no", "-o", "ControlPath=none")
    _become(["ssh", *alone, *options(), "-N", "-o", "ExitOnForwardFailure=yes", *forwards, host])


def ssh_config(
    write: Annotated[bool, typer.Option("--write", help="Into ~/.ssh, in place of printing it.")] = False,
) -> None:
    """What ssh, rsync, git and editors need to know every job as NAME.gpudev."""
    lines = [f"Host *{SUFFIX}", *(f"  {name} {value}" for name, value in _settings())]
    if given := os.environ.get(_GIVEN):
        lines.append(f'  Include "{Path(given).absolute()}"')  # last: what is set first counts
    text = "\n".join([*lines, ""])
    if not write:
        print_line(text.rstrip())
        return
    folder = Path.home() / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / _INCLUDED).write_text(text, encoding="utf-8")
    main = folder / "config"
    before = main.read_text(encoding="utf-8") if main.exists() else ""
    include = f"Include {_INCLUDED}\n"
    if include not in before:
        # first: an Include after a Host block would belong to that block
        main.write_text(include + before, encoding="utf-8")
        main.chmod(0o600)
    print_line(f"Jobs are NAME{SUFFIX} now, for `ssh`, `rsync`, `git` and your editor.")


def open_job(
    job: Named = None,
    editor: Annotated[str, typer.Option("--in", help="vscode or cursor.")] = "vscode",
    folder: Annotated[str, typer.Option(help="In the job.")] = HOME,
) -> None:
    """Open a job in an editor on this machine."""
    if editor not in _EDITORS:
        raise CommandError(f"{editor!r} is not known", step=f"Take one of {', '.join(_EDITORS)}.")
    with open_client() as client:
        host = ready(client, job)
    ssh_config(write=True)
    _become([_EDITORS[editor], "--remote", f"ssh-remote+{host}", folder])


def proxy(host: str) -> None:
    """Carry SSH's bytes between standard input and output and a job (OpenSSH's ProxyCommand)."""
    with open_client() as client:
        job_id = pick(client, host.removesuffix(SUFFIX))
    key = KeyFile(config_folder()).current()
    asyncio.run(_carry(AsyncClient(key.url, key.api_key), job_id))


def host_keys(host: str) -> None:
    """Print the keys of a job's SSH server, as lines of a known_hosts file (OpenSSH's KnownHostsCommand)."""
    deadline = time.monotonic() + _HOST_KEYS_SECONDS
    with open_client() as client:
        job_id = pick(client, host.removesuffix(SUFFIX))
        while not (keys := client.get_job(job_id).ssh_host_keys) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    for key in keys:
        print_line(f"{host} {key}")


def ready(client: Client, named: str | None) -> str:
    """The host name of a job that can be entered.

    Raises:
        CommandError: It cannot, and why.
    """
    job = client.get_job(pick(client, named))
    short = job.job_id[:8]
    if job.status != _ACTIVE:
        why = f": {job.failure_reason or job.status_reason}" if job.ended else ", not active"
        raise CommandError(f"{short} is {job.status}{why}", ExitCode.STATE, f"`gpudev show {short}` tells more.")
    if not job.secondary_users and job.github_user is None and job.access_error:
        raise CommandError(job.access_error, ExitCode.STATE, f"`gpudev users add GITHUB_USER {short}`.")
    return f"{job.job_id}{SUFFIX}"


def _end(client: Client, text: str) -> tuple[str, bool]:
    """A path as scp takes it, and whether it is in a job."""
    named, colon, path = text.partition(":")
    if not colon or "/" in named:
        return text, False
    return f"{ready(client, named or None)}:{path}", True


def _port_pair(text: str) -> tuple[int, int]:
    here, _, there = text.rpartition(":")
    try:
        return int(here or there), int(there)
    except ValueError:
        raise CommandError(f"{text!r} is no port", step="Such as 6006, or 8080:6006.") from None


def _settings() -> list[tuple[str, str]]:
    own = _own_command()
    return [
        ("User", USER),
        ("ProxyCommand", f"{own} proxy %n"),
        ("KnownHostsCommand", f"{own} host-keys %n"),
        ("UserKnownHostsFile", "/dev/null"),
        ("StrictHostKeyChecking", "yes"),
        ("ServerAliveInterval", "15"),
        ("ServerAliveCountMax", "4"),
        *_sharing(),
    ]


def _sharing() -> list[tuple[str, str]]:
    """Sessions of one job share a connection, where a socket can be for it.

    The path of a socket is short: what OpenSSH makes of a folder (%C and a suffix while it is made) has 58 bytes.
    """
    folder = next((one for one in _socket_folders() if len(os.fsencode(one)) <= _SOCKET_FOLDER_BYTES), None)
    if folder is None:
        return []
    return [("ControlMaster", "auto"), ("ControlPath", shlex.quote(f"{folder}/%C")), ("ControlPersist", "60")]


def _socket_folders() -> Iterator[Path]:
    """Folders that are ours alone, and of one configuration: another's may know another job by the same name."""
    own = config_folder()
    which = hashlib.sha256(os.fsencode(own.absolute())).hexdigest()[:8]
    for folder in (own / "ssh", Path(tempfile.gettempdir()) / f"gpudev-{os.getuid()}-{which}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077:
            yield folder


def options() -> list[str]:
    """OpenSSH's, to reach jobs by their host names."""
    given = os.environ.get(_GIVEN)
    settings = [part for name, value in _settings() for part in ("-o", f"{name}={value}")]
    return [*(["-F", given] if given else []), *settings]


def _own_command() -> str:
    """How this program is called, for a shell."""
    given = os.environ.get("GPUDEV_COMMAND")
    found = given or (shutil.which("gpudev") if Path(sys.argv[0]).name == "gpudev" else None)
    return shlex.quote(found) if found else f"{shlex.quote(sys.executable)} -m gpudev"


def _become(command: Sequence[str]) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise CommandError(f"{command[0]} is not installed", step="Install it, and make sure that it is on your PATH.")
    os.execv(program, list(command))  # noqa: S606 - that is what the command is for


async def _carry(client: AsyncClient, job_id: str) -> None:
    reader, writer = await _standard_streams()
    async with client, client.open_ssh(job_id) as tunnel:
        up = asyncio.create_task(_send(reader, tunnel))
        try:
            await _receive(tunnel, writer)
        except SshEnded as ended:
            if ended.code != SSH_DONE:
                raise _end_of(ended) from None
        finally:
            up.cancel()


def _end_of(ended: SshEnded) -> CommandError:
    if ended.again:
        return CommandError(ended.detail, ExitCode.UNREACHABLE, "Connect again.")
    if ended.code == SSH_KEY_ENDED:
        return CommandError(ended.detail, ExitCode.NOT_LOGGED_IN, "Log in again: `gpudev login`.")
    return CommandError(ended.detail, ExitCode.REFUSED, "`gpudev list` shows your jobs.")


async def _send(reader: asyncio.StreamReader, tunnel: SshTunnel) -> None:
    data = b"-"
    while data:
        if len(data) >= _BULK_BYTES:
            await asyncio.sleep(_PAUSE_SECONDS)
        data = await reader.read(_PIECE_BYTES)
        await tunnel.write(data)


async def _receive(tunnel: SshTunnel, writer: asyncio.StreamWriter) -> None:
    """Until the tunnel ends, which says why."""
    while data := await tunnel.read():
        writer.write(data)
        await writer.drain()
    writer.close()
    await tunnel.write(b"")
    while True:
        await tunnel.read()


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    _widen(sys.stdin, sys.stdout)
    reader = asyncio.StreamReader(limit=_PIECE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout.buffer)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _widen(*pipes: IO[str]) -> None:
    """Let pipes hold more, where that can be asked for: fewer turns between OpenSSH and us."""
    with suppress(OSError, AttributeError):  # no pipe, or another system
        for pipe in pipes:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
