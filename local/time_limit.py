"""Runs something when a time limit passes, unless told before that it was met."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

Action = Callable[[], None]


class Limit:
    """One running limit."""

    def __init__(self, action: Action) -> None:
        self._action: Action | None = action

    def met(self) -> None:
        """Nothing will happen any more; lets go of the action at once, which may hold a large event."""
        self._action = None

    def passed(self) -> None:
        if (action := self._action) is not None:
            self._action = None
            action()


class TimeLimits:
    """One thread for all limits: a thread, or a timer, for each call would cost as much as the call."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Limit]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="time limits", daemon=True)
        self._thread.start()

    def after(self, seconds: float, action: Action) -> Limit:
        """Run `action` (quick, not raising) in `seconds` unless the limit is met first."""
        limit = Limit(action)
        entry = (time.monotonic() + seconds, next(self._order), limit)
        with self._changed:
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._changed.notify()
        return limit

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._open:
                    return
                wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                due = heapq.heappop(self._heap)[2]
            due.passed()
