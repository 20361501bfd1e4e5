"""Circuit breaker rules: when a provider's circuit opens, is probed and closes. All functions share one circuit.

A circuit has several gates. A closed gate admits calls. It opens after FAILURE_THRESHOLD consecutive failures, or when
more than half of at least MIN_CALLS calls in the last WINDOW_S seconds failed. It opens at once when one container saw
all of that by itself and no other has reported the opposite. Otherwise it opens when that has been true for
CONFIRM_MS, since successes of other containers may not be reported yet.

An open gate rejects all calls for OPEN_MS. Then it is half-open: one real call is the probe. All other calls are
rejected until the probe ends, for PROBE_TIMEOUT_MS at most. A successful probe closes the gate. A failed probe keeps it
open for another OPEN_MS, unless a later probe has begun. After a probe without a result in time, another call is the
probe.

The provider's gate (PROVIDER_GATE) counts hard failures only: no connection. Each API key (its owner id) and model has
a gate that counts all failures of that key's calls of that model. A key whose requests fail, or are slow, thereby opens
the circuit for itself only. A model's gate opens for all keys when the last FAILURE_THRESHOLD failures since any key's
last success came from at least MIN_OWNERS keys, at most FAILURE_THRESHOLD - MIN_OWNERS of them from one key, and all
calls have failed for SHARED_CONFIRM_MS.

No key may keep a shared gate open by its own failing requests. A call that connected closes the provider's gate,
however it ends. While a shared gate is open, MAX_PROBES keys may probe it in each period, one call each: the key of the
regular probe, and others at once. In the first period, these others are the keys whose failures did not open a model's
gate; at the provider's gate there are none.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

FAILURE_THRESHOLD = 5
MIN_CALLS = 10
WINDOW_S = 60
CONFIRM_MS = 6_000  # by then every container knows that calls fail, and has reported its successes
PROBE_TIMEOUT_MS = 30_000  # most calls end before; one that takes minutes gives way to another probe
OPEN_MS = 25_000  # with PROBE_TIMEOUT_MS and the age of a container's cache, under a minute
MIN_OWNERS = 2
# As CONFIRM_MS, with time for slow calls: no key's success may be missed because of another key's failures.
SHARED_CONFIRM_MS = 8_000
RECENT_MS = 300_000  # an open circuit without a probe for this long is idle and is not reported
MAX_PROBES = 3  # two failing keys leave one probe for another key
NO_PROBE_YET = ("",)  # placeholder in `probes` for the key of the regular probe, which begins when the period ends
MAX_GATES = 8  # of failing keys, and of failing models: bounds the size of the stored item

# The time in milliseconds, and the possible cause: the hash of a request, or, at a model's gate, the key.
FailureRecord = tuple[int, str]


@dataclass(frozen=True)
class CallStats:
    """Outcomes of calls: the numbers of successes and failures in each second; times in milliseconds.

    `last_success_at` is the last success, `failing_since` the first of the consecutive failures after it, `failures`
    the last FAILURE_THRESHOLD of these.
    """

    per_second: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    last_success_at: int = 0
    failing_since: int = 0
    failures: tuple[FailureRecord, ...] = ()

    @classmethod
    def for_call(cls, now_ms: int, *, is_success: bool, request: str = "") -> "CallStats":
        """Stats of one call that ended now."""
        second = now_ms // 1000
        return cls({second: (1, 0)}, now_ms) if is_success else cls({second: (0, 1)}, 0, now_ms, ((now_ms, request),))

    def merge(self, stats: "CallStats", now_ms: int) -> "CallStats":
        """Both stats, in any order, without outcomes older than the window.

        `failing_since` may then be too late, by less than either stats span: of two runs of failures with a success
        between, one container's stats hold the last FAILURE_THRESHOLD only. A gate never opens sooner because of it.
        """
        oldest, seconds = now_ms // 1000 - WINDOW_S, dict[int, tuple[int, int]]()
        for second, (successes, failures) in (*self.per_second.items(), *stats.per_second.items()):
            if second > oldest:
                counts = seconds.get(second, (0, 0))
                seconds[second] = (counts[0] + successes, counts[1] + failures)
        success_at = max(self.last_success_at, stats.last_success_at)
        records = sorted(record for record in self.failures + stats.failures if record[0] > success_at)
        starts = (self.failing_since, stats.failing_since, *(at for at, _ in records))
        failing_since = min((at for at in starts if at > success_at), default=0)
        return CallStats(seconds, success_at, failing_since, tuple(records[-FAILURE_THRESHOLD:]))

    def should_open(self, min_duration_ms: int, now_ms: int) -> bool:
        """Whether the failures are enough to open a gate, and have been for `min_duration_ms`."""
        successes = sum(counts[0] for counts in self.per_second.values())
        failures = sum(counts[1] for counts in self.per_second.values())
        first_failure_at = min((second for second, counts in self.per_second.items() if counts[1]), default=0) * 1000
        latest_start = now_ms - min_duration_ms
        has_consecutive = len(self.failures) >= FAILURE_THRESHOLD and self.failing_since <= latest_start
        has_majority = successes + failures >= MIN_CALLS and failures > successes and first_failure_at <= latest_start
        return (has_consecutive or has_majority) and not self._is_single_request

    @property
    def _is_single_request(self) -> bool:
        """Whether all failures since the last success are of one request, which may itself be the cause."""
        requests = {request for _, request in self.failures}
        return len(requests) == 1 and "" not in requests


@dataclass(frozen=True)
class Gate:
    """A gate of a circuit; a closed one admits calls.

    `retry_at` is when an open gate may be probed, in milliseconds; None when the gate is closed. `probes` are the keys
    that have probed an open shared gate in this period, the key of the regular probe first.
    """

    stats: CallStats = CallStats()
    retry_at: int | None = None
    probes: tuple[str, ...] = ()

    @property
    def is_in_first_period(self) -> bool:
        """Whether the gate, when it is open, has had no regular probe yet."""
        return self.probes[:1] in ((), NO_PROBE_YET)

    def allows_probe(self, owner: str) -> bool:
        """Whether a key may probe this open shared gate before `retry_at`: once in a period.

        In the first period, a key with more than one of the failures that opened a model's gate may not.
        """
        owner_failures = sum(failed_owner == owner for _, failed_owner in self.stats.failures)
        is_cause = self.is_in_first_period and owner_failures > 1
        return owner not in self.probes and not is_cause and len(self.probes) < MAX_PROBES

    def with_stats(self, stats: CallStats, now_ms: int) -> "Gate":
        """Add outcomes. Calls that were in progress when the gate opened change nothing."""
        return self if self.retry_at is not None else Gate(self.stats.merge(stats, now_ms))

    def with_outcomes(self, stats: CallStats, now_ms: int, is_certain: bool = False) -> "Gate":
        """Add outcomes and open when they are bad enough; `is_certain`: one container alone saw enough failures."""
        updated = self.with_stats(stats, now_ms)
        should_open = self.retry_at is None and updated.stats.should_open(0 if is_certain else CONFIRM_MS, now_ms)
        return replace(updated, retry_at=now_ms + OPEN_MS) if should_open else updated

    def is_unstable(self, now_ms: int) -> bool:
        """Whether other containers may be changing it: it is open and being probed, or calls failed within WINDOW_S."""
        oldest = now_ms // 1000 - WINDOW_S
        is_probed = self.retry_at is not None and self.retry_at // 1000 > oldest
        return is_probed or any(counts[1] and second > oldest for second, counts in self.stats.per_second.items())


GateKey = tuple[str, str]  # the calls of a gate: the id of their API key, and the model by its upstream name
PROVIDER_GATE = ("", "")


def gate_keys(owner: str, model: str) -> tuple[GateKey, GateKey, GateKey]:
    """The gates that must admit a call: the provider's, the model's, the owner's for that model."""
    return PROVIDER_GATE, ("", model), (owner, model)


