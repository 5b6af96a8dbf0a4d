"""The pod's SSH server: keys only, for the user `dev`, who is the user that the pod runs as."""

import asyncio
import contextlib
import fcntl
import os
import signal
import termios
from pathlib import Path
from typing import Any

import asyncssh

from deploy.local.cluster.kubelet.execution import Stream, drained
from deploy.local.tools.pod import SSH_PORT, Pod, shell, user_environment, write_private

USER = "dev"
_CHUNK = 65536
_LOOPBACK = "127.0.0.1"
_LOCAL = {_LOOPBACK, "localhost", "::1"}


def serve(pod: Pod, tells: int) -> None:
    """Serve until killed; once it listens, write to the descriptor `tells` and close it."""
    os.umask(0o022)
    asyncio.run(_serve(pod, tells))


async def _serve(pod: Pod, tells: int) -> None:
    server = await asyncssh.listen(
        pod.address,
        SSH_PORT,
        server_factory=lambda: _Server(pod),
        server_host_keys=[_host_key(pod)],
        process_factory=lambda process: _run_session(pod, process),
        sftp_factory=lambda channel: _Files(pod, channel),
        allow_scp=True,
        encoding=None,
        line_editor=False,
        gss_host=None,
        keepalive_interval=30,
    )
    os.write(tells, b"\n")
    os.close(tells)
    await server.wait_closed()


def _host_key(pod: Pod) -> asyncssh.SSHKey:
    """Made once for the pod: it stays over restarts of the container."""
    path = pod.etc / "host_key"
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519")
        write_private(pod.public_host_key, key.export_public_key())
        write_private(path, key.export_private_key())
    return asyncssh.read_private_key(str(path))


class _Server(asyncssh.SSHServer):
    """Decides who may come in, and what is forwarded, for one connection."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        if username == USER and self._connection is not None:
            with contextlib.suppress(OSError, ValueError):  # an empty file opens for nobody
                self._connection.set_authorized_keys(str(self._pod.authorized_keys))
        return True

    async def connection_requested(self, dest_host: str, dest_port: int, *_: object) -> Any:
        """`ssh -L`. What runs in the pod listens on the pod's address or, not knowing it, on this machine's."""
        hosts = (self._pod.address, dest_host) if dest_host in _LOCAL else (dest_host,)
        for host in hosts[:-1]:
            with contextlib.suppress(asyncssh.ChannelOpenError):
                return await self._here.forward_connection(host, dest_port)
        return await self._here.forward_connection(hosts[-1], dest_port)

    async def server_requested(self, listen_host: str, listen_port: int) -> Any:
        """`ssh -R`: for programs in the pod, whatever address is asked for; OSError: the port is another's."""
        return await self._here.forward_local_port(_LOOPBACK, listen_port, listen_host, listen_port)

    @property
    def _here(self) -> asyncssh.SSHServerConnection:
        if self._connection is None:
            raise RuntimeError("there is no connection yet")
        return self._connection


class _Files(asyncssh.SFTPServer):
    """sftp and scp. A path of the pod's mounts means what it means in the pod; any other is this machine's."""

    def __init__(self, pod: Pod, channel: "asyncssh.SSHServerChannel[bytes]") -> None:
        super().__init__(channel)
        self._channel, self._pod = channel, pod

    def exit(self) -> None:
        """The client is through: without an exit code it would take that for a failure."""
        with contextlib.suppress(OSError):  # it has gone, or was told one already
            self._channel.exit(0)

    def reverse_map_path(self, path: bytes) -> bytes:
        real = os.fsdecode(path)
        for place in (*_mounts(self._pod.root), self._pod.root):
            target = os.path.realpath(place)
            if real == target or real.startswith(f"{target}/"):
                return os.fsencode("/" + os.path.relpath(place, self._pod.root) + real[len(target) :])
        return path

    def map_path(self, path: bytes) -> bytes:
        meant = self._pod.mounted(os.fsdecode(path))
        # where a volume is mounted is a folder in the pod, no link
        return os.fsencode(os.path.realpath(meant) if Path(meant) in _mounts(self._pod.root) else meant)


def _mounts(root: Path) -> list[Path]:
    """The links to the pod's volumes, such as /gpudev and /home/dev."""
    entries = [*root.iterdir()]
    below = [entry for folder in entries if folder.is_dir() and not folder.is_symlink() for entry in folder.iterdir()]
    return [entry for entry in (*entries, *below) if entry.is_symlink()]


