"""Circuit breaker of one container: reads the shared circuits every few seconds, and writes only relevant outcomes.

A successful call without recent failures costs no request to the store. It is counted locally and written with the
next failure. When the store is unavailable, the breaker fails open and pauses store access: it must not cause an
outage of its own.
"""

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock

from aiserver import log_events
from aiserver.circuit_breaker.circuit import PROVIDER_GATE, CallStats, Circuit, CircuitStore, GateKey, gate_keys
from aiserver.circuit_breaker.outcome import CallOutcome, classify
from aiserver.clock import Clock, Deadline
from aiserver.errors import ProviderCircuitOpen, ProviderError

CACHE_MS = 5_000
UNSTABLE_CACHE_MS = 1_000  # while calls fail: successes must soon reach the containers that count the failures
SUCCESS_FLUSH_MS = 2_000  # while other keys' calls fail: a success keeps the model's gate closed for them
STORE_DOWN_MS = 10_000  # pause after a failed read or write of the store: every access delays a caller
INTERNAL_ERROR = 500  # either the server is broken, or it fails on one request
MAX_WRITE_ATTEMPTS = 5  # of a write; each retry follows a concurrent write by another function
MAX_COUNTED_GATES = 100  # gates counted by a container: callers can name any number of models

log = logging.getLogger("aiserver.breaker")


@dataclass(frozen=True)
class CallTarget:
    """A call of a provider: the owner of the API key, the model, and a function that returns the request's hash."""

    provider: str
    owner: str
    model: str
    request: Callable[[], str]

    @property
    def keys(self) -> tuple[GateKey, GateKey, GateKey]:
        return gate_keys(self.owner, self.model)


