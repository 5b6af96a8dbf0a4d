"""Whether the pod's SSH server answers."""

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence

from deploy.local.tools.pod import SSH_PORT, Pod

_PATIENCE_SECONDS = 2.0  # a start is noticed when it happens, not when the probe comes again
_PAUSE_SECONDS = 0.02
_BANNER = b"SSH-2.0-"


def answers(pod: Pod) -> bool:
    """Whether it sends its banner; a server that starts is waited for."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := answers_now(pod)) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    return found


async def probe(arguments: Sequence[str], environment: Mapping[str, str]) -> bool | None:
    """What `gpudev ready` says in a pod of this environment, without a process for it; None: that is not asked."""
    if list(arguments) != ["ready"]:
        return None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := await _greets(environment["GPUDEV_POD_IP"])) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE_SECONDS)  # another process's: nothing here could set an event
    return found


async def _greets(address: str) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(address, SSH_PORT)
            try:
                return await reader.read(len(_BANNER)) == _BANNER
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return False


def answers_now(pod: Pod) -> bool:
    """Whether it sends its banner now."""
    try:
        with socket.create_connection((pod.address, SSH_PORT), timeout=1) as connection:
            return connection.recv(len(_BANNER)) == _BANNER
    except OSError:
        return False
