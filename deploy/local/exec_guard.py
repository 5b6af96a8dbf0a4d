"""Become another program that cannot outlive its parent; run as `python -I -S exec_guard.py ...`.

Arguments: signal number, parent's pid, user id, group id (-1: stay who we are), file descriptor of a listening socket
to hand on as systemd does (-1: none), then the program and its arguments. A separate step before exec, and not
`preexec_fn`, because running Python between fork and exec is unsafe in a process that has threads.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
FIRST_PASSED = 3
"""sd_listen_fds(3)."""


def main() -> None:
    """Drop to the given user, ask the kernel for a signal at the parent's death, exec."""
    number, parent, uid, gid, listener = (int(value) for value in sys.argv[1:6])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it. Elsewhere the leftovers are ended at the next start.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent ended before its child began")
    if listener >= 0:
        if listener != FIRST_PASSED:
            os.dup2(listener, FIRST_PASSED)
            os.close(listener)
        os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execv(sys.argv[6], sys.argv[6:])  # noqa: S606


if __name__ == "__main__":
    main()
