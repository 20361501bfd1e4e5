"""Limits of the circuit breaker's rules, exactly at each limit and one beyond: numbers are literal, not imported."""

from collections.abc import Iterable
from functools import reduce

import pytest

from aiserver.circuit_breaker.circuit import PROVIDER_GATE, CallStats, Circuit, Gate, GateKey, gate_keys

NOW_MS = 1_800_000_000_000
MODEL = "m"
MODEL_GATE = ("", MODEL)


def failure(at_ms: int = NOW_MS, cause: str = "") -> CallStats:
    return CallStats.for_call(at_ms, is_success=False, request=cause)


def success(at_ms: int = NOW_MS) -> CallStats:
    return CallStats.for_call(at_ms, is_success=True)


def merge_all(outcomes: Iterable[CallStats], now_ms: int = NOW_MS) -> CallStats:
    return reduce(lambda merged, outcome: merged.merge(outcome, now_ms), outcomes, CallStats())


def failures_of(owners: str, since_ms: int = NOW_MS - 8_000) -> CallStats:
    """Return failures of a model, one per letter: the letter is the owner, the first failure is at `since_ms`."""
    return merge_all(failure(since_ms + number, owner) for number, owner in enumerate(owners))


def is_open(circuit: Circuit, owner: str = "another", model: str = MODEL) -> bool:
    return circuit.retry_at(owner, model) is not None


@pytest.mark.parametrize(("duration_ms", "opens"), [(7_999, False), (8_000, True)])
def test_model_gate_opens_after_eight_seconds_of_failures(duration_ms: int, opens: bool) -> None:
    stats = failures_of("ababa", NOW_MS - duration_ms)
    assert is_open(Circuit().with_outcomes({MODEL_GATE: stats}, NOW_MS)) == opens


@pytest.mark.parametrize(
    ("owners", "opens"), [("abab", False), ("ababa", True), ("aaaab", False), ("aaabb", True), ("aaaaa", False)]
)
def test_model_gate_opens_for_five_failures_of_two_owners(owners: str, opens: bool) -> None:
    circuit = Circuit().with_outcomes({MODEL_GATE: failures_of(owners)}, NOW_MS)
    assert circuit.gate(MODEL_GATE).retry_at == (NOW_MS + 25_000 if opens else None)


@pytest.mark.parametrize(("duration_ms", "opens"), [(5_999, False), (6_000, True)])
def test_owner_gate_opens_after_six_seconds_of_failures(duration_ms: int, opens: bool) -> None:
    stats = merge_all(failure(NOW_MS - duration_ms, str(number)) for number in range(5))
    circuit = Circuit().with_outcomes({("a", MODEL): stats}, NOW_MS)
    assert circuit.gate(("a", MODEL)).retry_at == (NOW_MS + 25_000 if opens else None)


@pytest.mark.parametrize(("failures", "opens"), [(4, False), (5, True)])
def test_owner_gate_opens_at_once_for_five_certain_failures(failures: int, opens: bool) -> None:
    key = ("a", MODEL)
    stats = merge_all(failure() for _ in range(failures))
    assert is_open(Circuit().with_outcomes({key: stats}, NOW_MS, certain={key}), "a") == opens


@pytest.mark.parametrize(
    ("successes", "failures", "opens"), [(4, 5, False), (4, 6, True), (5, 5, False), (5, 6, True), (3, 6, False)]
)
def test_gate_opens_when_over_half_of_ten_calls_fail(successes: int, failures: int, opens: bool) -> None:
    """The last call succeeds, so that no failures are consecutive."""
    calls = [*(failure() for _ in range(failures)), *(success(NOW_MS + 1) for _ in range(successes))]
    assert merge_all(calls).should_open(0, NOW_MS) == opens


