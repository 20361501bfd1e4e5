"""Deeds that take time, side by side on one clock: each has a thread, and only the one whose time has come runs."""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tests.fakes import FakeClock

AT_ONCE = 500  # deeds under way, far more than any test has


class _Over(BaseException):
    """Ends a deed whose test has failed elsewhere."""


class Turns:
    """What is to be done when. Of deeds at the same millisecond, the one that was asked for first comes first."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._next: list[tuple[int, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._idle = threading.Semaphore(0)
        self._done: list[Future[None]] = []
        self._is_over = False

    def at(self, when_ms: int, deed: Callable[[], object]) -> None:
        """Do it then, or now where that is past."""

        def whole() -> None:
            try:
                if not self._is_over:
                    deed()
            finally:
                self._idle.release()

        self._put(when_ms, lambda: self._done.append(self._pool.submit(whole)))

    def pause(self, seconds: float) -> None:
        """In a deed: let the others go on until so much time has passed."""
        gate = threading.Semaphore(0)
        self._put(self._clock.now + round(seconds * 1000), gate.release)
        self._idle.release()
        gate.acquire()
        if self._is_over:
            raise _Over

    def run(self) -> None:
        """Until nothing is left to do. Raises: what the first deed that failed raised."""
        with ThreadPoolExecutor(AT_ONCE) as self._pool:
            while self._next:
                when, _, go = heapq.heappop(self._next)
                self._clock.now = max(self._clock.now, when)
                go()
                self._idle.acquire()
                self._is_over = self._is_over or self._has_failed()
        for deed in self._done:
            if not isinstance(deed.exception(), _Over):
                deed.result()

    def _has_failed(self) -> bool:
        failed = any(deed.done() and deed.exception() for deed in self._done)
        if not failed:
            self._done = [deed for deed in self._done if not deed.done()]
        return failed

    def _put(self, when_ms: int, go: Callable[[], object]) -> None:
        heapq.heappush(self._next, (when_ms, next(self._order), go))