class CircuitBreaker:
    """Shared by all calls of one container; thread-safe."""

    def __init__(self, circuits: CircuitStore, clock: Clock) -> None:
        self._store = circuits
        self._clock = clock
        self._cache: dict[str, Circuit] = {}
        self._read_at: int | None = None
        self._store_down_until = 0
        self._local: dict[str, dict[GateKey, CallStats]] = {}  # all outcomes here since a gate was last open
        self._unflushed: dict[str, dict[GateKey, CallStats]] = {}
        self._last_flush: dict[str, int] = {}
        self._lock = RLock()

    def check(self, target: CallTarget) -> None:
        """Raises: ProviderCircuitOpen, when the cached circuit is open for this target."""
        self._raise_if_open(target, self._current_circuit(target.provider))

    @contextmanager
    def track_call(self, target: CallTarget, *, deadline: Deadline) -> Generator["TrackedCall"]:
        """Record the outcome of the call in the `with` block, which must begin to respond by `deadline`.

        Raises: ProviderCircuitOpen, when another call is the probe of a half-open gate.
        """
        call = TrackedCall(self, target, self._admit(target), self._clock.now_ms())
        try:
            yield call
        except ProviderError as error:
            allowed_ms = deadline.at_ms - call.started_ms
            call.on_error(error, classify(error, allowed_ms=allowed_ms, is_late=deadline.has_passed(self._clock)))
            raise
        call.on_success()

    def _current_circuit(self, name: str) -> Circuit:
        now = self._clock.now_ms()
        is_unstable = any(circuit.is_unstable(now) for circuit in self._cache.values())
        oldest = now - (UNSTABLE_CACHE_MS if is_unstable else CACHE_MS)
        with self._lock:
            was_read = self._read_at is not None
            is_stale = now >= self._store_down_until and (self._read_at is None or self._read_at <= oldest)
            if is_stale:
                self._read_at = now
            if not was_read:  # only the first read holds the lock: later, other threads use the cache meanwhile
                self._read()
        if is_stale and was_read:
            self._read()
        return self._cache.get(name, Circuit())

    def _read(self) -> None:
        cache_before = self._cache
        try:
            circuits = self._store.read_all()
        except Exception:
            log.exception(log_events.CIRCUIT_READ_FAILED)
            self._pause_store_access()
            return
        with self._lock:  # keep circuits written here during the read: they may be newer
            self._read_at = self._clock.now_ms()  # so that a slow read is not due again at once
            updates = {name: circuit for name, circuit in self._cache.items() if circuit is not cache_before.get(name)}
            self._cache = circuits | updates

    def _pause_store_access(self) -> None:
        self._store_down_until = self._clock.now_ms() + STORE_DOWN_MS

    def _raise_if_open(self, target: CallTarget, circuit: Circuit) -> None:
        wait_ms = (circuit.retry_at(target.owner, target.model) or 0) - self._clock.now_ms()
        if wait_ms > 0:
            message = f"Provider {target.provider}: circuit breaker open after repeated failures; retry later"
            raise ProviderCircuitOpen(message, retry_after_s=-(-wait_ms // 1000))

    def _admit(self, target: CallTarget) -> Circuit | None:
        """Return the circuit that this call probes, None when its gates are closed. Raises: ProviderCircuitOpen."""
        name, owner, model = target.provider, target.owner, target.model
        cached = self._current_circuit(name)
        if cached.retry_at(owner, model) is None:
            return None
        with self._lock:  # outcomes from before a gate opened no longer count when it closes
            for key in target.keys:
                if cached.gate(key).retry_at is not None:
                    self._local.get(name, {}).pop(key, None)
                    self._unflushed.get(name, {}).pop(key, None)
        now = self._clock.now_ms()

        def begin_probe(circuit: Circuit) -> Circuit:
            self._raise_if_open(target, circuit)
            return circuit.half_open(owner, model, now)

        stored = self._update(name, begin_probe)
        if stored is None:  # every write lost a race, or the store is unavailable: decide by the cache
            self._raise_if_open(target, self._cache.get(name, cached))
            return cached
        return None if stored.retry_at(owner, model) is None else stored

    def record_failure(
        self, target: CallTarget, probe: Circuit | None, started_ms: int, *, is_hard: bool, request: str
    ) -> None:
        if probe:
            now, owner, model = self._clock.now_ms(), target.owner, target.model
            self._update(
                target.provider,
                lambda circuit: circuit.probe_failed(probe, owner, model, started_ms, now, is_hard=is_hard),
            )
            return
        provider_key, model_key, owner_key = target.keys
        keys = [provider_key, model_key, owner_key] if is_hard else [model_key, owner_key]
        self._count(target, keys, is_success=False, request=request)
        self._flush(target.provider)

    def record_success(self, target: CallTarget, probe: Circuit | None) -> None:
        name, now = target.provider, self._clock.now_ms()
        if probe:
            self._update(name, lambda circuit: circuit.probe_succeeded(target.owner, target.model, now))
            return
        self._count(target, target.keys, is_success=True)
        cached = self._cache.get(name, Circuit())
        ends_failures = any(cached.gate(key).stats.failures for key in target.keys)
        matters_to_other_owners = any(
            key[1] == target.model and gate.stats.failures for key, gate in cached.gates.items()
        )
        pause_ms = SUCCESS_FLUSH_MS if matters_to_other_owners else CACHE_MS
        is_due = now >= self._last_flush.get(name, 0) + pause_ms
        if ends_failures or (cached.is_unstable(now) and is_due):
            self._last_flush[name] = now
            self._flush(name, max_attempts=1)

    def _count(self, target: CallTarget, keys: Collection[GateKey], *, is_success: bool, request: str = "") -> None:
        name, now = target.provider, self._clock.now_ms()
        by_request = CallStats.for_call(now, is_success=is_success, request=request)
        by_owner = CallStats.for_call(now, is_success=is_success, request=target.owner)
        with self._lock:
            for counts in (self._local, self._unflushed):
                stats_by_gate = counts.setdefault(name, {})
                for key in keys:
                    call = by_owner if key == ("", target.model) else by_request
                    stats_by_gate[key] = stats_by_gate.get(key, CallStats()).merge(call, now)
                if len(stats_by_gate) > MAX_COUNTED_GATES:
                    counts[name] = _most_recent(stats_by_gate)

    def _flush(self, name: str, max_attempts: int = MAX_WRITE_ATTEMPTS) -> None:
        """Write the unflushed counts of gates that have failures, or that the circuit already holds.

        All other counts, and those that could not be written, stay here until the next write.
        """
        now = self._clock.now_ms()
        with self._lock:
            gates_in_circuit = {PROVIDER_GATE, *self._cache.get(name, Circuit()).gates}
            pending = self._unflushed.setdefault(name, {})
            outcomes = {key: stats for key, stats in pending.items() if stats.failures or key in gates_in_circuit}
            self._unflushed[name] = {key: stats for key, stats in pending.items() if key not in outcomes}
            local = self._local.get(name, {})
            certain = {key for key in outcomes if key in local and local[key].should_open(0, now)}
        stored = self._update(name, lambda circuit: circuit.with_outcomes(outcomes, now, certain=certain), max_attempts)
        with self._lock:
            pending = self._unflushed.setdefault(name, {})
            for key, stats in outcomes.items():
                if stored is None or key not in stored.gates:
                    pending[key] = stats.merge(pending.get(key, CallStats()), now)

    def _update(
        self, name: str, change: Callable[[Circuit], Circuit], max_attempts: int = MAX_WRITE_ATTEMPTS
    ) -> Circuit | None:
        """Apply `change` to the stored circuit by compare-and-set; return the result, None when it was not written."""
        for _ in range(max_attempts if self._clock.now_ms() >= self._store_down_until else 0):
            old = self._cache.get(name, Circuit())
            new = change(old)
            if new == old:
                return old
            new = replace(new, stamp=self._clock.token())
            try:
                stored = self._store.replace(name, old, new)
            except Exception:
                log.exception(log_events.CIRCUIT_WRITE_FAILED, extra={"provider": name})
                self._pause_store_access()
                return None
            with self._lock:
                self._cache = {**self._cache, name: stored}  # a copy, since other threads may be reading the old one
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
                log.warning(log_events.CIRCUIT_OPENED if is_open else log_events.CIRCUIT_CLOSED, extra=fields)


class TrackedCall:
    """One admitted call. `probe` is the circuit that it probes, None when its gates are closed.

    Its outcome is recorded when it ends. The success of a probe is recorded at the first event of its response, too,
    since a response that has started may take long to end.
    """

    def __init__(self, breaker: CircuitBreaker, target: CallTarget, probe: Circuit | None, started_ms: int) -> None:
        self.started_ms = started_ms
        self._breaker = breaker
        self._target = target
        self._probe = probe
        self._is_withdrawn = False

    def on_first_event(self) -> None:
        if self._probe:
            self._breaker.record_success(self._target, self._probe)
            self._probe = None

    def withdraw(self) -> None:
        """The provider was not called after all: no outcome is recorded."""
        self._is_withdrawn = True

    def on_success(self) -> None:
        if not self._is_withdrawn:
            self._breaker.record_success(self._target, self._probe)

    def on_error(self, error: ProviderError, outcome: CallOutcome) -> None:
        if outcome in (CallOutcome.HARD, CallOutcome.SOFT):
            request = self._target.request() if error.upstream_status == INTERNAL_ERROR else ""
            is_hard = outcome is CallOutcome.HARD
            self._breaker.record_failure(self._target, self._probe, self.started_ms, is_hard=is_hard, request=request)
        elif self._probe and error.upstream_status is not None:
            self._breaker.record_success(self._target, self._probe)


def _most_recent(stats_by_gate: Mapping[GateKey, CallStats]) -> dict[GateKey, CallStats]:
    """Keep the provider's gate, and MAX_COUNTED_GATES / 2 other gates: those with the latest outcomes."""
    by_age = sorted(stats_by_gate, key=lambda key: max(stats_by_gate[key].per_second, default=0))
    keys = {PROVIDER_GATE, *by_age[-MAX_COUNTED_GATES // 2 :]}
    return {key: stats_by_gate[key] for key in keys if key in stats_by_gate}