@dataclass(frozen=True)
class Circuit:
    """One provider's gates, shared by all functions. `stamp` identifies the last write."""

    gates: Mapping[GateKey, Gate] = field(default_factory=dict[GateKey, Gate])
    stamp: str = ""

    def gate(self, key: GateKey) -> Gate:
        return self.gates.get(key, CLOSED_GATE)

    def retry_at(self, owner: str, model: str) -> int | None:
        """When a call may be a probe, in milliseconds; None when its gates are closed, 0 when it may be one at once."""
        times = (
            0 if _allows_several_probes(key, gate) and gate.allows_probe(owner) else gate.retry_at or 0
            for key, gate in self._open_gates(owner, model)
        )
        return max(times, default=None)

    def with_outcomes(
        self, stats: Mapping[GateKey, CallStats], now_ms: int, *, certain: Collection[GateKey] = ()
    ) -> "Circuit":
        """Add outcomes; `certain`: the gates for which one container alone saw enough failures to open them."""
        gates = dict(self.gates)
        for key, gate_stats in stats.items():
            gate = self.gate(key)
            gates[key] = (
                gate.with_stats(gate_stats, now_ms)
                if _is_model_gate(key)
                else gate.with_outcomes(gate_stats, now_ms, key in certain)
            )
        for key in filter(_is_model_gate, stats):
            if gates[key].retry_at is None and _fails_for_several_owners(gates[key].stats, now_ms):
                gates[key] = replace(gates[key], retry_at=now_ms + OPEN_MS)
        return replace(self, gates=_limit_gates(gates, now_ms))

    def half_open(self, owner: str, model: str, now_ms: int) -> "Circuit":
        """Begin a probe now at each open gate of the call."""
        gates: dict[GateKey, Gate] = {}
        for key, gate in self._open_gates(owner, model):
            if (gate.retry_at or 0) <= now_ms:
                gates[key] = replace(gate, retry_at=now_ms + PROBE_TIMEOUT_MS, probes=() if key[0] else (owner,))
            else:  # a key that may probe before `retry_at`
                gates[key] = replace(gate, probes=(*(gate.probes or NO_PROBE_YET), owner))
        return self._with_gates(gates)

    def probe_failed(
        self, probe: "Circuit", owner: str, model: str, started_ms: int, now_ms: int, *, is_hard: bool
    ) -> "Circuit":
        """End a failed probe. A probe that began long ago proves little: the next one need not wait long.

        A call that connected (not `is_hard`) closes the provider's gate.
        """
        retry_at = min(now_ms, started_ms + PROBE_TIMEOUT_MS) + OPEN_MS
        current = {
            key: gate for key, gate in self._open_gates(owner, model) if gate.retry_at == probe.gate(key).retry_at
        }
        gates = {key: replace(gate, retry_at=retry_at) for key, gate in current.items() if _is_probe_of(gate, owner)}
        if not is_hard and self.gate(PROVIDER_GATE).retry_at is not None:
            gates[PROVIDER_GATE] = Gate(CallStats({}, now_ms))
        circuit = self._with_gates(gates)
        failure = CallStats.for_call(now_ms, is_success=False, request=owner)
        return circuit.with_outcomes({_model_gate_key(model): failure}, now_ms) if current else circuit

    def probe_succeeded(self, owner: str, model: str, now_ms: int) -> "Circuit":
        """End a successful probe: close its open gates, and count a success at the others."""
        open_gates = dict(self._open_gates(owner, model))
        if not open_gates:
            return self
        success = CallStats.for_call(now_ms, is_success=True)
        counting_keys = {key for key in gate_keys(owner, model) if key not in open_gates} | {_model_gate_key(model)}
        circuit = self._with_gates({key: Gate(CallStats({}, now_ms)) for key in open_gates})
        return circuit.with_outcomes(dict.fromkeys(counting_keys, success), now_ms)

    def is_open_for_all(self, now_ms: int) -> bool:
        """Whether the provider's or a model's gate is open for all keys, and had a probe within RECENT_MS."""
        times = [gate.retry_at for (owner, _), gate in self.gates.items() if not owner]
        return any(at is not None and at > now_ms - RECENT_MS for at in times)

    def is_unstable(self, now_ms: int) -> bool:
        """Whether other containers may be changing it."""
        return any(gate.is_unstable(now_ms) for gate in self.gates.values())

    def _open_gates(self, owner: str, model: str) -> Iterator[tuple[GateKey, Gate]]:
        return ((key, gate) for key in gate_keys(owner, model) if (gate := self.gate(key)).retry_at is not None)

    def _with_gates(self, gates: Mapping[GateKey, Gate]) -> "Circuit":
        return replace(self, gates={**self.gates, **gates}) if gates else self


