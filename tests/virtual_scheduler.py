"""Runs concurrent tasks on one virtual clock: each task has a thread, and only the one that is due runs."""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.fakes import FakeClock

STUCK_S = 60  # wall-clock time: a simulated day takes seconds
MAX_THREADS = 500  # concurrent tasks, far more than any test needs
Task = Callable[[], object]


class _Aborted(BaseException):
    """Ends a task after another task failed."""


class VirtualScheduler:
    """A queue of tasks by due time. Tasks due at the same millisecond run in the order of scheduling."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._queue: list[tuple[int, int, Task | threading.Semaphore]] = []
        self._order = itertools.count()
        self._pool = ThreadPoolExecutor(MAX_THREADS)
        self._finished = threading.Event()
        self._failure: BaseException | None = None

    def schedule(self, due_ms: int, task: Task) -> None:
        """Run the task at `due_ms`, or immediately when that is past."""
        heapq.heappush(self._queue, (due_ms, next(self._order), task))

    def sleep(self, seconds: float) -> None:
        """Suspend the current task for `seconds` of virtual time."""
        gate = threading.Semaphore(0)
        heapq.heappush(self._queue, (self._clock.now + round(seconds * 1000), next(self._order), gate))
        self._start(self._advance())
        if not gate.acquire(timeout=STUCK_S) or self._failure:
            raise _Aborted

    def run(self) -> None:
        """Run until no task is left. Raises: the exception of the first failed task."""
        with self._pool:
            self._start(self._advance())
            is_finished = self._finished.wait(STUCK_S)
        if self._failure:
            raise self._failure
        assert is_finished, "a task is stuck"

    def _advance(self) -> Task | None:
        """Advance the clock to the next entry; wake its thread, or return the task to start."""
        if not self._queue:
            self._finished.set()
            return None
        due_ms, _, entry = heapq.heappop(self._queue)
        self._clock.now = max(self._clock.now, due_ms)
        if not isinstance(entry, threading.Semaphore):
            return entry
        entry.release()
        return None

    def _start(self, task: Task | None) -> None:
        if task:
            self._pool.submit(self._run_tasks, task)

    def _run_tasks(self, task: Task | None) -> None:
        while task:
            try:
                if not self._failure:
                    task()
            except BaseException as error:
                self._failure = self._failure or error
            task = self._advance()
