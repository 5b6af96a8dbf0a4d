"""Starts the containers' shims by fork, from a process that has loaded what they run, so that each costs milliseconds.

That process is `python -m deploy.local.cluster.kubelet.launcher DESCRIPTOR FILE=MODULE…`. It reads directories of
container instances from the socket, each ended by NUL, and answers with the shim's pid on a line; it ends when the
socket does, and what it has started lives on. It has an environment of its own, an empty one, as shims always had.
"""

import asyncio
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from deploy.local.cluster.kubelet import shim
from deploy.local.cluster.kubelet.forked import set_name, write_outputs_to

_ROOT = Path(__file__).parents[4]
_CHUNK = 65536


class Launcher:
    """The simulator's end of it.

    Args:
        programs: Modules by the file that a container executes: a copy of the file is not executed, but the module's
            `main` called with the arguments, in a fork of the process that has loaded it. It answers the exit code.
    """

    def __init__(self, programs: Mapping[Path, str]) -> None:
        self._programs = [f"{file}={module}" for file, module in programs.items()]
        self._lock = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self) -> None:
        """Starts the process, which loads while this one goes on."""
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", __name__, str(theirs.fileno()), *self._programs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={},
                cwd=_ROOT,
            )
        self._channel = ours

    async def spawn(self, directory: Path) -> int:
        """Starts a shim for a container instance; its pid. A process that has died is started anew."""
        async with self._lock:
            while True:
                if self._channel is None:
                    self.start()
                pid = await self._ask(directory)
                if pid:
                    return pid
                self.close()
                await asyncio.sleep(0.1)  # it cannot be started at all: not in a tight loop

    def close(self) -> None:
        """Ends the process; shims live on."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._channel = self._process = None

    async def _ask(self, directory: Path) -> int:
        """The pid; 0: the process is gone. It may have started the shim all the same: shims settle that themselves."""
        loop, channel = asyncio.get_running_loop(), self._channel
        if channel is None:
            return 0
        answer = b""
        try:
            await loop.sock_sendall(channel, os.fsencode(directory) + b"\0")
            while not answer.endswith(b"\n"):
                data = await loop.sock_recv(channel, _CHUNK)
                if not data:
                    return 0
                answer += data
        except asyncio.CancelledError:
            self.close()  # its answer would be taken for the next one's
            raise
        except OSError:
            return 0
        return int(answer)


def serve(channel: socket.socket) -> None:
    """Forks a shim for each request, until there is nobody who asks."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leaves no zombies
    waiting = b""
    while data := channel.recv(_CHUNK):
        *directories, waiting = (waiting + data).split(b"\0")
        for directory in directories:
            pid = os.fork()
            if pid == 0:
                channel.close()
                _become_shim(directory)
            channel.sendall(b"%d\n" % pid)


def _become_shim(directory: bytes) -> None:
    """Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        write_outputs_to(directory + b"/shim.log")
        set_name("shim")
        shim.main(directory)
    except BaseException:  # noqa: BLE001  nothing may go on as the launcher
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(descriptor: str, programs: list[str]) -> None:
    """Loads the programs and serves."""
    set_name("launcher")
    for file, _, module in (program.rpartition("=") for program in programs):
        shim.PROGRAMS[Path(file).read_bytes()] = importlib.import_module(module).main
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all that it shares with the others
    with socket.socket(fileno=int(descriptor)) as channel:
        serve(channel)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
