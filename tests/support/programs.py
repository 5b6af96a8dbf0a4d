"""Programs that a test begins and that end with it, whatever becomes of the test."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Any

import pytest

_SECONDS = 90.0


async def outcome(
    *command: str, given: bytes | None = None, seconds: float = _SECONDS, **options: Any
) -> tuple[int, bytes, bytes]:
    """Exit code, output and errors of a program that ends by itself.

    Args:
        command: With its arguments.
        given: To its standard input; None: what `options` say of that.
        seconds: After which the test fails, with what the program has said so far.
        options: Of `asyncio.create_subprocess_exec`; output and errors are pipes if they say nothing of them.
    """
    options = {"stdout": PIPE, "stderr": PIPE, **options}
    if given is not None:
        options["stdin"] = PIPE
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True, **options)
    output, errors = bytearray(), bytearray()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                _write(process.stdin, given), _read(process.stdout, output), _read(process.stderr, errors)
            )
            code = await process.wait()
    except TimeoutError:
        pytest.fail(f"{command} goes on after {seconds} s; it said {output.decode()!r} and {errors.decode()!r}")
    finally:
        await _end(process)
    return code, bytes(output), bytes(errors)


def shown_on(terminal: int) -> str:
    """All that programs have written to a terminal, whose other end is closed; closes it.

    Args:
        terminal: The first of what `os.openpty` gives.
    """
    shown = bytearray()
    with suppress(OSError):  # that is how it says that there is no more
        while piece := os.read(terminal, 1 << 16):  # of 4 kB at most, however much there is
            shown += piece
    os.close(terminal)
    return shown.decode()


async def _write(stream: asyncio.StreamWriter | None, given: bytes | None) -> None:
    if stream is None or given is None:
        return
    with suppress(ConnectionError):  # it has ended without reading to the end
        stream.write(given)
        await stream.drain()
    stream.close()


async def _read(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    while stream is not None and (piece := await stream.read(1 << 16)):
        into += piece


async def _end(process: Process) -> None:
    """With all that it has begun: what a failed test leaves behind would make another one fail."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
