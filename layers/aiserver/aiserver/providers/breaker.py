"""One container's view of the circuits: it reads them every few seconds, and writes only what others must know.

A call that goes well where nothing has failed lately costs no request; it is counted here, and told along with the
next failure. Who cannot read or write circuits asks the provider, and leaves them alone for a while: a breaker must not
be an outage of its own.
"""

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock

from aiserver.clock import Clock
from aiserver.errors import ProviderCircuitOpen, ProviderError
from aiserver.providers.circuit import EVERYONE, Circuit, Circuits, Key, Tally, keys_of
from aiserver.providers.outcome import Outcome, judge

CACHE_MS = 5_000
TROUBLED_CACHE_MS = 1_000  # while calls fail: those that go well must soon be told to whoever counts the failures
GOOD_CACHE_MS = 2_000  # while other keys' calls fail: a success keeps the model's gate closed for them
AWAY_MS = 10_000  # circuits that could not be read or written are left alone so long: a caller waits for them
INTERNAL_ERROR = 500  # what a server answers to a request that it cannot stand, as well as when it is broken
TRIES = 5  # of a write, each only after another function wrote in between
MAX_COUNTED = 100  # keys and models that a container keeps counts of: callers name any number of models

log = logging.getLogger("aiserver.breaker")


@dataclass(frozen=True)
class Attempt:
    """A call of a provider: whose, of which model, and what names its request."""

    provider: str
    owner: str
    model: str
    request: Callable[[], str]

    @property
    def keys(self) -> tuple[Key, Key, Key]:
        return keys_of(self.owner, self.model)


