"""Connects a remote command's channels with a program that runs in a container."""

import asyncio
import contextlib
from typing import NamedTuple, Protocol

import msgspec

from deploy.local.cluster.kubelet.execution import Execution, Stream, drained
from deploy.local.cluster.machinery.objects import Object

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


class Message(NamedTuple):
    """What a client sent on a channel; no data: the channel's end."""

    channel: int
    data: bytes | None


class Channels(Protocol):
    """One remote command's connection."""

    async def receive(self) -> Message | None:
        """The client's next message; None when it has gone."""

    async def send(self, channel: int, data: bytes) -> None:
        """Sends output."""

    async def finish(self, status: bytes) -> None:
        """Sends the Status and says that nothing more comes."""


async def serve(channels: Channels, execution: Execution) -> None:
    """Until the program ends, which its Status tells, or the client goes, which ends the program."""
    pumps = [asyncio.create_task(_pump(execution.stdout, channels, STDOUT))]
    if execution.stderr is not None:
        pumps.append(asyncio.create_task(_pump(execution.stderr, channels, STDERR)))
    client = asyncio.create_task(_feed(channels, execution))
    end = asyncio.create_task(execution.wait())
    try:
        await asyncio.wait({client, end}, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            await drained(pumps)
            with contextlib.suppress(OSError):
                await channels.finish(msgspec.json.encode(exit_status(end.result())))
    finally:
        tasks = (client, end, *pumps)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        execution.close()


def exit_status(code: int) -> Object:
    """The Status of an ended command."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def start_failure(reason: str) -> Object:
    """The Status of a command that could not be executed."""
    message = (
        "Internal error occurred: error executing command in container: failed to exec in container: failed to start "
        f"exec: OCI runtime exec failed: exec failed: unable to start container process: {reason}: unknown"
    )
    cause = {"message": message.removeprefix("Internal error occurred: ")}
    return {
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": {"causes": [cause]},
        "code": 500,
    }


async def _pump(source: Stream, channels: Channels, channel: int) -> None:
    while data := await source.read():
        await channels.send(channel, data)


async def _feed(channels: Channels, execution: Execution) -> None:
    """Returns when the client has gone."""
    with contextlib.suppress(OSError):
        while (message := await channels.receive()) is not None:
            if message.channel == STDIN and message.data is None:
                await execution.end_input()
            elif message.channel == STDIN and message.data is not None:
                await execution.stdin.write(message.data)
            elif message.channel == RESIZE and message.data and execution.terminal:
                _resize(execution, message.data)


def _resize(execution: Execution, data: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError, ValueError):
        size = msgspec.json.decode(data)
        execution.stdin.resize(int(size["Width"]), int(size["Height"]))
