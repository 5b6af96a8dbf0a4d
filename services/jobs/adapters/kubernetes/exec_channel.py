"""Running a program in a container over the API server's WebSocket, subprotocol v4.channel.k8s.io.

https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go
says: each message begins with a byte for its channel: 0 standard input, 1 output, 2 error, 3 the outcome as a Status.
Standard input cannot be closed, so the programs that are run here are told its length on its first line.
"""

import re
from typing import Any

import aiohttp
import msgspec

from shared.untrusted import decode_untrusted

PROTOCOL = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _OUTCOME = range(4)
_KEPT_BYTES = 1 << 20
_CHUNK = 16 * 1024
_EXIT_CODE = re.compile(r"[0-9]{1,3}", re.ASCII)


class ExecResult(msgspec.Struct, frozen=True):
    exit_code: int
    stdout: bytes
    """Its first MiB."""
    stderr: bytes
    """Its first MiB."""

    def last_error_line(self, *, secret: str = "") -> str:
        """The last line on standard error without the secret, cut to 300 characters; empty when there is none."""
        lines = self.stderr.decode(errors="replace").split("\n")
        printable = ("".join(c if c.isprintable() else " " for c in line).strip() for line in reversed(lines))
        words = next(filter(None, printable), "")
        # before the cut, which could leave a part of it
        return (words.replace(secret, "…") if secret else words)[:300]


class NotRun(Exception):
    """The program could not be run; the text is the cluster's."""


class Broken(Exception):
    """The connection ended before the program did: nobody knows how that went."""


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: list[_Cause] = []


class _Outcome(msgspec.Struct, frozen=True):
    status: str = ""
    reason: str = ""
    message: str = ""
    details: _Details | None = None


def framed(data: bytes) -> bytes:
    """Standard input with its length before it."""
    return b"%d\n" % len(data) + data


async def converse(socket: aiohttp.ClientWebSocketResponse, stdin: bytes | None) -> ExecResult:
    """Send the input, take the output, wait for the outcome.

    Args:
        socket: Just opened.
        stdin: Sent with its length before it; None: the program takes no input.

    Raises:
        NotRun: The outcome is that the program could not be run.
        Broken: There is none.
    """
    if stdin is not None:
        await _send(socket, framed(stdin))
    output = {_STDOUT: bytearray(), _STDERR: bytearray(), _OUTCOME: bytearray()}
    async for message in socket:
        channel, data = _read(message)
        if channel in output:
            kept = output[channel]
            kept += data[: max(0, _KEPT_BYTES - len(kept))]
        if channel == _OUTCOME and data:
            break
    if not output[_OUTCOME]:
        raise Broken
    return ExecResult(_exit_code(bytes(output[_OUTCOME])), bytes(output[_STDOUT]), bytes(output[_STDERR]))


async def _send(socket: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
    for start in range(0, len(data), _CHUNK):
        await socket.send_bytes(bytes([_STDIN]) + data[start : start + _CHUNK])


def _read(message: Any) -> tuple[int, bytes]:
    data = message.data
    if message.type is aiohttp.WSMsgType.TEXT:
        data = data.encode()
    if message.type not in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY} or not data:
        return -1, b""
    return data[0], data[1:]


def _exit_code(raw: bytes) -> int:
    outcome = decode_untrusted(raw, _Outcome, max_bytes=_KEPT_BYTES)
    if outcome is None:
        raise NotRun("the outcome cannot be read")
    if outcome.status == "Success":
        return 0
    causes = outcome.details.causes if outcome.details else []
    codes = [cause.message for cause in causes if cause.reason == "ExitCode"]
    if outcome.reason != "NonZeroExitCode" or not codes or not _EXIT_CODE.fullmatch(codes[0]):
        raise NotRun(outcome.message[:300])
    return int(codes[0])
