"""What may become of a call to the outside: the process dies at it, it fails, or somebody else acts just before it."""

from collections.abc import Callable
from typing import Any


class ProcessDied(BaseException):
    """The process is gone; no `except Exception` hears of it."""


class InvariantViolated(BaseException):
    """A promise was broken; nothing that a handler catches may hide it."""


def check_invariant(kept: bool, words: str) -> None:
    """Raises: Broken."""
    if not kept:
        raise InvariantViolated(words)


class FaultPoints:
    """Counts the calls a process makes, and has the one it was told of go wrong."""

    def __init__(self) -> None:
        self.broken: set[str] = set()  # calls of these names fail, whoever makes them
        self.begin()

    def begin(self, at: int | None = None, *, after: bool = False, dies: bool = True) -> None:
        """A new process: at its call number `at`, before or after it was made, it dies or just hears of a failure."""
        self.calls = 0
        self.names: list[str] = []  # of the calls
        self.at = at
        self.after = after
        self.dies = dies
        self.is_dead = False
        self.meanwhile_at: int | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def around(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`call`, as a place where things go wrong."""

        def guarded(*given: Any, **more: Any) -> Any:
            if self.is_dead:  # another thread of the process was the one to die
                raise ProcessDied
            self.calls += 1
            self.names.append(name)
            number = self.calls
            if number == self.meanwhile_at:
                self._let_another_act()
            if name in self.broken:
                raise TimeoutError(name)
            if number == self.at and not self.after:
                self._go_wrong(name)
            answer = call(*given, **more)
            if number == self.at and self.after:
                self._go_wrong(name)
            return answer

        return guarded

    def _let_another_act(self) -> None:
        ours = dict(vars(self))
        meanwhile = self.meanwhile
        self.begin()
        meanwhile()
        vars(self).update(ours)

    def _go_wrong(self, name: str) -> None:
        if not self.dies:
            raise TimeoutError(name)
        self.is_dead = True
        raise ProcessDied


class FaultyProxy:
    """Any port or AWS client, each call of it a place where things go wrong."""

    def __init__(self, inner: Any, crashes: FaultPoints) -> None:
        self._inner = inner
        self._crashes = crashes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._crashes.around(found, name) if callable(found) else found