@pytest.mark.parametrize(("second", "opens"), [(NOW_MS // 1000 - 6, True), (NOW_MS // 1000 - 5, False)])
def test_majority_must_fail_for_the_confirm_time(second: int, opens: bool) -> None:
    stats = CallStats({second: (4, 6)}, NOW_MS)
    assert stats.should_open(6_000, NOW_MS) == opens


@pytest.mark.parametrize(("age_ms", "failures"), [(0, 0), (1, 1)])
def test_success_ends_the_failures_until_its_own_time(age_ms: int, failures: int) -> None:
    merged = failure().merge(success(NOW_MS - age_ms), NOW_MS)
    assert (len(merged.failures), merged.failing_since) == (failures, NOW_MS if failures else 0)


@pytest.mark.parametrize(("age_s", "counts"), [(59, 1), (60, 0)])
def test_merged_stats_drop_outcomes_of_sixty_seconds_ago(age_s: int, counts: int) -> None:
    assert len(failure(NOW_MS - age_s * 1000).merge(CallStats(), NOW_MS).per_second) == counts


@pytest.mark.parametrize(("age_s", "unstable"), [(59, True), (60, False)])
def test_circuit_is_unstable_for_sixty_seconds_after_a_failure(age_s: int, unstable: bool) -> None:
    gate = Gate(failure(NOW_MS - age_s * 1000))
    assert Circuit({PROVIDER_GATE: gate}).is_unstable(NOW_MS) == unstable


@pytest.mark.parametrize(("age_s", "unstable"), [(59, True), (60, False)])
def test_circuit_is_unstable_for_sixty_seconds_after_a_probe(age_s: int, unstable: bool) -> None:
    circuit = Circuit({PROVIDER_GATE: Gate(retry_at=NOW_MS - age_s * 1000)})
    assert circuit.is_unstable(NOW_MS) == unstable


def test_successes_alone_leave_a_circuit_stable() -> None:
    assert not Circuit({PROVIDER_GATE: Gate(success())}).is_unstable(NOW_MS)


def test_three_owners_probe_an_open_model_gate_in_each_period() -> None:
    circuit = Circuit({MODEL_GATE: Gate(retry_at=NOW_MS)}).half_open("a", MODEL, NOW_MS)
    for owner in ("b", "c"):
        assert circuit.retry_at(owner, MODEL) == 0
        circuit = circuit.half_open(owner, MODEL, NOW_MS)
    assert circuit.gate(MODEL_GATE).probes == ("a", "b", "c")
    assert [circuit.retry_at(owner, MODEL) for owner in "abcd"] == [NOW_MS + 30_000] * 4


def test_two_owners_probe_a_model_gate_before_its_first_regular_probe() -> None:
    circuit = Circuit({MODEL_GATE: Gate(retry_at=NOW_MS + 1)})
    for owner in ("b", "c"):
        assert circuit.retry_at(owner, MODEL) == 0
        circuit = circuit.half_open(owner, MODEL, NOW_MS)
    assert circuit.gate(MODEL_GATE).retry_at == NOW_MS + 1  # the regular probe is still due then
    assert circuit.retry_at("d", MODEL) == NOW_MS + 1
    assert circuit.half_open("d", MODEL, NOW_MS + 1).gate(MODEL_GATE).probes == ("d",)


@pytest.mark.parametrize(("failures", "retry_at"), [(1, 0), (2, NOW_MS + 25_000)])
def test_owner_with_two_failures_may_not_probe_in_the_first_period(failures: int, retry_at: int) -> None:
    stats = failures_of("b" * failures + "c" * (5 - failures))
    circuit = Circuit({MODEL_GATE: Gate(stats, NOW_MS + 25_000)})
    assert circuit.retry_at("b", MODEL) == retry_at


def test_provider_gate_allows_no_second_probe_in_the_first_period() -> None:
    circuit = Circuit({PROVIDER_GATE: Gate(retry_at=NOW_MS)})
    assert circuit.retry_at("a", MODEL) == NOW_MS
    circuit = circuit.half_open("a", MODEL, NOW_MS)
    assert [circuit.retry_at(owner, MODEL) for owner in "ab"] == [NOW_MS + 30_000, 0]


@pytest.mark.parametrize(("now_ms", "probes"), [(NOW_MS - 1, ("", "b")), (NOW_MS, ("b",))])
def test_regular_probe_begins_exactly_at_its_time(now_ms: int, probes: tuple[str, ...]) -> None:
    circuit = Circuit({MODEL_GATE: Gate(retry_at=NOW_MS)}).half_open("b", MODEL, now_ms)
    assert circuit.gate(MODEL_GATE).probes == probes


def test_circuit_keeps_the_eight_latest_gates_of_owners_and_of_models() -> None:
    owners, models = [(f"{number}", MODEL) for number in range(9)], [("", f"{number}") for number in range(9)]
    outcomes = {key: failure(NOW_MS + 1 + number) for keys in (owners, models) for number, key in enumerate(keys)}
    eight = {key: stats for key, stats in outcomes.items() if key not in (owners[8], models[8])}
    circuit = Circuit().with_outcomes({PROVIDER_GATE: failure(), **eight}, NOW_MS + 9)
    assert set(circuit.gates) == {PROVIDER_GATE, *owners[:8], *models[:8]}
    circuit = circuit.with_outcomes({key: outcomes[key] for key in (owners[8], models[8])}, NOW_MS + 9)
    assert set(circuit.gates) == {PROVIDER_GATE, *owners[1:], *models[1:]}


def test_circuit_drops_the_gates_of_owners_and_models_without_failures() -> None:
    keys = gate_keys("a", MODEL)
    circuit = Circuit().with_outcomes(dict.fromkeys(keys, success()), NOW_MS)
    assert set(circuit.gates) == {PROVIDER_GATE}


@pytest.mark.parametrize("is_hard", [True, False])
def test_probe_that_connects_closes_the_provider_gate(is_hard: bool) -> None:
    circuit = Circuit({PROVIDER_GATE: Gate(failure(), NOW_MS)})
    probe = circuit.half_open("a", MODEL, NOW_MS)
    ended = probe.probe_failed(probe, "a", MODEL, NOW_MS, NOW_MS + 7, is_hard=is_hard)
    expected = Gate(failure(), NOW_MS + 7 + 25_000, ("a",)) if is_hard else Gate(CallStats({}, NOW_MS + 7))
    assert ended.gate(PROVIDER_GATE) == expected


@pytest.mark.parametrize("is_hard", [True, False])
def test_failed_probe_of_a_model_keeps_a_closed_provider_gate(is_hard: bool) -> None:
    provider_gate = Gate(merge_all(failure(NOW_MS - number) for number in range(3)))
    probe = Circuit({PROVIDER_GATE: provider_gate, MODEL_GATE: Gate(retry_at=NOW_MS)}).half_open("a", MODEL, NOW_MS)
    ended = probe.probe_failed(probe, "a", MODEL, NOW_MS, NOW_MS + 7, is_hard=is_hard)
    assert ended.gate(PROVIDER_GATE) == provider_gate
    assert ended.gate(MODEL_GATE).retry_at == NOW_MS + 7 + 25_000


@pytest.mark.parametrize(("duration_ms", "wait_ms"), [(29_999, 54_999), (30_000, 55_000), (30_001, 55_000)])
def test_failed_probe_reopens_its_gate_from_thirty_seconds_at_most(duration_ms: int, wait_ms: int) -> None:
    probe = Circuit({("a", MODEL): Gate(retry_at=NOW_MS)}).half_open("a", MODEL, NOW_MS)
    ended = probe.probe_failed(probe, "a", MODEL, NOW_MS, NOW_MS + duration_ms, is_hard=False)
    assert ended.retry_at("a", MODEL) == NOW_MS + wait_ms


def test_successful_probe_of_a_closed_circuit_changes_nothing() -> None:
    circuit = Circuit({PROVIDER_GATE: Gate(failure())}, "stamp")
    assert circuit.probe_succeeded("a", MODEL, NOW_MS) is circuit


@pytest.mark.parametrize("key", [PROVIDER_GATE, MODEL_GATE])
@pytest.mark.parametrize(("age_ms", "expected"), [(-1, True), (299_999, True), (300_000, False), (300_001, False)])
def test_shared_gate_counts_as_open_for_five_minutes_after_its_probe(
    key: tuple[str, str], age_ms: int, expected: bool
) -> None:
    circuit = Circuit({key: Gate(retry_at=NOW_MS - age_ms)})
    assert circuit.is_open_for_all(NOW_MS) == expected


def test_open_gate_of_one_owner_is_not_open_for_all() -> None:
    assert not Circuit({("a", MODEL): Gate(retry_at=NOW_MS)}).is_open_for_all(NOW_MS)


def test_closed_gates_are_not_open_for_all() -> None:
    closed: dict[GateKey, Gate] = {PROVIDER_GATE: Gate(failure()), MODEL_GATE: Gate(failure())}
    assert not Circuit(closed).is_open_for_all(NOW_MS)
    assert Circuit(closed | {("", "other"): Gate(retry_at=NOW_MS)}).is_open_for_all(NOW_MS)
