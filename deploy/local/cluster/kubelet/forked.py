"""What a forked process does to become another program: without an exec, which would load all of Python anew."""

import contextlib
import os
import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
_DESCRIPTORS_AT_LEAST = 1024


def reset_signals() -> None:
    """As they are after an exec."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def write_outputs_to(path: bytes) -> None:
    """Standard output and error are appended to a file, standard input is empty."""
    for target, opened in (
        (0, os.open(os.devnull, os.O_RDONLY)),
        (1, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)),
    ):
        os.dup2(opened, target)
        os.close(opened)
    os.dup2(1, 2)


def close_descriptors(first: int = 3) -> None:
    """All from the first on: unless told, all but the three standard ones."""
    os.closerange(first, max(os.sysconf("SC_OPEN_MAX"), _DESCRIPTORS_AT_LEAST))


def set_name(name: str) -> None:
    """What `ps` and `top` call the process, 15 bytes of it. Linux only."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as file:  # noqa: PTH123  no need of pathlib
        file.write(os.fsencode(name)[:15])
