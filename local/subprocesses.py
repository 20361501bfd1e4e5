"""Starts child processes that never outlive us, each the head of a process group of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_LEASH = Path(__file__).with_name("die_with_parent.py")
_GONE_S = 10.0  # a killed process is gone at once; this only bounds the wait for the kernel

Child = subprocess.Popen[bytes]


@functools.cache
def _starter() -> ThreadPoolExecutor:
    """One thread starts all children and lives as long as we do: to the kernel, a child's parent is that thread."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


def start(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path, pass_fds: Sequence[int] = ()
) -> Future[Child]:
    """Start `command` with exactly `environment`; its output is appended to `log`. The group's id is its pid.

    Files that it creates are readable by their owner only.
    """
    return _starter().submit(_start, command, environment, folder, log, pass_fds)


def _start(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, pass_fds: Sequence[int]
) -> Child:
    leash = [sys.executable, "-S", "-E", str(_LEASH), str(os.getpid())] if sys.platform == "linux" else []
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(
            [*leash, *command],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            umask=0o077,
            pass_fds=pass_fds,
            start_new_session=True,  # Ctrl-C in the terminal reaches us only; we stop the children in order
        )


def kill(child: Child) -> None:
    """Kill the child's whole group, now. Waiting for its end is the caller's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def stop(child: Child, *, grace_s: float) -> None:
    """Ask the child to end, give it `grace_s`, then kill what is left of its group."""
    if grace_s and child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    kill(child)
    child.wait(_GONE_S)