async def _run_session(pod: Pod, process: "asyncssh.SSHServerProcess[bytes]") -> None:
    program = await _Program.start(pod, process)
    feeding = asyncio.create_task(program.feed())
    pumps = [asyncio.create_task(program.pump(*pair)) for pair in program.outputs]
    ended = asyncio.create_task(program.child.wait())
    closed = asyncio.create_task(process.channel.wait_closed())
    try:
        await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await drained(pumps)
            _tell(process, ended.result())
    finally:
        for task in (feeding, ended, closed, *pumps):
            task.cancel()
        await asyncio.gather(feeding, ended, closed, *pumps, return_exceptions=True)
        program.close()


def _tell(process: "asyncssh.SSHServerProcess[bytes]", code: int) -> None:
    if code >= 0:
        process.exit(code)
    else:
        process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))


class _Program:
    """What a session runs: the shell, or a command in it."""

    def __init__(
        self,
        process: "asyncssh.SSHServerProcess[bytes]",
        child: asyncio.subprocess.Process,
        stdin: Stream,
        outputs: "list[tuple[Stream, asyncssh.SSHWriter[bytes]]]",
        *,
        terminal: bool,
    ) -> None:
        self._process, self.child, self._stdin, self._terminal = process, child, stdin, terminal
        self.outputs = outputs

    @classmethod
    async def start(cls, pod: Pod, process: "asyncssh.SSHServerProcess[bytes]") -> "_Program":
        terminal = process.term_type is not None
        if terminal:
            master, slave = os.openpty()
            ours, theirs = [Stream(master)], [slave, slave, slave]
        else:
            (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
            ours, theirs = [Stream(to_stdin), Stream(from_stdout), Stream(from_stderr)], [stdin, stdout, stderr]
        try:
            child = await asyncio.create_subprocess_exec(
                *([shell()] if process.command is None else [shell(), "-c", process.command]),
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                cwd=pod.home,
                env=_environment(pod, process),
                start_new_session=True,
                preexec_fn=_take_terminal if terminal else None,
            )
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        writers = [process.stdout] if terminal else [process.stdout, process.stderr]
        program = cls(
            process, child, ours[0], list(zip(ours[-len(writers) :], writers, strict=True)), terminal=terminal
        )
        program.resize(*process.term_size)
        return program

    async def feed(self) -> None:
        """Pass on what the client sends, until its end."""
        reader = self._process.stdin
        with contextlib.suppress(asyncssh.ConnectionLost):
            while True:
                try:
                    data = await reader.read(_CHUNK)
                except asyncssh.TerminalSizeChanged as change:
                    self.resize(change.width, change.height)
                except asyncssh.SignalReceived as received:
                    self._signal(f"SIG{received.signal}")
                except asyncssh.BreakReceived:
                    self._signal("SIGINT")
                else:
                    if not data:
                        break
                    await self._stdin.write(data)
        if self._terminal:
            await self._stdin.write(b"\x04")
        else:
            self._stdin.close()

    @staticmethod
    async def pump(source: Stream, writer: "asyncssh.SSHWriter[bytes]") -> None:
        """Pass on what the program says, no faster than the client takes it."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while data := await source.read():
                writer.write(data)
                await writer.drain()

    def resize(self, columns: int, rows: int, *_: int) -> None:
        """Set the terminal's size; 0: unknown."""
        if self._terminal and columns and rows:
            self._stdin.resize(columns, rows)

    def close(self) -> None:
        """Let go; who has a terminal is hung up, others find their pipes closed."""
        for stream in (self._stdin, *(source for source, _ in self.outputs)):
            stream.close()

    def _signal(self, name: str) -> None:
        with contextlib.suppress(KeyError, ProcessLookupError):
            os.killpg(self.child.pid, signal.Signals[name])


def _take_terminal() -> None:
    """In the child: its standard input becomes the terminal that Ctrl-C works on."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _environment(pod: Pod, process: "asyncssh.SSHServerProcess[bytes]") -> dict[str, str]:
    connection: Any = process.channel.get_connection()
    ends = (*connection.get_extra_info("peername")[:2], *connection.get_extra_info("sockname")[:2])
    offered = {name: value for name, value in process.env.items() if name == "LANG" or name.startswith("LC_")}
    terminal = {"TERM": process.term_type} if process.term_type else {}
    agent = process.channel.get_agent_path()
    forwarded = {"SSH_AUTH_SOCK": agent} if agent else {}
    connection_text = " ".join(str(part) for part in ends)
    return {**user_environment(pod), **offered, **terminal, **forwarded, "SSH_CONNECTION": connection_text}
