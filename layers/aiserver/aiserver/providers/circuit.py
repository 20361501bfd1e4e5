"""Whether a provider is worth asking now: the rules by which its circuit opens and closes, over all functions.

Closed, it is asked. It opens after ROW failures in a row, or when more than half of at least LEAST calls of the last
WINDOW_S failed: at once where one container alone has seen that and none told otherwise, else when it has been so for
TOLD_MS, since what went well in others may not have been told yet. Open, it is not asked for OPEN_MS; then one real
call is its trial, and until that has ended, or for TRIAL_MS, nobody else asks. A trial that ends well closes it. One
that fails leaves it open for OPEN_MS more, unless a later one has begun; one that is not heard of in time leaves it to
another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

ROW = 5
LEAST = 10
WINDOW_S = 60
TOLD_MS = 6_000  # by then every container has read that calls fail, and told of those that went well
TRIAL_MS = 30_000  # most calls are over by then; one that goes on for minutes lets another be the trial
OPEN_MS = 25_000  # with TRIAL_MS and the age of what a container knows, under a minute


@dataclass(frozen=True)
class Tally:
    """Outcomes of calls: in each second how many went well and how many failed; times in milliseconds.

    `good_at` is when one last went well, `bad_since` since when all failed, `bad_at` when the last ROW of them did.
    """

    seconds: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    good_at: int = 0
    bad_since: int = 0
    bad_at: tuple[int, ...] = ()

    @classmethod
    def of(cls, now_ms: int, *, is_good: bool) -> "Tally":
        """One call that ended now."""
        second = now_ms // 1000
        return cls({second: (1, 0)}, now_ms) if is_good else cls({second: (0, 1)}, 0, now_ms, (now_ms,))

    def plus(self, other: "Tally", now_ms: int) -> "Tally":
        """Both, whichever came first, without what is older than the window.

        `bad_since` may then be later than the truth, by less than either spans: of two rows of failures with a success
        between, one container's tally holds the last ROW only. A circuit opens no sooner for it.
        """
        oldest, seconds = now_ms // 1000 - WINDOW_S, dict[int, tuple[int, int]]()
        for second, (good, bad) in (*self.seconds.items(), *other.seconds.items()):
            if second > oldest:
                before = seconds.get(second, (0, 0))
                seconds[second] = (before[0] + good, before[1] + bad)
        good_at = max(self.good_at, other.good_at)
        bad_at = sorted(at for at in self.bad_at + other.bad_at if at > good_at)
        since = [at for at in (self.bad_since, other.bad_since, *bad_at) if at > good_at]
        return Tally(seconds, good_at, min(since, default=0), tuple(bad_at[-ROW:]))

    def is_bad(self, for_ms: int, now_ms: int) -> bool:
        """Whether it is as bad as a circuit opens by, and has been for so long."""
        good = sum(counts[0] for counts in self.seconds.values())
        bad = sum(counts[1] for counts in self.seconds.values())
        first = min((second for second, (_, failed) in self.seconds.items() if failed), default=0) * 1000
        is_row = len(self.bad_at) >= ROW and self.bad_since <= now_ms - for_ms
        return is_row or (good + bad >= LEAST and bad > good and first <= now_ms - for_ms)


@dataclass(frozen=True)
class Circuit:
    """One provider's, as all functions share it. `stamp` names its last writer's write.

    `ask_at` is when an open one may be tried, in milliseconds; None when it is closed.
    """

    tally: Tally = Tally()
    ask_at: int | None = None
    stamp: str = ""

    def after(self, seen: Tally, now_ms: int, *, is_certain: bool = False) -> "Circuit":
        """With what was seen besides; `is_certain` where one container alone has seen enough to open the circuit.

        Calls that were under way when it opened change nothing.
        """
        if self.ask_at is not None:
            return self
        tally = self.tally.plus(seen, now_ms)
        opens = tally.is_bad(0 if is_certain else TOLD_MS, now_ms)
        return replace(self, tally=tally, ask_at=now_ms + OPEN_MS if opens else None)

    def on_trial(self, now_ms: int) -> "Circuit":
        """While the trial that begins now is under way."""
        return replace(self, ask_at=now_ms + TRIAL_MS)

    def tried(self, began_ms: int, now_ms: int) -> "Circuit":
        """After its trial has failed now. What began long ago says little: it keeps nobody from asking soon."""
        return replace(self, ask_at=min(now_ms, began_ms + TRIAL_MS) + OPEN_MS)

    def is_troubled(self, now_ms: int) -> bool:
        """Whether others may be changing it just now: it is open and being tried, or calls have failed lately."""
        oldest = now_ms // 1000 - WINDOW_S
        is_tried = self.ask_at is not None and self.ask_at // 1000 > oldest
        return is_tried or any(bad and second > oldest for second, (_, bad) in self.tally.seconds.items())


class Circuits(Protocol):
    """Where circuits are shared."""

    def all(self) -> dict[str, Circuit]:
        """Every circuit that anything is known of, by its provider's name, in one read."""
        ...

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        """Store `new`, which has a stamp of its own, if `old` is still stored, or nothing; what then is stored.

        A write that was already made by this very call, but never confirmed, counts as made.
        """
        ...
