"""Become another program that cannot outlive its parent; run as `python -I -S exec_guard.py ...`.

Arguments: signal number, parent's pid, user id, group id (-1: stay who we are), then the program and its
arguments. A separate step before exec, and not `preexec_fn`, because running Python between fork and exec is
unsafe in a process that has threads.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drop to the given user, ask the kernel for a signal at the parent's death, exec."""
    number, parent, uid, gid = (int(value) for value in sys.argv[1:5])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it. Elsewhere the leftovers are ended at the next start.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent ended before its child began")
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606


if __name__ == "__main__":
    main()
