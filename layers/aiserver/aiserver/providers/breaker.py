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
from aiserver.providers.circuit import PROVIDER_GATE, CallStats, Circuit, CircuitStore, GateKey, gate_keys
from aiserver.providers.outcome import Outcome, classify

CACHE_MS = 5_000
UNSTABLE_CACHE_MS = 1_000  # while calls fail: those that go well must soon be told to whoever counts the failures
SUCCESS_FLUSH_MS = 2_000  # while other keys' calls fail: a success keeps the model's gate closed for them
STORE_DOWN_MS = 10_000  # circuits that could not be read or written are left alone so long: a caller waits for them
INTERNAL_ERROR = 500  # what a server answers to a request that it cannot stand, as well as when it is broken
MAX_WRITE_ATTEMPTS = 5  # of a write, each only after another function wrote in between
MAX_COUNTED_GATES = 100  # keys and models that a container keeps counts of: callers name any number of models

log = logging.getLogger("aiserver.breaker")


@dataclass(frozen=True)
class Attempt:
    """A call of a provider: whose, of which model, and what names its request."""

    provider: str
    owner: str
    model: str
    request: Callable[[], str]

    @property
    def keys(self) -> tuple[GateKey, GateKey, GateKey]:
        return gate_keys(self.owner, self.model)


