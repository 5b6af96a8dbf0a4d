"""Free TCP ports on 127.0.0.1, and whether somebody serves one."""

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

HOST = "127.0.0.1"
# Below the range that kernels give to outgoing connections (32768 up): a client's socket could otherwise take
# a part's port while it restarts, or a client that retries could connect to itself. Also below NodePorts.
_CANDIDATES = range(15_000, 29_999)


_chosen: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now, in no order.

    Until this process ends they are nobody else's, in it or in another process of this user that asks here: it takes
    a stack seconds to listen on what it has chosen.

    Raises:
        OSError: There are not so many.
    """
    chosen: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if port not in _chosen and is_free(port) and claim(port):
            _chosen.add(port)
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise OSError(f"No {count} free TCP ports on {HOST}.")


def claim(port: int) -> bool:
    """Whether no other process has chosen it; then it is ours until it is given up, or this process ends in any way."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def give_up(port: int) -> None:
    """Let other processes choose it."""
    fcntl.lockf(_claims(), fcntl.LOCK_UN, 1, port)


@cache
def _claims() -> int:
    """The file whose bytes are locked. It stays open: closing any descriptor of it would give up every lock."""
    path = Path(tempfile.gettempdir()) / f"gpudev-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def is_free(port: int) -> bool:
    """Whether we could listen on the port."""
    with socket.socket() as probe:
        # As servers do: connections of the port's last owner that linger in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
