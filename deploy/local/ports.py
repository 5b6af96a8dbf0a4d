"""Free TCP ports on 127.0.0.1, and whether somebody serves one."""

import random
import socket

HOST = "127.0.0.1"
# Below the range that kernels give to outgoing connections (32768 up): a client's socket could otherwise take
# a part's port while it restarts, or a client that retries could connect to itself. Also below NodePorts.
_CANDIDATES = range(15_000, 29_999)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now, in no order, so that two stacks seldom choose alike."""
    chosen: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise OSError(f"No {count} free TCP ports on {HOST}.")


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