class CircuitBreaker:
    """For all calls of one container; safe to share between threads."""

    def __init__(self, circuits: CircuitStore, clock: Clock) -> None:
        self._store = circuits
        self._clock = clock
        self._cache: dict[str, Circuit] = {}
        self._read_at: int | None = None
        self._store_down_until = 0
        self._local: dict[str, dict[GateKey, CallStats]] = {}  # all that was seen here since a gate was last open
        self._unflushed: dict[str, dict[GateKey, CallStats]] = {}
        self._last_flush: dict[str, int] = {}
        self._lock = RLock()

    def check(self, attempt: Attempt) -> None:
        """Raises: ProviderCircuitOpen, where it is known that the provider is not to be asked now."""
        self._raise_if_open(attempt, self._cached_circuit(attempt.provider))

    @contextmanager
    def track_call(self, attempt: Attempt, *, deadline_ms: int) -> Generator[Callable[[], None]]:
        """Around one call: how it ends is what counts. Raises: ProviderCircuitOpen, where another call is the trial.

        An answer that has begun may take long to end: a trial has gone well when the function given here is called.
        """
        trial = self._admit(attempt)
        started = self._clock.now_ms()

        def begun() -> None:
            nonlocal trial
            if trial:
                self._record_success(attempt, trial)
                trial = None

        try:
            yield begun
        except ProviderError as error:
            outcome = classify(error, allowed_ms=deadline_ms - started, is_late=self._clock.now_ms() >= deadline_ms)
            if outcome in (Outcome.HARD, Outcome.SOFT):
                request = attempt.request() if error.upstream_status == INTERNAL_ERROR else ""
                self._record_failure(attempt, trial, started, is_hard=outcome == Outcome.HARD, request=request)
            elif trial and error.upstream_status is not None:
                self._record_success(attempt, trial)
            raise
        self._record_success(attempt, trial)

    def _cached_circuit(self, name: str) -> Circuit:
        now = self._clock.now_ms()
        is_troubled = any(circuit.is_unstable(now) for circuit in self._cache.values())
        oldest = now - (UNSTABLE_CACHE_MS if is_troubled else CACHE_MS)
        with self._lock:
            was_read = self._read_at is not None
            is_stale = now >= self._store_down_until and (self._read_at is None or self._read_at <= oldest)
            if is_stale:
                self._read_at = now
            if not was_read:  # all wait, since nobody here knows anything; later, others go by what was known
                self._read()
        if is_stale and was_read:
            self._read()
        return self._cache.get(name, Circuit())

    def _read(self) -> None:
        before = self._cache
        try:
            read = self._store.read_all()
        except Exception:
            log.exception("circuits not read")
            self._pause_store_access()
            return
        with self._lock:  # what was written here meanwhile may be younger than what was read
            self._read_at = self._clock.now_ms()  # a slow read must not be due again by the time it has come
            self._cache = read | {name: one for name, one in self._cache.items() if one is not before.get(name)}

    def _pause_store_access(self) -> None:
        self._store_down_until = self._clock.now_ms() + STORE_DOWN_MS

    def _raise_if_open(self, attempt: Attempt, circuit: Circuit) -> None:
        left_ms = (circuit.retry_at(attempt.owner, attempt.model) or 0) - self._clock.now_ms()
        if left_ms > 0:
            message = f"{attempt.provider} has failed too often and is not asked for now"
            raise ProviderCircuitOpen(message, retry_after_s=-(-left_ms // 1000))

    def _admit(self, attempt: Attempt) -> Circuit | None:
        """The circuit whose trial this call is; None where no gate is open to it. Raises: ProviderCircuitOpen."""
        name, whose = attempt.provider, (attempt.owner, attempt.model)
        known = self._cached_circuit(name)
        if known.retry_at(*whose) is None:
            return None
        with self._lock:  # what led to that is over when it closes
            for key in attempt.keys:
                if known.gate(key).retry_at is not None:
                    self._local.get(name, {}).pop(key, None)
                    self._unflushed.get(name, {}).pop(key, None)
        now = self._clock.now_ms()

        def begun(circuit: Circuit) -> Circuit:
            self._raise_if_open(attempt, circuit)
            return circuit.half_open(*whose, now)

        made = self._update(name, begun)
        if made is None:  # others wrote each time, or nobody can: by what is known now
            self._raise_if_open(attempt, self._cache.get(name, known))
            return known
        return None if made.retry_at(*whose) is None else made

    def _record_failure(
        self, attempt: Attempt, probe: Circuit | None, started_ms: int, *, is_hard: bool, request: str
    ) -> None:
        if probe:
            now, whose = self._clock.now_ms(), (attempt.owner, attempt.model)
            self._update(
                attempt.provider, lambda one: one.probe_failed(probe, *whose, started_ms, now, is_hard=is_hard)
            )
            return
        everyone, model, owner = attempt.keys
        keys = [everyone, model, owner] if is_hard else [model, owner]
        self._count(attempt, keys, is_success=False, request=request)
        self._flush(attempt.provider)

    def _record_success(self, attempt: Attempt, probe: Circuit | None) -> None:
        name, now = attempt.provider, self._clock.now_ms()
        if probe:
            self._update(name, lambda one: one.probe_succeeded(attempt.owner, attempt.model, now))
            return
        self._count(attempt, attempt.keys, is_success=True)
        known = self._cache.get(name, Circuit())
        breaks_row = any(known.gate(key).stats.failures for key in attempt.keys)
        counts_for_others = any(key[1] == attempt.model and gate.stats.failures for key, gate in known.gates.items())
        pause_ms = SUCCESS_FLUSH_MS if counts_for_others else CACHE_MS
        is_due = now >= self._last_flush.get(name, 0) + pause_ms
        if breaks_row or (known.is_unstable(now) and is_due):
            self._last_flush[name] = now
            self._flush(name, tries=1)

    def _count(self, attempt: Attempt, keys: Collection[GateKey], *, is_success: bool, request: str = "") -> None:
        name, now = attempt.provider, self._clock.now_ms()
        by_request = CallStats.for_call(now, is_success=is_success, request=request)
        by_owner = CallStats.for_call(now, is_success=is_success, request=attempt.owner)
        with self._lock:
            for counts in (self._local, self._unflushed):
                tallies = counts.setdefault(name, {})
                for key in keys:
                    seen = by_owner if key == ("", attempt.model) else by_request
                    tallies[key] = tallies.get(key, CallStats()).merge(seen, now)
                if len(tallies) > MAX_COUNTED_GATES:
                    counts[name] = _most_recent(tallies)

    def _flush(self, name: str, tries: int = MAX_WRITE_ATTEMPTS) -> None:
        """Write the counts that a circuit keeps: of gates that have failures, and of gates that it already has.

        All other counts, and those that could not be written, stay here until the next write.
        """
        now = self._clock.now_ms()
        with self._lock:
            kept = {PROVIDER_GATE, *self._cache.get(name, Circuit()).gates}
            pending = self._unflushed.setdefault(name, {})
            counted = {key: tally for key, tally in pending.items() if tally.failures or key in kept}
            self._unflushed[name] = {key: tally for key, tally in pending.items() if key not in counted}
            all_seen = self._local.get(name, {})
            certain = {key for key in counted if key in all_seen and all_seen[key].should_open(0, now)}
        stored = self._update(name, lambda circuit: circuit.with_outcomes(counted, now, certain=certain), tries)
        with self._lock:
            pending = self._unflushed.setdefault(name, {})
            for key, tally in counted.items():
                if stored is None or key not in stored.gates:
                    pending[key] = tally.merge(pending.get(key, CallStats()), now)

    def _update(
        self, name: str, change: Callable[[Circuit], Circuit], tries: int = MAX_WRITE_ATTEMPTS
    ) -> Circuit | None:
        """What `change` has made of the circuit as it is stored, and of no older one; None where it was not written."""
        for _ in range(tries if self._clock.now_ms() >= self._store_down_until else 0):
            old = self._cache.get(name, Circuit())
            new = change(old)
            if new == old:
                return old
            new = replace(new, stamp=self._clock.token())
            try:
                stored = self._store.replace(name, old, new)
            except Exception:
                log.exception("circuit not written", extra={"provider": name})
                self._pause_store_access()
                return None
            with self._lock:
                self._cache = {**self._cache, name: stored}  # a new one, since others may be reading the old
            if stored.stamp == new.stamp:
                self._log_changes(name, old, new)
                return stored
        return None

    def _log_changes(self, name: str, old: Circuit, new: Circuit) -> None:
        for key in {*old.gates, *new.gates}:
            was_open, is_open = old.gate(key).retry_at is not None, new.gate(key).retry_at is not None
            if was_open != is_open:
                owner, model = key
                fields = {"provider": name} | ({"model": model} if model else {}) | ({"key_id": owner} if owner else {})
                log.warning("circuit opened" if is_open else "circuit closed", extra=fields)


def _most_recent(tallies: Mapping[GateKey, CallStats]) -> dict[GateKey, CallStats]:
    """Everyone's, and half of the others: those with the latest outcomes."""
    by_age = sorted(tallies, key=lambda key: max(tallies[key].per_second, default=0))
    return {key: tallies[key] for key in {PROVIDER_GATE, *by_age[-MAX_COUNTED_GATES // 2 :]} if key in tallies}
