"""What a user pastes into a shell: with OpenSSH's client where there is one, else with asyncssh."""

import asyncio
import re
import shlex
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

import asyncssh

from tests.support.programs import outcome


class Session(NamedTuple):
    """How a command over SSH ended."""

    code: int
    """255 when the connection was refused."""
    output: str


class Typed:
    """A script as it is typed into a shell with a terminal, which repeats it and prompts around it."""

    def __init__(self, script: str) -> None:
        self._begin, self._end = uuid.uuid4().hex, uuid.uuid4().hex
        # in two parts each, so that the terminal's echo is not taken for them
        begin, end = (f"printf '%s%s\\n' {mark[:9]} {mark[9:]}" for mark in (self._begin, self._end))
        self.line = f"{begin}; {script}; {end}"

    def is_done(self, seen: str) -> bool:
        """Whether the script has ended, by what the terminal shows."""
        return self._end in seen

    def printed(self, seen: str) -> str:
        """What the script has printed."""
        return seen.partition(self._begin)[2].partition(self._end)[0].replace("\r\n", "\n").strip("\n")


async def type_in(ssh_command: str, script: str) -> str:
    """Open a session with a terminal by OpenSSH's client and type a script; what it prints."""
    typed = Typed(script)
    command = ssh_command.replace("ssh ", "ssh -tt -o ConnectTimeout=30 ", 1)
    _, output, _ = await outcome("bash", "-c", command, given=f"{typed.line}\nexit\n".encode(), stderr=None)
    assert typed.is_done(output.decode()), output.decode()
    return typed.printed(output.decode())


async def paste(ssh_command: str, script: str, *, key: Path | None = None) -> Session:
    """Run a script in a job.

    Args:
        ssh_command: As the API gives it.
        script: For the shell at the other end.
        key: The only private key to use; None: those of the stack's configuration.
    """
    if shutil.which("ssh"):
        return await _paste_into_shell(ssh_command, script, key)
    return await _paste_into_asyncssh(shlex.split(ssh_command), script, key)


async def _paste_into_shell(ssh_command: str, script: str, key: Path | None) -> Session:
    only = f"-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {key}"
    command = ssh_command if key is None else re.sub(r"-F \S+", lambda _: only, ssh_command)
    # a handshake that stalls ends as one that was refused does
    text = f"{command.replace('ssh ', 'ssh -o ConnectTimeout=30 ', 1)} {shlex.quote(script)}"
    code, output, _ = await outcome("bash", "-c", text, stdin=asyncio.subprocess.DEVNULL, stderr=None)
    return Session(code, output.decode())


async def _paste_into_asyncssh(words: list[str], script: str, key: Path | None) -> Session:
    user, _, host = words[-1].partition("@")
    port = int(words[words.index("-p") + 1])
    how = {"config": [words[words.index("-F") + 1]]} if key is None else {"client_keys": [str(key)], "config": None}
    try:
        async with asyncssh.connect(host, port, username=user, known_hosts=None, **how) as connection:
            done = await connection.run(script)
    except asyncssh.PermissionDenied:
        return Session(255, "")
    return Session(done.exit_status or 0, str(done.stdout))
