"""The folder that keeps keys, jobs and bodies between runs: used by one run at a time, readable by its owner only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Generator
from pathlib import Path

PRIVATE = 0o700
OURS = frozenset({"services", "services.new", "services.old", "s3", "port", "lock", "journal"})


class StateDirFailed(Exception):
    """The folder cannot be used; the message says why."""


@contextlib.contextmanager
def locked(folder: Path) -> Generator[int]:
    """Create `folder` where it is missing and keep other runs out; yields the lock, for the child that writes there.

    Raises: StateDirFailed.
    """
    if folder.exists() and not folder.is_dir():
        raise StateDirFailed(f"STATE_DIR {folder} is not a folder")
    try:
        folder.mkdir(PRIVATE, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateDirFailed(f"STATE_DIR {folder} cannot be used: {error.strerror}") from error
    try:
        _take(lock, folder)
        if {entry.name for entry in folder.iterdir()} <= OURS:
            make_private(folder)
        else:  # somebody else's files are in it: its mode is theirs
            for name in OURS:
                make_private(folder / name)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace")
        raise StateDirFailed(
            f"STATE_DIR {folder} is in use by another run (pid {holder}); end that, or name another folder"
        ) from error
    except OSError as error:
        raise StateDirFailed(f"STATE_DIR {folder} cannot be locked: {error.strerror}") from error
    with contextlib.suppress(OSError):  # a disk without room for a pid
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def make_private(path: Path) -> None:
    """Take every right of others from `path` and, where it is a folder, from all in it; links are not followed."""
    if path.is_symlink() or not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.chmod(mode & ~0o077)
    if path.is_dir():
        for entry in path.iterdir():
            make_private(entry)
