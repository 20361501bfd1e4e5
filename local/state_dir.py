"""The folder that keeps keys, jobs and bodies between runs: locked by one run at a time, readable by its owner only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Generator
from pathlib import Path

PRIVATE = 0o700
STATE_FILES = frozenset({"services", "services.new", "services.old", "s3", "port", "lock", "journal"})


class StateDirFailed(Exception):
    """The folder cannot be used; the message contains the cause."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Generator[int]:
    """Create `folder` if it is missing and lock it; yields the lock's file descriptor, for the child that writes there.

    Raises: StateDirFailed.
    """
    if folder.exists() and not folder.is_dir():
        raise StateDirFailed(f"STATE_DIR {folder} is not a folder")
    try:
        folder.mkdir(PRIVATE, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateDirFailed(f"Cannot use STATE_DIR {folder}: {error.strerror}") from error
    try:
        _acquire(lock, folder)
        if {entry.name for entry in folder.iterdir()} <= STATE_FILES:
            make_private(folder)
        else:  # the folder contains other files: its own mode stays unchanged
            for name in STATE_FILES:
                make_private(folder / name)
        yield lock
    finally:
        os.close(lock)


def _acquire(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace")
        raise StateDirFailed(
            f"STATE_DIR {folder} is in use by another run (pid {holder}); stop that run, or set another folder"
        ) from error
    except OSError as error:
        raise StateDirFailed(f"Cannot lock STATE_DIR {folder}: {error.strerror}") from error
    with contextlib.suppress(OSError):  # the disk may be full
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def make_private(path: Path) -> None:
    """Remove all permissions of group and others from `path`, recursively; symbolic links are not followed."""
    if path.is_symlink() or not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.chmod(mode & ~0o077)
    if path.is_dir():
        for entry in path.iterdir():
            make_private(entry)
