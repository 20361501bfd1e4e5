"""The runtime processes of one function: as many as there are calls at once, up to a cap, one call each.

Calls wait in one line and any free process takes the next, so a burst is served by whoever is ready first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError

from local.invocation import (
    MAX_EVENT_BYTES,
    Answer,
    EventTooLarge,
    FunctionFailed,
    Invocation,
    NoAnswerYet,
)
from local.sandbox import Calls, Sandbox

MAX_PROCESSES = 16  # Lambda's own limit is 1,000 in an account; this keeps a laptop alive

StartSandbox = Callable[[Calls], Sandbox]


class Pool:
    """Takes the calls of one function."""

    def __init__(self, start: StartSandbox, *, max_processes: int = MAX_PROCESSES) -> None:
        self._start = start
        self._max_processes = max_processes
        self._changed = threading.Condition()
        self._waiting: deque[Invocation] = deque()
        self._processes: set[Sandbox] = set()
        self._starting = 0
        self._idle = 0
        self._open = True
        self._last_failure: FunctionFailed | None = None

    def invoke(self, invocation: Invocation, *, patience_s: float | None = None) -> Answer:
        """Run one call. Raises: InvocationFailed; NoAnswerYet after `patience_s`, and the function runs on."""
        if len(invocation.event) > MAX_EVENT_BYTES:
            raise EventTooLarge(
                "RequestEntityTooLargeException",
                f"{len(invocation.event)} byte payload is too large for the RequestResponse invocation type "
                f"(limit {MAX_EVENT_BYTES} bytes)",
            )
        with self._changed:
            if not self._open:
                raise FunctionFailed("ServiceException", "the local cloud is stopping")
            self._waiting.append(invocation)
            self._changed.notify()
            self._grow()
        try:
            return invocation.outcome.result(patience_s)
        except TimeoutError:
            with self._changed:
                if invocation in self._waiting:  # nobody has taken it, and nobody is left to hear the answer
                    self._waiting.remove(invocation)
            raise NoAnswerYet from None
        except CancelledError:
            raise FunctionFailed("ServiceException", "the local cloud is stopping") from None

    def warm(self, *, patience_s: float) -> None:
        """Have one process ready. Raises: InvocationFailed, when it cannot start."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            if not self._processes:
                self._add()
            while not any(process.ready for process in self._processes):
                if not self._processes:
                    raise self._last_failure or FunctionFailed("Runtime.ExitError", "the process ended")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise FunctionFailed("Sandbox.Timedout", f"not started after {patience_s:.0f} s")

    @property
    def size(self) -> int:
        """Processes alive or starting."""
        return len(self._processes)

    def close(self) -> None:
        """Kill every process and fail every call that waits; returns when all are gone."""
        with self._changed:
            self._open = False
            processes = list(self._processes)
            while self._waiting:
                self._waiting.popleft().outcome.cancel()
            self._changed.notify_all()
        for process in processes:
            process.kill()
        for process in processes:
            process.join()

    # What processes ask and say -------------------------------------------------------------------------------------

    def next_for(self, sandbox: Sandbox) -> Invocation | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._waiting and sandbox.alive and self._open:
                    self._changed.wait()
            finally:
                self._idle -= 1
            if not sandbox.alive or not self._open:
                self._changed.notify()  # the wake-up may have been meant for another
                return None
            return self._waiting.popleft()

    def started(self, sandbox: Sandbox) -> None:
        with self._changed:
            self._starting -= 1
            self._changed.notify_all()

    def ended(self, sandbox: Sandbox, failure: FunctionFailed) -> None:
        with self._changed:
            self._processes.discard(sandbox)
            self._last_failure = failure
            if not sandbox.ready:
                self._starting -= 1
                if self._waiting:  # one failed start costs one call, as on Lambda; else a broken handler would loop
                    self._waiting.popleft().failed(failure)
            if self._open:
                self._grow()
            self._changed.notify_all()

    def _grow(self) -> None:
        while len(self._waiting) > self._idle + self._starting and len(self._processes) < self._max_processes:
            self._add()

    def _add(self) -> None:
        self._starting += 1
        self._processes.add(self._start(self))
