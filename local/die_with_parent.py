"""Runs a command that the kernel kills when its parent ends, for any reason (Linux).

Started as a file, not as preexec_fn: Python code between fork and exec may deadlock in a program with threads.
Usage: python die_with_parent.py PARENT_PID COMMAND...
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # the parent ended before the call above
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
