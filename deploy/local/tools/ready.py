"""Whether the pod's SSH server answers."""

import socket
import time

from deploy.local.tools.pod import SSH_PORT, Pod

_PATIENCE_SECONDS = 2.0  # a start is noticed when it happens, not when the probe comes again
_BANNER = b"SSH-2.0-"


def answers(pod: Pod) -> bool:
    """Whether it sends its banner; a server that starts is waited for."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := answers_now(pod)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def answers_now(pod: Pod) -> bool:
    """Whether it sends its banner now."""
    try:
        with socket.create_connection((pod.address, SSH_PORT), timeout=1) as connection:
            return connection.recv(len(_BANNER)) == _BANNER
    except OSError:
        return False
