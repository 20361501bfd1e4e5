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

ROW = 5
LEAST = 10
WINDOW_S = 60
TOLD_MS = 6_000  # by then every container has read that calls fail, and told of those that went well
TRIAL_MS = 30_000  # most calls are over by then; one that goes on for minutes lets another be the trial
OPEN_MS = 25_000  # with TRIAL_MS and the age of what a container knows, under a minute
LEAST_OWNERS = 2
ALL_TOLD_MS = 8_000  # the same, of calls that take a while: nobody's success may be overlooked for somebody's failures
RECENT_MS = 300_000  # without a trial for so long, an open circuit is idle and is not reported
MAX_PROBES = 3  # two keys that fail leave one for another
NO_TRIAL_YET = ("",)  # stands in `probes` for the key of the trial, which comes when the period is over
MAX_GATES = 8  # of keys and models that fail, and of models: the item stays small, however many fail

# When, in milliseconds, and what may be at fault itself: the hash of a request, or, at a model's gate, the key.
Failure = tuple[int, str]


@dataclass(frozen=True)
class Tally:
    """Outcomes of calls: in each second how many went well and how many failed; times in milliseconds.

    `good_at` is when one last went well, `bad_since` since when all failed, `bad` the last ROW of those that did.
    """

    seconds: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    good_at: int = 0
    bad_since: int = 0
    bad: tuple[Failure, ...] = ()

    @classmethod
    def of(cls, now_ms: int, *, is_good: bool, request: str = "") -> "Tally":
        """One call that ended now."""
        second = now_ms // 1000
        return cls({second: (1, 0)}, now_ms) if is_good else cls({second: (0, 1)}, 0, now_ms, ((now_ms, request),))

    def plus(self, other: "Tally", now_ms: int) -> "Tally":
        """Both, whichever came first, without what is older than the window.

        `bad_since` may then be later than the truth, by less than either spans: of two rows of failures with a success
        between, one container's tally holds the last ROW only. A gate opens no sooner for it.
        """
        oldest, seconds = now_ms // 1000 - WINDOW_S, dict[int, tuple[int, int]]()
        for second, (good, bad) in (*self.seconds.items(), *other.seconds.items()):
            if second > oldest:
                before = seconds.get(second, (0, 0))
                seconds[second] = (before[0] + good, before[1] + bad)
        good_at = max(self.good_at, other.good_at)
        failures = sorted(one for one in self.bad + other.bad if one[0] > good_at)
        since = [at for at in (self.bad_since, other.bad_since, *(at for at, _ in failures)) if at > good_at]
        return Tally(seconds, good_at, min(since, default=0), tuple(failures[-ROW:]))

    def is_bad(self, for_ms: int, now_ms: int) -> bool:
        """Whether it is as bad as a gate opens by, and has been for so long."""
        good = sum(counts[0] for counts in self.seconds.values())
        bad = sum(counts[1] for counts in self.seconds.values())
        first = min((second for second, (_, failed) in self.seconds.items() if failed), default=0) * 1000
        is_row = len(self.bad) >= ROW and self.bad_since <= now_ms - for_ms
        is_half = good + bad >= LEAST and bad > good and first <= now_ms - for_ms
        return (is_row or is_half) and not self._is_of_one_request

    @property
    def _is_of_one_request(self) -> bool:
        """Whether all failures since the last success are of one request, which may be at fault itself."""
        requests = {request for _, request in self.bad}
        return len(requests) == 1 and "" not in requests