class Breaker:
    """For all calls of one container; safe to share between threads."""

    def __init__(self, circuits: Circuits, clock: Clock) -> None:
        self._circuits = circuits
        self._clock = clock
        self._known: dict[str, Circuit] = {}
        self._read_at: int | None = None
        self._away_until = 0
        self._own: dict[str, dict[Key, Tally]] = {}  # all that was seen here since a gate was last open
        self._untold: dict[str, dict[Key, Tally]] = {}
        self._told_at: dict[str, int] = {}
        self._lock = RLock()

    def check(self, attempt: Attempt) -> None:
        """Raises: ProviderCircuitOpen, where it is known that the provider is not to be asked now."""
        self._refuse_until(attempt, self._known_of(attempt.provider))

    @contextmanager
    def watched(self, attempt: Attempt, *, deadline_ms: int) -> Generator[Callable[[], None]]:
        """Around one call: how it ends is what counts. Raises: ProviderCircuitOpen, where another call is the trial.

        An answer that has begun may take long to end: a trial has gone well when the function given here is called.
        """
        trial = self._begin(attempt)
        started = self._clock.now_ms()

        def begun() -> None:
            nonlocal trial
            if trial:
                self._went_well(attempt, trial)
                trial = None

        try:
            yield begun
        except ProviderError as error:
            outcome = judge(error, had_ms=deadline_ms - started, is_late=self._clock.now_ms() >= deadline_ms)
            if outcome in (Outcome.HARD, Outcome.SOFT):
                request = attempt.request() if error.upstream_status == INTERNAL_ERROR else ""
                self._failed(attempt, trial, started, is_hard=outcome == Outcome.HARD, request=request)
            elif trial and error.upstream_status is not None:
                self._went_well(attempt, trial)
            raise
        self._went_well(attempt, trial)

    def _known_of(self, name: str) -> Circuit:
        now = self._clock.now_ms()
        is_troubled = any(circuit.is_troubled(now) for circuit in self._known.values())
        oldest = now - (TROUBLED_CACHE_MS if is_troubled else CACHE_MS)
        with self._lock:
            was_read = self._read_at is not None
            is_stale = now >= self._away_until and (self._read_at is None or self._read_at <= oldest)
            if is_stale:
                self._read_at = now
            if not was_read:  # all wait, since nobody here knows anything; later, others go by what was known
                self._read()
        if is_stale and was_read:
            self._read()
        return self._known.get(name, Circuit())

    def _read(self) -> None:
        before = self._known
        try:
            read = self._circuits.all()
        except Exception:
            log.exception("circuits not read")
            self._leave_alone()
            return
        with self._lock:  # what was written here meanwhile may be younger than what was read
            self._read_at = self._clock.now_ms()  # a slow read must not be due again by the time it has come
            self._known = read | {name: one for name, one in self._known.items() if one is not before.get(name)}

    def _leave_alone(self) -> None:
        self._away_until = self._clock.now_ms() + AWAY_MS

    def _refuse_until(self, attempt: Attempt, circuit: Circuit) -> None:
        left_ms = (circuit.ask_at(attempt.owner, attempt.model) or 0) - self._clock.now_ms()
        if left_ms > 0:
            message = f"{attempt.provider} has failed too often and is not asked for now"
            raise ProviderCircuitOpen(message, retry_after_s=-(-left_ms // 1000))

    def _begin(self, attempt: Attempt) -> Circuit | None:
        """The circuit whose trial this call is; None where no gate is open to it. Raises: ProviderCircuitOpen."""
        name, whose = attempt.provider, (attempt.owner, attempt.model)
        known = self._known_of(name)
        if known.ask_at(*whose) is None:
            return None
        with self._lock:  # what led to that is over when it closes
            for key in attempt.keys:
                if known.gate(key).ask_at is not None:
                    self._own.get(name, {}).pop(key, None)
                    self._untold.get(name, {}).pop(key, None)
        now = self._clock.now_ms()

        def begun(circuit: Circuit) -> Circuit:
            self._refuse_until(attempt, circuit)
            return circuit.on_trial(*whose, now)

        made = self._change(name, begun)
        if made is None:  # others wrote each time, or nobody can: by what is known now
            self._refuse_until(attempt, self._known.get(name, known))
            return known
        return None if made.ask_at(*whose) is None else made

    def _failed(self, attempt: Attempt, trial: Circuit | None, started: int, *, is_hard: bool, request: str) -> None:
        if trial:
            now, whose = self._clock.now_ms(), (attempt.owner, attempt.model)
            self._change(attempt.provider, lambda one: one.tried(trial, *whose, started, now, is_hard=is_hard))
            return
        everyone, model, owner = attempt.keys
        keys = [everyone, model, owner] if is_hard else [model, owner]
        self._count(attempt, keys, is_good=False, request=request)
        self._tell(attempt.provider)

    def _went_well(self, attempt: Attempt, trial: Circuit | None) -> None:
        name, now = attempt.provider, self._clock.now_ms()
        if trial:
            self._change(name, lambda one: one.closed(attempt.owner, attempt.model, now))
            return
        self._count(attempt, attempt.keys, is_good=True)
        known = self._known.get(name, Circuit())
        breaks_row = any(known.gate(key).tally.bad for key in attempt.keys)
        counts_for_others = any(key[1] == attempt.model and gate.tally.bad for key, gate in known.gates.items())
        pause_ms = GOOD_CACHE_MS if counts_for_others else CACHE_MS
        is_due = now >= self._told_at.get(name, 0) + pause_ms
        if breaks_row or (known.is_troubled(now) and is_due):
            self._told_at[name] = now
            self._tell(name, tries=1)

    def _count(self, attempt: Attempt, keys: Collection[Key], *, is_good: bool, request: str = "") -> None:
        name, now = attempt.provider, self._clock.now_ms()
        by_request = Tally.of(now, is_good=is_good, request=request)
        by_owner = Tally.of(now, is_good=is_good, request=attempt.owner)
        with self._lock:
            for counts in (self._own, self._untold):
                tallies = counts.setdefault(name, {})
                for key in keys:
                    seen = by_owner if key == ("", attempt.model) else by_request
                    tallies[key] = tallies.get(key, Tally()).plus(seen, now)
                if len(tallies) > MAX_COUNTED:
                    counts[name] = _newest(tallies)

    def _tell(self, name: str, tries: int = TRIES) -> None:
        """Write the counts that a circuit keeps: of gates that have failures, and of gates that it already has.

        All other counts, and those that could not be written, stay here until the next write.
        """
        now = self._clock.now_ms()
        with self._lock:
            kept = {EVERYONE, *self._known.get(name, Circuit()).gates}
            pending = self._untold.setdefault(name, {})
            counted = {key: tally for key, tally in pending.items() if tally.bad or key in kept}
            self._untold[name] = {key: tally for key, tally in pending.items() if key not in counted}
            all_seen = self._own.get(name, {})
            certain = {key for key in counted if key in all_seen and all_seen[key].is_bad(0, now)}
        stored = self._change(name, lambda circuit: circuit.after(counted, now, certain=certain), tries)
        with self._lock:
            pending = self._untold.setdefault(name, {})
            for key, tally in counted.items():
                if stored is None or key not in stored.gates:
                    pending[key] = tally.plus(pending.get(key, Tally()), now)

    def _change(self, name: str, change: Callable[[Circuit], Circuit], tries: int = TRIES) -> Circuit | None:
        """What `change` has made of the circuit as it is stored, and of no older one; None where it was not written."""
        for _ in range(tries if self._clock.now_ms() >= self._away_until else 0):
            old = self._known.get(name, Circuit())
            new = change(old)
            if new == old:
                return old
            new = replace(new, stamp=self._clock.token())
            try:
                stored = self._circuits.replace(name, old, new)
            except Exception:
                log.exception("circuit not written", extra={"provider": name})
                self._leave_alone()
                return None
            with self._lock:
                self._known = {**self._known, name: stored}  # a new one, since others may be reading the old
            if stored.stamp == new.stamp:
                self._log(name, old, new)
                return stored
        return None

    def _log(self, name: str, old: Circuit, new: Circuit) -> None:
        for key in {*old.gates, *new.gates}:
            was_open, is_open = old.gate(key).ask_at is not None, new.gate(key).ask_at is not None
            if was_open != is_open:
                owner, model = key
                fields = {"provider": name} | ({"model": model} if model else {}) | ({"key_id": owner} if owner else {})
                log.warning("circuit opened" if is_open else "circuit closed", extra=fields)


def _newest(tallies: Mapping[Key, Tally]) -> dict[Key, Tally]:
    """Everyone's, and half of the others: those with the latest outcomes."""
    by_age = sorted(tallies, key=lambda key: max(tallies[key].seconds, default=0))
    return {key: tallies[key] for key in {EVERYONE, *by_age[-MAX_COUNTED // 2 :]} if key in tallies}
