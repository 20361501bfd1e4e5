"""Starts child processes that end with this process, each as the leader of its own process group."""

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

_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_EXIT_S = 10.0  # a killed process exits at once; this only limits the wait for the kernel

Child = subprocess.Popen[bytes]


@functools.cache
def _starter() -> ThreadPoolExecutor:
    """One thread starts all children and lives as long as this process: the kernel takes it for their parent."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


def start(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path, pass_fds: Sequence[int] = ()
) -> Future[Child]:
    """Start `command` with exactly `environment` and append its output to `log`. The process group's id is its pid.

    Files that it creates are readable by their owner only.
    """
    return _starter().submit(_start, command, environment, folder, log, pass_fds)


def _start(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, pass_fds: Sequence[int]
) -> Child:
    is_linux = sys.platform == "linux"
    wrapper = [sys.executable, "-S", "-E", str(_DIE_WITH_PARENT), str(os.getpid())] if is_linux else []
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(
            [*wrapper, *command],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            umask=0o077,
            pass_fds=pass_fds,
            start_new_session=True,  # Ctrl-C in the terminal reaches this process only, which stops its children
        )


def kill(child: Child) -> None:
    """Kill the child's process group without waiting for its end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def stop(child: Child, *, grace_s: float) -> None:
    """Send SIGTERM, wait up to `grace_s` seconds, then kill the rest of the child's process group."""
    if grace_s and child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    kill(child)
    child.wait(_EXIT_S)