@dataclass(frozen=True)
class Gate:
    """Lets calls pass while it is closed.

    `ask_at` is when an open one may be tried, in milliseconds; None when it is closed. `probes` are the keys that have
    tried an open shared gate in this period, the one that has the trial first.
    """

    tally: Tally = Tally()
    ask_at: int | None = None
    probes: tuple[str, ...] = ()

    @property
    def is_in_first_period(self) -> bool:
        """Whether it is open, and nobody has had its trial yet."""
        return self.probes[:1] in ((), NO_TRIAL_YET)

    def lets_probe(self, owner: str) -> bool:
        """Whether a key may try this open shared gate before its time: it has not done so in this period.

        In the first period, a key with more than one of the failures that opened a model's gate may not.
        """
        has_failed = self.is_in_first_period and sum(who == owner for _, who in self.tally.bad) > 1
        return owner not in self.probes and not has_failed and len(self.probes) < MAX_PROBES

    def counting(self, seen: Tally, now_ms: int) -> "Gate":
        """With what was seen besides; calls that were under way when it opened change nothing."""
        return self if self.ask_at is not None else Gate(self.tally.plus(seen, now_ms))

    def after(self, seen: Tally, now_ms: int, is_certain: bool = False) -> "Gate":
        """The same, open where that is bad enough; `is_certain` where one container alone has seen so much."""
        counted = self.counting(seen, now_ms)
        opens = self.ask_at is None and counted.tally.is_bad(0 if is_certain else TOLD_MS, now_ms)
        return replace(counted, ask_at=now_ms + OPEN_MS) if opens else counted

    def is_troubled(self, now_ms: int) -> bool:
        """Whether others may be changing it just now: it is open and being tried, or calls have failed lately."""
        oldest = now_ms // 1000 - WINDOW_S
        is_tried = self.ask_at is not None and self.ask_at // 1000 > oldest
        return is_tried or any(bad and second > oldest for second, (_, bad) in self.tally.seconds.items())


Key = tuple[str, str]  # whose calls a gate is for: a key's id, and a model by the provider's own name for it
EVERYONE = ("", "")


def keys_of(owner: str, model: str) -> tuple[Key, Key, Key]:
    """The gates that a call of that owner and model has to pass: everyone's, the model's, the owner's."""
    return EVERYONE, ("", model), (owner, model)


