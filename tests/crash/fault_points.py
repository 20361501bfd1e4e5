"""Faults at a call to a dependency: the process dies, the call fails, or another process acts just before it."""

from collections.abc import Callable
from typing import Any


class ProcessDied(BaseException):
    """The process is gone; `except Exception` does not catch it."""


class InvariantViolated(BaseException):
    """An invariant does not hold; a handler cannot catch it."""


def check_invariant(holds: bool, message: str) -> None:
    """Raises: InvariantViolated, when the invariant does not hold."""
    if not holds:
        raise InvariantViolated(message)


class FaultPoints:
    """Counts the calls of a process and injects a fault at the configured one."""

    def __init__(self) -> None:
        self.broken: set[str] = set()  # calls of these names fail in every process
        self.failures: dict[str, int] = {}  # how many of the next calls of these names fail, in any process
        self.begin()

    def begin(self, at: int | None = None, *, after: bool = False, dies: bool = True) -> None:
        """Start a process: before or after its call number `at`, it dies or the call raises a TimeoutError."""
        self.calls = 0
        self.names: list[str] = []  # one per call
        self.at = at
        self.after = after
        self.dies = dies
        self.is_dead = False
        self.interruption_at: int | None = None
        self.interruption: Callable[[], object] = lambda: None

    def wrap(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return `call` with a fault point around it."""

        def call_with_faults(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:  # another thread of the process died first
                raise ProcessDied
            self.calls += 1
            self.names.append(name)
            number = self.calls
            if number == self.interruption_at:
                self._run_interruption()
            if name in self.broken:
                raise TimeoutError(name)
            if self.failures.get(name, 0) > 0:
                self.failures[name] -= 1
                raise TimeoutError(name)
            if number == self.at and not self.after:
                self._fail(name)
            result = call(*args, **kwargs)
            if number == self.at and self.after:
                self._fail(name)
            return result

        return call_with_faults

    def _run_interruption(self) -> None:
        state = dict(vars(self))
        interruption = self.interruption
        self.begin()
        interruption()
        vars(self).update(state)

    def _fail(self, name: str) -> None:
        if not self.dies:
            raise TimeoutError(name)
        self.is_dead = True
        raise ProcessDied


class FaultyProxy:
    """A port or AWS client with a fault point around each call."""

    def __init__(self, wrapped: Any, fault_points: FaultPoints) -> None:
        self._wrapped = wrapped
        self._fault_points = fault_points

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        return self._fault_points.wrap(attribute, name) if callable(attribute) else attribute
