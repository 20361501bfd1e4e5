"""The breaker against a reference model of its rules: the rejected calls of several API keys within a minute.

One container sees every outcome immediately. Delays between containers are tested in
test_breaker and test_breaker_races.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiserver.circuit_breaker.circuit import (
    FAILURE_THRESHOLD,
    MAX_PROBES,
    MIN_CALLS,
    MIN_OWNERS,
    OPEN_MS,
    SHARED_CONFIRM_MS,
    Circuit,
)
from aiserver.errors import ProviderError, ProviderRejected, ProviderUnavailable
from aiserver.providers.response import ProviderResponse
from tests.containers import Fleet
from tests.examples import examples

OUTCOMES = {
    "good": None,
    "refused": ProviderUnavailable("no connection"),
    "503": ProviderUnavailable(upstream=ProviderResponse(503, {}, b"{}")),
    "500": ProviderError(upstream=ProviderResponse(500, {}, b"{}")),
    "400": ProviderRejected(upstream=ProviderResponse(400, {}, b"{}")),
}
FAILURES = {"refused", "503", "500"}
MINUTE_MS = 59_000  # shorter than the window: no outcome expires


@dataclass(eq=False)
class ReferenceGate:
    """Outcomes since the gate last closed: time, outcome, owner, request. Open while `retry_at` is set."""

    outcomes: list[tuple[int, str, str, str]] = field(default_factory=list[tuple[int, str, str, str]])
    retry_at: int | None = None
    probes: list[str] = field(default_factory=list[str])  # owners that probed in this period

    @property
    def consecutive_failures(self) -> list[tuple[int, str, str, str]]:
        """Return the failures since the last success."""
        successes = [i for i, (_, outcome, *_) in enumerate(self.outcomes) if outcome == "good"]
        return self.outcomes[successes[-1] + 1 if successes else 0 :]

    def has_failed(self) -> bool:
        return any(outcome in FAILURES for _, outcome, *_ in self.outcomes)

    def is_failing(self) -> bool:
        failures = sum(outcome in FAILURES for _, outcome, *_ in self.outcomes)
        has_threshold = len(self.consecutive_failures) >= FAILURE_THRESHOLD
        has_majority = len(self.outcomes) >= MIN_CALLS and 2 * failures > len(self.outcomes)
        return (has_threshold or has_majority) and not self._is_one_request()

    def _is_one_request(self) -> bool:
        """Return whether the latest failures are all status 500 for the same request."""
        latest = {(outcome, request) for _, outcome, _, request in self.consecutive_failures[-FAILURE_THRESHOLD:]}
        return len(latest) == 1 and next(iter(latest))[0] == "500"

    def is_failing_for_all(self, now: int) -> bool:
        owners = Counter(owner for _, _, owner, _ in self.consecutive_failures[-FAILURE_THRESHOLD:])
        has_many_owners = len(owners) >= MIN_OWNERS and max(owners.values()) <= FAILURE_THRESHOLD - MIN_OWNERS
        return (
            len(self.consecutive_failures) >= FAILURE_THRESHOLD
            and has_many_owners
            and self.consecutive_failures[0][0] <= now - SHARED_CONFIRM_MS
        )

    def allows_early_probe(self, owner: str) -> bool:
        """Return whether an owner may probe a shared open gate before the end of its period."""
        caused_opening = (
            sum(failed_owner == owner for _, _, failed_owner, _ in self.consecutive_failures[-FAILURE_THRESHOLD:]) > 1
        )
        is_excluded = owner in self.probes or (self.is_in_first_period and caused_opening)
        return not is_excluded and len(self.probes) < MAX_PROBES

    @property
    def is_in_first_period(self) -> bool:
        return self.probes[:1] in ([], [""])

    def close(self) -> None:
        self.retry_at, self.outcomes, self.probes = None, [], []


class Reference:
    """The rules of docs/providers.md, Circuits, for one provider and one container."""

    def __init__(self) -> None:
        self.gates: dict[tuple[str, str], ReferenceGate] = defaultdict(ReferenceGate)

    def opens_by_success(self, owner: str, model: str, begin_ms: int, circuit: Circuit) -> bool:
        """Return whether a counted success opens a gate because more than half of the calls had failed.

        The breaker writes a success immediately only when it ends consecutive failures. The model therefore takes the
        opening time from the breaker.
        """
        opening_gates = [
            (gate, retry_at - begin_ms)
            for key in (("", ""), (owner, model))
            if (gate := self.gates[key]).retry_at is None
            and gate.is_failing()
            and (retry_at := circuit.gate(key).retry_at)
        ]
        for gate, retry_at in opening_gates:
            gate.retry_at = retry_at
        return bool(opening_gates)

    def admits(self, owner: str, model: str, outcome: str, request: str, now: int) -> bool:
        """Return whether the call is admitted; it then ends immediately with `outcome`."""
        provider_gate, model_gate, owner_gate = (self.gates[key] for key in (("", ""), ("", model), (owner, model)))
        gates = (provider_gate, model_gate, owner_gate)
        early = [gate for gate in (provider_gate, model_gate) if gate.allows_early_probe(owner)]
        if provider_gate in early and provider_gate.is_in_first_period:
            early.remove(provider_gate)
        if any(gate.retry_at is not None and now < gate.retry_at for gate in gates if gate not in early):
            return False
        open_gates = [gate for gate in gates if gate.retry_at is not None]
        if not open_gates:
            self._count(gates, (now, outcome, owner, request))
        elif outcome in FAILURES:
            self._probe_failed(gates, (now, outcome, owner, request))
        else:
            for gate in gates:
                if gate in open_gates:
                    gate.close()
                elif gate.has_failed():  # the breaker stores only such gates, and counts a probe nowhere else
                    gate.outcomes.append((now, "good", owner, request))
        if outcome in FAILURES and model_gate.retry_at is None and model_gate.is_failing_for_all(now):
            model_gate.retry_at = now + OPEN_MS
        return True

    def _probe_failed(self, gates: tuple[ReferenceGate, ...], call: tuple[int, str, str, str]) -> None:
        provider_gate, model_gate, owner_gate = gates
        now, outcome, owner, _ = call
        if model_gate.retry_at is None:
            model_gate.outcomes.append(call)
        if owner_gate.retry_at is not None:
            owner_gate.retry_at = now + OPEN_MS
        if outcome != "refused" and provider_gate.retry_at is not None:
            provider_gate.close()
        for gate in (provider_gate, model_gate):
            if gate.retry_at is not None and gate.retry_at <= now:
                gate.retry_at, gate.probes = now + OPEN_MS, [owner]
            elif gate.retry_at is not None:
                gate.probes = [*(gate.probes or [""]), owner]

    def _count(self, gates: tuple[ReferenceGate, ...], call: tuple[int, str, str, str]) -> None:
        provider_gate, model_gate, owner_gate = gates
        outcome = call[1]
        counting_gates = {"good": gates, "refused": gates, "400": ()}.get(outcome, (model_gate, owner_gate))
        for gate in counting_gates:
            gate.outcomes.append(call)
        for gate in (provider_gate, owner_gate):
            if gate in counting_gates and outcome in FAILURES and gate.is_failing():
                gate.retry_at = call[0] + OPEN_MS


@dataclass(frozen=True)
class Burst:
    """Consecutive calls that cycle through owners, outcomes and requests."""

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
    [  # a failed probe counts as a failure of its model
        Burst("a", "m", ("503",), "x", 5, 1),
        Burst("c", "m", ("good",), "x", 1, 1),
        Burst("a", "m", ("503",), "x", 1, OPEN_MS),
        Burst("b", "m", ("503",), "x", 2, 2_000),
        Burst("c", "m", ("503",), "x", 2, 3_000),
        Burst("b", "m", ("good",), "x", 1, 1),
    ]
)
@example(
    [  # the success of a probe does not count at a gate without failures
        *[Burst("a", "m", ("good",), "x", 1, 1)] * 3,
        Burst("a", "n", ("refused",), "x", 5, 1),
        Burst("a", "m", ("good",), "x", 2, OPEN_MS),
        Burst("a", "m", ("503", "503", "good"), "x", 5, 1),
        Burst("a", "m", ("refused",), "x", 3, 1),
    ]
)
def test_breaker_admits_exactly_the_calls_of_the_reference_model(bursts: list[Burst]) -> None:
    fleet, reference = Fleet(1), Reference()
    begin_ms, now = fleet.clock.now + 1, 0  # a call advances the clock of the fleet by 1 ms
    for burst in bursts:
        for number in range(burst.calls):
            now += burst.gap_ms
            if now > MINUTE_MS:
                return
            owner, outcome, request = (
                cycle[number % len(cycle)] for cycle in (burst.owners, burst.outcomes, burst.requests)
            )
            fleet.clock.now = begin_ms + now - 1
            is_admitted = fleet.call(
                0, OUTCOMES[outcome], owner=owner, model=burst.model, request=lambda name=request: name
            )
            circuit = fleet.circuits.stored.get("p", Circuit())
            if is_admitted or not reference.opens_by_success(owner, burst.model, begin_ms, circuit):
                assert is_admitted == reference.admits(owner, burst.model, outcome, request, now), (
                    owner,
                    burst,
                    number,
                )
