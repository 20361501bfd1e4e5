"""An append-only file of JSON lines: the changes since the last snapshot of a state."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FILE_MODE = 0o600


class Journal:
    """Entries are added in memory and written by `flush`. A failed write leaves the file unchanged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[bytes] = []
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
        with contextlib.suppress(PermissionError):
            os.fchmod(self._fd, FILE_MODE)

    def entries(self, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Iterator[Any]:
        """The written entries in order, without a last line that a crash truncated."""
        with self._path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                try:
                    yield json.loads(line, object_hook=object_hook)
                except ValueError:
                    return

    def add(self, entry: Any, default: Callable[[Any], Any] | None = None) -> None:
        self._pending.append(json.dumps(entry, default=default).encode() + b"\n")

    def flush(self) -> None:
        """Write the added entries. Raises: OSError; the next flush then writes them."""
        if not self._pending:
            return
        size = self.size
        unwritten = memoryview(b"".join(self._pending))
        try:
            while unwritten:
                unwritten = unwritten[os.write(self._fd, unwritten) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            raise
        self._pending.clear()

    def clear(self) -> None:
        """Delete every entry, after a newer snapshot was written."""
        self._pending.clear()
        os.ftruncate(self._fd, 0)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)
