"""Whether a provider is worth asking now: the rules by which its circuit opens and closes, over all functions.

A circuit has several gates. Closed, a gate lets calls pass. It opens after ROW failures in a row, or when more than
half of at least LEAST calls of the last WINDOW_S failed: at once where one container alone has seen that and none told
otherwise, else when it has been so for TOLD_MS, since what went well in others may not have been told yet. Open, it
lets nobody pass for OPEN_MS; then one real call is its trial, and until that has ended, or for TRIAL_MS, nobody else
passes. A trial that ends well closes it. One that fails leaves it open for OPEN_MS more, unless a later one has begun;
one that is not heard of in time leaves it to another.

The gate of everyone counts hard failures: no connection. A key (its owner's id) and a model of the provider have a gate
that counts all failures of that key's calls of that model, so that a key whose requests fail, or are slow, closes the
provider for itself only. A model's gate opens for everyone when the last ROW failures since anyone's success came from
at least two keys, at most ROW - 2 of them from one, the first of them ALL_TOLD_MS ago.

No key may keep a shared gate open by its own failing requests. A call that was connected closes the gate of everyone,
however it ends. While a shared gate is open, MAX_PROBES keys may try it in each period, one call each: the key that has
the trial, and others at once. In the first period, others are those whose failures did not open it, at a model's gate;
at everyone's nobody.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

FAILURE_THRESHOLD = 5
MIN_CALLS = 10
WINDOW_S = 60
CONFIRM_MS = 6_000  # by then every container has read that calls fail, and told of those that went well
PROBE_TIMEOUT_MS = 30_000  # most calls are over by then; one that goes on for minutes lets another be the trial
OPEN_MS = 25_000  # with TRIAL_MS and the age of what a container knows, under a minute
MIN_OWNERS = 2
SHARED_CONFIRM_MS = (
    8_000  # the same, of calls that take a while: nobody's success may be overlooked for somebody's failures
)
RECENT_MS = 300_000  # without a trial for so long, an open circuit is idle and is not reported
MAX_PROBES = 3  # two keys that fail leave one for another
NO_PROBE_YET = ("",)  # stands in `probes` for the key of the trial, which comes when the period is over
MAX_GATES = 8  # of keys and models that fail, and of models: the item stays small, however many fail

# When, in milliseconds, and what may be at fault itself: the hash of a request, or, at a model's gate, the key.
FailureRecord = tuple[int, str]


@dataclass(frozen=True)
class CallStats:
    """Outcomes of calls: in each second how many went well and how many failed; times in milliseconds.

    `good_at` is when one last went well, `bad_since` since when all failed, `bad` the last ROW of those that did.
    """

    per_second: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    last_success_at: int = 0
    failing_since: int = 0
    failures: tuple[FailureRecord, ...] = ()

    @classmethod
    def for_call(cls, now_ms: int, *, is_success: bool, request: str = "") -> "CallStats":
        """One call that ended now."""
        second = now_ms // 1000
        return cls({second: (1, 0)}, now_ms) if is_success else cls({second: (0, 1)}, 0, now_ms, ((now_ms, request),))

    def merge(self, other: "CallStats", now_ms: int) -> "CallStats":
        """Both, whichever came first, without what is older than the window.

        `bad_since` may then be later than the truth, by less than either spans: of two rows of failures with a success
        between, one container's tally holds the last ROW only. A gate opens no sooner for it.
        """
        oldest, seconds = now_ms // 1000 - WINDOW_S, dict[int, tuple[int, int]]()
        for second, (good, bad) in (*self.per_second.items(), *other.per_second.items()):
            if second > oldest:
                before = seconds.get(second, (0, 0))
                seconds[second] = (before[0] + good, before[1] + bad)
        good_at = max(self.last_success_at, other.last_success_at)
        failures = sorted(one for one in self.failures + other.failures if one[0] > good_at)
        since = [at for at in (self.failing_since, other.failing_since, *(at for at, _ in failures)) if at > good_at]
        return CallStats(seconds, good_at, min(since, default=0), tuple(failures[-FAILURE_THRESHOLD:]))

    def should_open(self, min_duration_ms: int, now_ms: int) -> bool:
        """Whether it is as bad as a gate opens by, and has been for so long."""
        good = sum(counts[0] for counts in self.per_second.values())
        bad = sum(counts[1] for counts in self.per_second.values())
        first = min((second for second, (_, failed) in self.per_second.items() if failed), default=0) * 1000
        is_row = len(self.failures) >= FAILURE_THRESHOLD and self.failing_since <= now_ms - min_duration_ms
        is_half = good + bad >= MIN_CALLS and bad > good and first <= now_ms - min_duration_ms
        return (is_row or is_half) and not self._is_single_request

    @property
    def _is_single_request(self) -> bool:
        """Whether all failures since the last success are of one request, which may be at fault itself."""
        requests = {request for _, request in self.failures}
        return len(requests) == 1 and "" not in requests


@dataclass(frozen=True)
class Gate:
    """Lets calls pass while it is closed.

    `ask_at` is when an open one may be tried, in milliseconds; None when it is closed. `probes` are the keys that have
    tried an open shared gate in this period, the one that has the trial first.
    """

    stats: CallStats = CallStats()
    retry_at: int | None = None
    probes: tuple[str, ...] = ()

    @property
    def is_in_first_period(self) -> bool:
        """Whether it is open, and nobody has had its trial yet."""
        return self.probes[:1] in ((), NO_PROBE_YET)

    def allows_probe(self, owner: str) -> bool:
        """Whether a key may try this open shared gate before its time: it has not done so in this period.

        In the first period, a key with more than one of the failures that opened a model's gate may not.
        """
        has_failed = self.is_in_first_period and sum(who == owner for _, who in self.stats.failures) > 1
        return owner not in self.probes and not has_failed and len(self.probes) < MAX_PROBES

    def with_stats(self, stats: CallStats, now_ms: int) -> "Gate":
        """With what was seen besides; calls that were under way when it opened change nothing."""
        return self if self.retry_at is not None else Gate(self.stats.merge(stats, now_ms))

    def with_outcomes(self, stats: CallStats, now_ms: int, is_certain: bool = False) -> "Gate":
        """The same, open where that is bad enough; `is_certain` where one container alone has seen so much."""
        counted = self.with_stats(stats, now_ms)
        opens = self.retry_at is None and counted.stats.should_open(0 if is_certain else CONFIRM_MS, now_ms)
        return replace(counted, retry_at=now_ms + OPEN_MS) if opens else counted

    def is_unstable(self, now_ms: int) -> bool:
        """Whether others may be changing it just now: it is open and being tried, or calls have failed lately."""
        oldest = now_ms // 1000 - WINDOW_S
        is_tried = self.retry_at is not None and self.retry_at // 1000 > oldest
        return is_tried or any(bad and second > oldest for second, (_, bad) in self.stats.per_second.items())


GateKey = tuple[str, str]  # whose calls a gate is for: a key's id, and a model by the provider's own name for it
PROVIDER_GATE = ("", "")


def gate_keys(owner: str, model: str) -> tuple[GateKey, GateKey, GateKey]:
    """The gates that a call of that owner and model has to pass: everyone's, the model's, the owner's."""
    return PROVIDER_GATE, ("", model), (owner, model)


