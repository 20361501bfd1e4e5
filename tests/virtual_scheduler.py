"""Deeds that take time, side by side on one clock: each has a thread, and only the one whose time has come runs."""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.fakes import FakeClock

STUCK_S = 60  # of the wall's clock: a day takes seconds
AT_ONCE = 500  # deeds under way, far more than any test has
Deed = Callable[[], object]


class _Over(BaseException):
    """Ends a deed when another has failed."""


class Turns:
    """What is to be done when. Of deeds at the same millisecond, the one that was asked for first comes first."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._next: list[tuple[int, int, Deed | threading.Semaphore]] = []
        self._order = itertools.count()
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._has_ended = threading.Event()
        self._failed: BaseException | None = None

    def at(self, when_ms: int, deed: Deed) -> None:
        """Do it then, or now where that is past."""
        heapq.heappush(self._next, (when_ms, next(self._order), deed))

    def pause(self, seconds: float) -> None:
        """In a deed: let the others go on until so much time has passed."""
        gate = threading.Semaphore(0)
        heapq.heappush(self._next, (self._clock.now + round(seconds * 1000), next(self._order), gate))
        self._start(self._hand_on())
        if not gate.acquire(timeout=STUCK_S) or self._failed:
            raise _Over

    def run(self) -> None:
        """Until nothing is left to do. Raises: what the first deed that failed has raised."""
        with self._pool:
            self._start(self._hand_on())
            has_ended = self._has_ended.wait(STUCK_S)
        if self._failed:
            raise self._failed
        assert has_ended, "a deed is stuck"

    def _hand_on(self) -> Deed | None:
        """Wake whoever is next; or the deed that is to begin, for whoever has a thread for it."""
        if not self._next:
            self._has_ended.set()
            return None
        when, _, todo = heapq.heappop(self._next)
        self._clock.now = max(self._clock.now, when)
        if not isinstance(todo, threading.Semaphore):
            return todo
        todo.release()
        return None

    def _start(self, deed: Deed | None) -> None:
        if deed:
            self._pool.submit(self._do, deed)

    def _do(self, deed: Deed | None) -> None:
        while deed:
            try:
                if not self._failed:
                    deed()
            except BaseException as error:
                self._failed = self._failed or error
            deed = self._hand_on()
