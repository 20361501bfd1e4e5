"""Reference model of the circuit breaker: one global observer that sees every call of every container."""

FAILURE_THRESHOLD, MIN_CALLS, WINDOW_MS = 5, 10, 60_000
OPEN_MS, PROBE_TIMEOUT_MS = 25_000, 30_000
FAILURES = ("refused", "503", "500", "silent")
SUCCESSES = ("good", "slow")
UNCOUNTED = ("429", "401", "400")


class ReferenceBreaker:
    """The breaker of one provider. Times are milliseconds."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, bool]] = []  # since the circuit closed: end time of a call, and whether it failed
        self._retry_at: int | None = None  # None while closed
        self._openings = 0
        self._probe = 0

    def is_open(self, now: int) -> bool:
        return self._retry_at is not None and now < self._retry_at

    def begin(self, now: int) -> tuple[int, int]:
        """Start a call; return the number of openings and the number of the probe (0 for an ordinary call)."""
        assert not self.is_open(now), f"called {self._retry_at - now if self._retry_at else 0} ms too early"
        if self._retry_at is None:
            return self._openings, 0
        self._retry_at = now + PROBE_TIMEOUT_MS
        self._probe += 1
        return self._openings, self._probe

    def end(self, call: tuple[int, int], now: int, outcome: str) -> None:
        opening, probe = call
        assert outcome in FAILURES + SUCCESSES + UNCOUNTED
        if probe and outcome not in FAILURES:
            self._retry_at, self._ends = None, []
        elif probe and probe == self._probe and self._retry_at is not None:
            self._retry_at = min(now, self._retry_at) + OPEN_MS
        elif not probe and self._retry_at is None and opening == self._openings and outcome not in UNCOUNTED:
            self._ends.append((now, outcome in FAILURES))
            if self._is_failing(now):
                self._retry_at, self._openings = now + OPEN_MS, self._openings + 1

    def _is_failing(self, now: int) -> bool:
        recent = [end for end in self._ends if end[0] > now - WINDOW_MS]
        self._ends = self._ends[-max(FAILURE_THRESHOLD, len(recent)) :]
        failures, last = sum(failed for _, failed in recent), [failed for _, failed in self._ends[-FAILURE_THRESHOLD:]]
        return last == [True] * FAILURE_THRESHOLD or (len(recent) >= MIN_CALLS and 2 * failures > len(recent))