@dataclass(frozen=True)
class Circuit:
    """One provider's gates, as all functions share them. `stamp` names its last writer's write."""

    gates: Mapping[GateKey, Gate] = field(default_factory=dict[GateKey, Gate])
    stamp: str = ""

    def gate(self, key: GateKey) -> Gate:
        return self.gates.get(key, CLOSED_GATE)

    def retry_at(self, owner: str, model: str) -> int | None:
        """When a call may be tried, in milliseconds; None where it passes, 0 where it may be tried at once."""
        waits = (
            0 if _allows_several_probes(key, gate) and gate.allows_probe(owner) else gate.retry_at or 0
            for key, gate in self._open_gates(owner, model)
        )
        return max(waits, default=None)

    def with_outcomes(
        self, stats: Mapping[GateKey, CallStats], now_ms: int, *, certain: Collection[GateKey] = ()
    ) -> "Circuit":
        """With what was seen besides; `certain` are the gates that one container alone has seen enough to open."""
        gates = dict(self.gates)
        for key, tally in stats.items():
            gate, is_of_model = self.gate(key), key != PROVIDER_GATE and not key[0]
            gates[key] = (
                gate.with_stats(tally, now_ms) if is_of_model else gate.with_outcomes(tally, now_ms, key in certain)
            )
        for key in [key for key in stats if key != PROVIDER_GATE and not key[0]]:
            if gates[key].retry_at is None and _fails_for_several_owners(gates[key].stats, now_ms):
                gates[key] = replace(gates[key], retry_at=now_ms + OPEN_MS)
        return replace(self, gates=_limit_gates(gates, now_ms))

    def half_open(self, owner: str, model: str, now_ms: int) -> "Circuit":
        """While the trial that begins now is under way, at each gate that is open to it."""
        tried: dict[GateKey, Gate] = {}
        for key, gate in self._open_gates(owner, model):
            if (gate.retry_at or 0) <= now_ms:
                tried[key] = replace(gate, retry_at=now_ms + PROBE_TIMEOUT_MS, probes=() if key[0] else (owner,))
            else:  # a key that may try before others may
                tried[key] = replace(gate, probes=(*(gate.probes or NO_PROBE_YET), owner))
        return self._with_gates(tried)

    def probe_failed(
        self, probe: "Circuit", owner: str, model: str, started_ms: int, now_ms: int, *, is_hard: bool
    ) -> "Circuit":
        """After that trial has failed now. What began long ago says little: it keeps nobody from asking soon.

        A call that was connected, which is not `is_hard`, closes the gate of everyone.
        """
        ask_at = min(now_ms, started_ms + PROBE_TIMEOUT_MS) + OPEN_MS
        ours = {key: gate for key, gate in self._open_gates(owner, model) if gate.retry_at == probe.gate(key).retry_at}
        tried = {key: replace(gate, retry_at=ask_at) for key, gate in ours.items() if _is_probe_of(gate, owner)}
        if not is_hard and self.gate(PROVIDER_GATE).retry_at is not None:
            tried[PROVIDER_GATE] = Gate(CallStats({}, now_ms))
        counted = self._with_gates(tried)
        failed = CallStats.for_call(now_ms, is_success=False, request=owner)
        return counted.with_outcomes({_model_gate_key(model): failed}, now_ms) if ours else counted

    def probe_succeeded(self, owner: str, model: str, now_ms: int) -> "Circuit":
        """After a call that has gone well though gates were open to it: at the others it counts as any success."""
        opened = dict(self._open_gates(owner, model))
        if not opened:
            return self
        good = CallStats.for_call(now_ms, is_success=True)
        counting = {key for key in gate_keys(owner, model) if key not in opened} | {_model_gate_key(model)}
        closed = self._with_gates({key: Gate(CallStats({}, now_ms)) for key in opened})
        return closed.with_outcomes(dict.fromkeys(counting, good), now_ms)

    def is_open_for_all(self, now_ms: int) -> bool:
        """Whether the provider, or one of its models, refuses the calls of every key, and calls have come lately."""
        open_until = [gate.retry_at for (owner, _), gate in self.gates.items() if not owner]
        return any(at is not None and at > now_ms - RECENT_MS for at in open_until)

    def is_unstable(self, now_ms: int) -> bool:
        """Whether others may be changing it just now."""
        return any(gate.is_unstable(now_ms) for gate in self.gates.values())

    def _open_gates(self, owner: str, model: str) -> Iterator[tuple[GateKey, Gate]]:
        return ((key, gate) for key in gate_keys(owner, model) if (gate := self.gate(key)).retry_at is not None)

    def _with_gates(self, gates: Mapping[GateKey, Gate]) -> "Circuit":
        return replace(self, gates={**self.gates, **gates}) if gates else self


