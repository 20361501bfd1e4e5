"""When a provider may be asked, by the rules alone: an umpire who sees every call of every container as it is made."""

ROW, LEAST, WINDOW_MS = 5, 10, 60_000
OPEN_MS, TRIAL_MS = 25_000, 30_000
FAILURES = ("refused", "503", "500", "silent")
SUCCESSES = ("good", "slow")
UNCOUNTED = ("429", "401", "400")


class Rules:
    """One provider's. Times are milliseconds."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, bool]] = []  # since it was closed: when a call ended, and whether it failed
        self._may_try: int | None = None  # None while it is closed
        self._opened = 0  # how often
        self._trial = 0

    def refuses(self, now: int) -> bool:
        return self._may_try is not None and now < self._may_try

    def begin(self, now: int) -> tuple[int, int]:
        """Which opening a call that begins now belongs to, and which trial of it is."""
        assert not self.refuses(now), f"it was called {self._may_try - now if self._may_try else 0} ms too early"
        if self._may_try is None:
            return self._opened, 0
        self._may_try = now + TRIAL_MS
        self._trial += 1
        return self._opened, self._trial

    def end(self, begun: tuple[int, int], now: int, outcome: str) -> None:
        opening, trial = begun
        assert outcome in FAILURES + SUCCESSES + UNCOUNTED
        if trial and outcome not in FAILURES:
            self._may_try, self._ends = None, []
        elif trial and trial == self._trial and self._may_try is not None:
            self._may_try = min(now, self._may_try) + OPEN_MS
        elif not trial and self._may_try is None and opening == self._opened and outcome not in UNCOUNTED:
            self._ends.append((now, outcome in FAILURES))
            if self._is_bad(now):
                self._may_try, self._opened = now + OPEN_MS, self._opened + 1

    def _is_bad(self, now: int) -> bool:
        lately = [end for end in self._ends if end[0] > now - WINDOW_MS]
        self._ends = self._ends[-max(ROW, len(lately)) :]
        failed, in_a_row = sum(is_bad for _, is_bad in lately), [is_bad for _, is_bad in self._ends[-ROW:]]
        return in_a_row == [True] * ROW or (len(lately) >= LEAST and 2 * failed > len(lately))