@dataclass(frozen=True)
class Circuit:
    """One provider's gates, as all functions share them. `stamp` names its last writer's write."""

    gates: Mapping[Key, Gate] = field(default_factory=dict[Key, Gate])
    stamp: str = ""

    def gate(self, key: Key) -> Gate:
        return self.gates.get(key, CLOSED)

    def ask_at(self, owner: str, model: str) -> int | None:
        """When a call may be tried, in milliseconds; None where it passes, 0 where it may be tried at once."""
        waits = (
            0 if _is_shared(key, gate) and gate.lets_probe(owner) else gate.ask_at or 0
            for key, gate in self._open(owner, model)
        )
        return max(waits, default=None)

    def after(self, seen: Mapping[Key, Tally], now_ms: int, *, certain: Collection[Key] = ()) -> "Circuit":
        """With what was seen besides; `certain` are the gates that one container alone has seen enough to open."""
        gates = dict(self.gates)
        for key, tally in seen.items():
            gate, is_of_model = self.gate(key), key != EVERYONE and not key[0]
            gates[key] = gate.counting(tally, now_ms) if is_of_model else gate.after(tally, now_ms, key in certain)
        for key in [key for key in seen if key != EVERYONE and not key[0]]:
            if gates[key].ask_at is None and _has_failed_for_all(gates[key].tally, now_ms):
                gates[key] = replace(gates[key], ask_at=now_ms + OPEN_MS)
        return replace(self, gates=_bounded(gates, now_ms))

    def on_trial(self, owner: str, model: str, now_ms: int) -> "Circuit":
        """While the trial that begins now is under way, at each gate that is open to it."""
        tried: dict[Key, Gate] = {}
        for key, gate in self._open(owner, model):
            if (gate.ask_at or 0) <= now_ms:
                tried[key] = replace(gate, ask_at=now_ms + TRIAL_MS, probes=() if key[0] else (owner,))
            else:  # a key that may try before others may
                tried[key] = replace(gate, probes=(*(gate.probes or NO_TRIAL_YET), owner))
        return self._with(tried)

    def tried(
        self, trial: "Circuit", owner: str, model: str, began_ms: int, now_ms: int, *, is_hard: bool
    ) -> "Circuit":
        """After that trial has failed now. What began long ago says little: it keeps nobody from asking soon.

        A call that was connected, which is not `is_hard`, closes the gate of everyone.
        """
        ask_at = min(now_ms, began_ms + TRIAL_MS) + OPEN_MS
        ours = {key: gate for key, gate in self._open(owner, model) if gate.ask_at == trial.gate(key).ask_at}
        tried = {key: replace(gate, ask_at=ask_at) for key, gate in ours.items() if _is_trial_of(gate, owner)}
        if not is_hard and self.gate(EVERYONE).ask_at is not None:
            tried[EVERYONE] = Gate(Tally({}, now_ms))
        counted = self._with(tried)
        failed = Tally.of(now_ms, is_good=False, request=owner)
        return counted.after({_of_all(model): failed}, now_ms) if ours else counted

    def closed(self, owner: str, model: str, now_ms: int) -> "Circuit":
        """After a call that has gone well though gates were open to it: at the others it counts as any success."""
        opened = dict(self._open(owner, model))
        if not opened:
            return self
        good = Tally.of(now_ms, is_good=True)
        counting = {key for key in keys_of(owner, model) if key not in opened} | {_of_all(model)}
        closed = self._with({key: Gate(Tally({}, now_ms)) for key in opened})
        return closed.after(dict.fromkeys(counting, good), now_ms)

    def is_open_to_all(self, now_ms: int) -> bool:
        """Whether the provider, or one of its models, refuses the calls of every key, and calls have come lately."""
        open_until = [gate.ask_at for (owner, _), gate in self.gates.items() if not owner]
        return any(at is not None and at > now_ms - RECENT_MS for at in open_until)

    def is_troubled(self, now_ms: int) -> bool:
        """Whether others may be changing it just now."""
        return any(gate.is_troubled(now_ms) for gate in self.gates.values())

    def _open(self, owner: str, model: str) -> Iterator[tuple[Key, Gate]]:
        return ((key, gate) for key in keys_of(owner, model) if (gate := self.gate(key)).ask_at is not None)

    def _with(self, gates: Mapping[Key, Gate]) -> "Circuit":
        return replace(self, gates={**self.gates, **gates}) if gates else self


CLOSED = Gate()


def _of_all(model: str) -> Key:
    return "", model


def _is_shared(key: Key, gate: Gate) -> bool:
    """Whether several keys may try an open gate in one period."""
    return not gate.is_in_first_period if key == EVERYONE else not key[0]


def _is_trial_of(gate: Gate, owner: str) -> bool:
    """Whether the trial under way is this key's own, and not one that another key may make beside it."""
    return gate.probes[:1] in ((), (owner,))


def _has_failed_for_all(tally: Tally, now_ms: int) -> bool:
    """Whether it is a model that fails, and not the requests of one key."""
    owners = Counter(owner for _, owner in tally.bad)
    is_of_many = len(owners) >= LEAST_OWNERS and max(owners.values()) <= ROW - LEAST_OWNERS
    return len(tally.bad) >= ROW and is_of_many and tally.bad_since <= now_ms - ALL_TOLD_MS


def _bounded(gates: Mapping[Key, Gate], now_ms: int) -> dict[Key, Gate]:
    """Everyone's, and of the others those that still say something: at most MAX_GATES of keys, and of models."""
    active = [key for key, gate in gates.items() if gate.ask_at is not None or gate.is_troubled(now_ms)]
    by_age = sorted(active, key=lambda key: (gates[key].tally.bad or ((0, ""),))[-1])
    owners = [key for key in by_age if key[0]][-MAX_GATES:]
    models = [key for key in by_age if key[1] and not key[0]][-MAX_GATES:]
    return {key: gates[key] for key in [EVERYONE, *models, *owners] if key in gates}


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