CLOSED_GATE = Gate()


def _model_gate_key(model: str) -> GateKey:
    return "", model


def _allows_several_probes(key: GateKey, gate: Gate) -> bool:
    """Whether several keys may try an open gate in one period."""
    return not gate.is_in_first_period if key == PROVIDER_GATE else not key[0]


def _is_probe_of(gate: Gate, owner: str) -> bool:
    """Whether the trial under way is this key's own, and not one that another key may make beside it."""
    return gate.probes[:1] in ((), (owner,))


def _fails_for_several_owners(tally: CallStats, now_ms: int) -> bool:
    """Whether it is a model that fails, and not the requests of one key."""
    owners = Counter(owner for _, owner in tally.failures)
    is_of_many = len(owners) >= MIN_OWNERS and max(owners.values()) <= FAILURE_THRESHOLD - MIN_OWNERS
    return len(tally.failures) >= FAILURE_THRESHOLD and is_of_many and tally.failing_since <= now_ms - SHARED_CONFIRM_MS


def _limit_gates(gates: Mapping[GateKey, Gate], now_ms: int) -> dict[GateKey, Gate]:
    """Everyone's, and of the others those that still say something: at most MAX_GATES of keys, and of models."""
    active = [key for key, gate in gates.items() if gate.retry_at is not None or gate.is_unstable(now_ms)]
    by_age = sorted(active, key=lambda key: (gates[key].stats.failures or ((0, ""),))[-1])
    owners = [key for key in by_age if key[0]][-MAX_GATES:]
    models = [key for key in by_age if key[1] and not key[0]][-MAX_GATES:]
    return {key: gates[key] for key in [PROVIDER_GATE, *models, *owners] if key in gates}


class CircuitStore(Protocol):
    """Where circuits are shared."""

    def read_all(self) -> dict[str, Circuit]:
        """Every circuit that anything is known of, by its provider's name, in one read."""
        ...

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        """Store `new`, which has a stamp of its own, if `old` is still stored, or nothing; what then is stored.

        A write that was already made by this very call, but never confirmed, counts as made.
        """
        ...
