"""Where a process may die: before or after any call to the outside, or while somebody else acts in between."""

from collections.abc import Callable
from typing import Any


class Died(BaseException):
    """The process is gone; no `except Exception` hears of it."""


class Crashes:
    """Counts the calls a process makes, and kills it at the one it was told, or lets another act just before it."""

    def __init__(self) -> None:
        self.begin()

    def begin(self, at: int | None = None, *, after: bool = False) -> None:
        """A new process, which dies at its call number `at`."""
        self.calls = 0
        self.at = at
        self.after = after
        self.is_dead = False
        self.meanwhile_at: int | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, as a place to die at."""

        def guarded(*given: Any, **more: Any) -> Any:
            dies = self._enter()
            answer = call(*given, **more)
            if dies:
                self._die()
            return answer

        return guarded

    def _enter(self) -> bool:
        """Whether to die once this call is made."""
        if self.is_dead:  # another thread of the process was the one to die
            raise Died
        self.calls += 1
        number = self.calls
        if number == self.meanwhile_at:
            self._let_another_act()
        if number != self.at:
            return False
        if not self.after:
            self._die()
        return True

    def _let_another_act(self) -> None:
        ours = dict(vars(self))
        meanwhile = self.meanwhile
        self.begin()
        meanwhile()
        vars(self).update(ours)

    def _die(self) -> None:
        self.is_dead = True
        raise Died


class Guarded:
    """Any port or AWS client, each call of it a place to die."""

    def __init__(self, inner: Any, crashes: Crashes) -> None:
        self._inner = inner
        self._crashes = crashes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._crashes.around(found) if callable(found) else found