CLOSED_GATE = Gate()


def _model_gate_key(model: str) -> GateKey:
    return "", model


def _is_model_gate(key: GateKey) -> bool:
    return key != PROVIDER_GATE and not key[0]


def _allows_several_probes(key: GateKey, gate: Gate) -> bool:
    """Whether several keys may probe an open gate in one period."""
    return not gate.is_in_first_period if key == PROVIDER_GATE else not key[0]


def _is_probe_of(gate: Gate, owner: str) -> bool:
    """Whether the regular probe in progress is this key's, and not an additional probe beside it."""
    return gate.probes[:1] in ((), (owner,))


def _fails_for_several_owners(stats: CallStats, now_ms: int) -> bool:
    """Whether the model fails, and not just the requests of one key."""
    owners = Counter(owner for _, owner in stats.failures)
    is_shared = len(owners) >= MIN_OWNERS and max(owners.values()) <= FAILURE_THRESHOLD - MIN_OWNERS
    return len(stats.failures) >= FAILURE_THRESHOLD and is_shared and stats.failing_since <= now_ms - SHARED_CONFIRM_MS


def _limit_gates(gates: Mapping[GateKey, Gate], now_ms: int) -> dict[GateKey, Gate]:
    """Keep the provider's gate and the active others: at most MAX_GATES of keys, and as many of models."""
    active = [key for key, gate in gates.items() if gate.retry_at is not None or gate.is_unstable(now_ms)]
    by_age = sorted(active, key=lambda key: (gates[key].stats.failures or ((0, ""),))[-1])
    owners = [key for key in by_age if key[0]][-MAX_GATES:]
    models = [key for key in by_age if key[1] and not key[0]][-MAX_GATES:]
    return {key: gates[key] for key in [PROVIDER_GATE, *models, *owners] if key in gates}


class CircuitStore(Protocol):
    """Port: the store that all functions share."""

    def read_all(self) -> dict[str, Circuit]:
        """Return every stored circuit by its provider's name, in one read."""
        ...

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        """Store `new`, which has a new stamp, if `old` or nothing is stored. Return the circuit stored afterwards.

        A write that this call already made, without receiving its confirmation, counts as successful.
        """
        ...
