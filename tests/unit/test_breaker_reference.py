"""The breaker against a reference model of its rules: which calls it refuses, of several keys within a minute.

One container sees every outcome at once. Delays between containers are tested in test_breaker and test_breaker_races.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiserver.errors import ProviderError, ProviderRejected, ProviderResponse, ProviderUnavailable
from aiserver.providers.circuit import (
    FAILURE_THRESHOLD,
    MAX_PROBES,
    MIN_CALLS,
    MIN_OWNERS,
    OPEN_MS,
    SHARED_CONFIRM_MS,
    Circuit,
)
from tests.containers import Fleet
from tests.examples import examples

OUTCOMES = {
    "good": None,
    "refused": ProviderUnavailable("no connection"),
    "503": ProviderUnavailable(upstream=ProviderResponse(503, {}, b"{}")),
    "500": ProviderError(upstream=ProviderResponse(500, {}, b"{}")),
    "400": ProviderRejected(upstream=ProviderResponse(400, {}, b"{}")),
}
BAD = {"refused", "503", "500"}
MINUTE_MS = 59_000  # within which no outcome is too old to count


@dataclass(eq=False)
class ReferenceGate:
    """Outcomes since it was last closed: when, how, whose, and of which request. Open while `retry_at` is set."""

    outcomes: list[tuple[int, str, str, str]] = field(default_factory=list[tuple[int, str, str, str]])
    retry_at: int | None = None
    probes: list[str] = field(default_factory=list[str])  # keys that have tried it in this period

    @property
    def row(self) -> list[tuple[int, str, str, str]]:
        """The failures since the last success."""
        successes = [i for i, (_, outcome, *_) in enumerate(self.outcomes) if outcome == "good"]
        return self.outcomes[successes[-1] + 1 if successes else 0 :]

    def is_bad(self) -> bool:
        failures = sum(outcome in BAD for _, outcome, *_ in self.outcomes)
        is_row = len(self.row) >= FAILURE_THRESHOLD
        is_half = len(self.outcomes) >= MIN_CALLS and 2 * failures > len(self.outcomes)
        return (is_row or is_half) and not self._is_one_request()

    def _is_one_request(self) -> bool:
        """Whether the latest failures are all status 500 to the same request."""
        latest = {(outcome, request) for _, outcome, _, request in self.row[-FAILURE_THRESHOLD:]}
        return len(latest) == 1 and next(iter(latest))[0] == "500"

    def is_bad_for_all(self, now: int) -> bool:
        owners = Counter(owner for _, _, owner, _ in self.row[-FAILURE_THRESHOLD:])
        is_of_many = len(owners) >= MIN_OWNERS and max(owners.values()) <= FAILURE_THRESHOLD - MIN_OWNERS
        return len(self.row) >= FAILURE_THRESHOLD and is_of_many and self.row[0][0] <= now - SHARED_CONFIRM_MS

    def lets_probe(self, owner: str) -> bool:
        """Whether a key may try a shared open gate before its period is over."""
        has_opened_it = sum(who == owner for _, _, who, _ in self.row[-FAILURE_THRESHOLD:]) > 1
        is_out = owner in self.probes or (self.is_in_first_period and has_opened_it)
        return not is_out and len(self.probes) < MAX_PROBES

    @property
    def is_in_first_period(self) -> bool:
        return self.probes[:1] in ([], [""])

    def close(self) -> None:
        self.retry_at, self.outcomes, self.probes = None, [], []


class Reference:
    """docs/providers.md, Circuits, of one provider and one container."""

    def __init__(self) -> None:
        self.gates: dict[tuple[str, str], ReferenceGate] = defaultdict(ReferenceGate)

    def opened_by_a_success(self, owner: str, model: str, began: int, circuit: Circuit) -> bool:
        """Whether more than half of the calls had failed when a success was counted, which may open a gate, too.

        That success is written at once only where it ends a row, so when the gate opens is the breaker's own affair.
        """
        opened = [
            (gate, at - began)
            for key in (("", ""), (owner, model))
            if (gate := self.gates[key]).retry_at is None and gate.is_bad() and (at := circuit.gate(key).retry_at)
        ]
        for gate, at in opened:
            gate.retry_at = at
        return bool(opened)

    def admits(self, owner: str, model: str, outcome: str, request: str, now: int) -> bool:
        """Whether the call is made; it ends at once in this way."""
        everyone, of_model, of_owner = (self.gates[key] for key in (("", ""), ("", model), (owner, model)))
        gates = (everyone, of_model, of_owner)
        early = [gate for gate in (everyone, of_model) if gate.lets_probe(owner)]
        if everyone in early and everyone.is_in_first_period:
            early.remove(everyone)
        if any(gate.retry_at is not None and now < gate.retry_at for gate in gates if gate not in early):
            return False
        open_gates = [gate for gate in gates if gate.retry_at is not None]
        if not open_gates:
            self._count(gates, (now, outcome, owner, request))
        elif outcome in BAD:
            self._probe_failed(gates, (now, outcome, owner, request))
        else:
            for gate in gates:
                if gate in open_gates:
                    gate.close()
                else:
                    gate.outcomes.append((now, "good", owner, request))
        if outcome in BAD and of_model.retry_at is None and of_model.is_bad_for_all(now):
            of_model.retry_at = now + OPEN_MS
        return True

    def _probe_failed(self, gates: tuple[ReferenceGate, ...], ended: tuple[int, str, str, str]) -> None:
        everyone, of_model, of_owner = gates
        now, outcome, owner, _ = ended
        if of_model.retry_at is None:
            of_model.outcomes.append(ended)
        if of_owner.retry_at is not None:
            of_owner.retry_at = now + OPEN_MS
        if outcome != "refused" and everyone.retry_at is not None:
            everyone.close()
        for gate in (everyone, of_model):
            if gate.retry_at is not None and gate.retry_at <= now:
                gate.retry_at, gate.probes = now + OPEN_MS, [owner]
            elif gate.retry_at is not None:
                gate.probes = [*(gate.probes or [""]), owner]

    def _count(self, gates: tuple[ReferenceGate, ...], ended: tuple[int, str, str, str]) -> None:
        everyone, of_model, of_owner = gates
        outcome = ended[1]
        counting = {"good": gates, "refused": gates, "400": ()}.get(outcome, (of_model, of_owner))
        for gate in counting:
            gate.outcomes.append(ended)
        for gate in (everyone, of_owner):
            if gate in counting and outcome in BAD and gate.is_bad():
                gate.retry_at = ended[0] + OPEN_MS


@dataclass(frozen=True)
class Burst:
    """Calls one after another, of these owners, with these outcomes and requests in turn."""

    owners: str
    model: str
    outcomes: tuple[str, ...]
    requests: str
    calls: int
    gap_ms: int


BURSTS = st.lists(
    st.builds(
        Burst,
        owners=st.sampled_from(["a", "b", "ab", "aab", "abc"]),
        model=st.sampled_from(["m", "m", "n"]),
        outcomes=st.sampled_from(
            [
                ("good",),
                ("400",),
                ("refused",),
                ("503",),
                ("500",),
                ("503", "good"),
                ("503", "503", "good"),
                ("400", "500"),
            ]
        ),
        requests=st.sampled_from(["x", "xxxy", "xy"]),
        calls=st.integers(1, 10),
        gap_ms=st.sampled_from([1, 300, 1_000, 2_000, OPEN_MS]),
    ),
    max_size=12,
)


@settings(max_examples=examples(1_000))
@given(BURSTS)
@example(
    [  # a probe that fails counts among the failures of its model
        Burst("a", "m", ("503",), "x", 5, 1),
        Burst("c", "m", ("good",), "x", 1, 1),
        Burst("a", "m", ("503",), "x", 1, OPEN_MS),
        Burst("b", "m", ("503",), "x", 2, 2_000),
        Burst("c", "m", ("503",), "x", 2, 3_000),
        Burst("b", "m", ("good",), "x", 1, 1),
    ]
)
def test_calls_are_admitted_and_refused_as_the_rules_say(bursts: list[Burst]) -> None:
    fleet, reference = Fleet(1), Reference()
    began, now = fleet.clock.now + 1, 0  # a call takes the fleet's clock on by one
    for burst in bursts:
        for number in range(burst.calls):
            now += burst.gap_ms
            if now > MINUTE_MS:
                return
            owner, outcome, request = (
                given[number % len(given)] for given in (burst.owners, burst.outcomes, burst.requests)
            )
            fleet.clock.now = began + now - 1
            admitted = fleet.call(
                0, OUTCOMES[outcome], owner=owner, model=burst.model, request=lambda name=request: name
            )
            circuit = fleet.circuits.stored.get("p", Circuit())
            if admitted or not reference.opened_by_a_success(owner, burst.model, began, circuit):
                assert admitted == reference.admits(owner, burst.model, outcome, request, now), (owner, burst, number)
