"""The circuit breaker: outcomes of many containers together open and close the circuit of a provider."""

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiserver.circuit_breaker.breaker import CACHE_MS
from aiserver.circuit_breaker.circuit import (
    CONFIRM_MS,
    FAILURE_THRESHOLD,
    MIN_CALLS,
    OPEN_MS,
    WINDOW_S,
    CallStats,
    Gate,
)
from aiserver.circuit_breaker.outcome import MIN_CALL_MS
from aiserver.clock import Deadline
from aiserver.errors import (
    ProviderAuth,
    ProviderBusy,
    ProviderCircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.response import ProviderResponse
from tests.containers import FAILURE, LONG_MS, Fleet, attempt, fleet_due_for_probe


def test_circuit_opens_after_five_consecutive_failures() -> None:
    fleet = Fleet()
    assert all(fleet.calls("B" * FAILURE_THRESHOLD, container=0))
    assert not fleet.call(0)


def test_failures_of_several_containers_open_the_circuit_for_all() -> None:
    fleet = Fleet(4)
    fleet.call(3)
    for container in (0, 1, 2, 3, 0):
        assert fleet.call(container, FAILURE)
        fleet.clock.now += CONFIRM_MS // (FAILURE_THRESHOLD - 1)
    fleet.clock.now += CACHE_MS
    assert [fleet.call(container) for container in range(4)] == [False] * 4


def test_failures_across_containers_open_the_circuit_after_confirm_time() -> None:
    fleet = Fleet(4)
    assert all(fleet.calls("B" * 8))
    fleet.clock.now += CONFIRM_MS
    assert fleet.call(0, FAILURE)
    assert not any(fleet.calls("GGGG"))


@pytest.mark.parametrize(
    ("containers", "calls_per_second", "failure_rate"), [(200, 2, 0.05), (100, 1, 0.1), (30, 0.5, 0.2)]
)
def test_occasional_failures_never_open_the_circuit_with_many_containers(
    containers: int, calls_per_second: float, failure_rate: float
) -> None:
    fleet, chance = Fleet(containers), random.Random(1)
    start = fleet.clock.now
    call_times = sorted(chance.uniform(0, 60_000) for _ in range(int(containers * calls_per_second * 60)))
    for offset_ms in call_times:
        fleet.clock.now = start + round(offset_ms)
        assert fleet.call(chance.randrange(containers), FAILURE if chance.random() < failure_rate else None)


def test_success_in_any_container_resets_consecutive_failures() -> None:
    fleet = Fleet(2)
    fleet.calls("BBBB", container=0)
    assert fleet.call(1)
    assert all(fleet.calls("BBBB", container=0))
    assert fleet.call(0)


def test_late_success_in_another_container_resets_consecutive_failures() -> None:
    fleet = Fleet(2)
    fleet.calls("BBBB", container=0)
    fleet.clock.now += 10 * WINDOW_S * 1000
    assert fleet.call(1)
    assert fleet.call(0, FAILURE)
    assert fleet.call(0)


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ("BBBGBBBGB", False),  # fewer than ten calls
        ("BBBGBBBGBG", True),
        ("BBGBGBGBGG", False),  # exactly half
        ("GGGGGBBBBG", False),
    ],
)
def test_circuit_opens_when_over_half_of_ten_calls_fail(outcomes: str, opens: bool) -> None:
    fleet = Fleet(1)
    assert all(fleet.calls(outcomes))
    assert (fleet.gate.retry_at is not None) == opens


def test_outcomes_older_than_the_window_are_ignored() -> None:
    fleet = Fleet(1)
    fleet.calls("BBBGBBBG")
    fleet.clock.now += WINDOW_S * 1000
    assert all(fleet.calls("BBGBBG"))


@pytest.mark.parametrize(("age_s", "opens"), [(59, True), (60, False)])
def test_window_boundary_is_sixty_seconds(age_s: int, opens: bool) -> None:
    fleet = Fleet(1)
    begin_ms = fleet.clock.now
    fleet.calls("BBBGBBBG")
    fleet.clock.now = begin_ms + age_s * 1000
    fleet.calls("BG")
    assert (fleet.gate.retry_at is not None) == opens


def test_success_at_the_time_of_a_failure_resets_consecutive_failures() -> None:
    now = 1_800_000_000_000
    failures = CallStats.for_call(now, is_success=False)
    assert failures.merge(CallStats.for_call(now, is_success=True), now).failures == ()
    assert failures.merge(CallStats.for_call(now - 1, is_success=True), now).failures == ((now, ""),)


@pytest.mark.parametrize(
    "outcome",
    [
        ProviderRejected("no", upstream=ProviderResponse(400, {}, b"{}")),
        ProviderError("it has no embeddings", upstream_status=501),
        ProviderRateLimited("slow down", upstream_status=429),
        ProviderAuth("our key", upstream_status=401),
        ProviderError("404 in HTML", upstream_status=404),
        ProviderBusy("full"),
    ],
)
def test_rejections_and_rate_limits_are_not_failures(outcome: ProviderError) -> None:
    fleet = Fleet(1)
    assert all(fleet.call(outcome=outcome) for _ in range(2 * MIN_CALLS))
    assert fleet.circuits.stored == {}


@pytest.mark.parametrize(
    "outcome",
    [
        ProviderUnavailable("no connection"),
        ProviderUnavailable("loading", upstream_status=503),
        ProviderTimeout("silent", may_be_billed=True),
        ProviderTimeout("its proxy gave up", upstream_status=504),
        ProviderError("not JSON", may_be_billed=True),
    ],
)
def test_missing_and_invalid_responses_are_failures(outcome: ProviderError) -> None:
    fleet = Fleet(1)
    for _ in range(FAILURE_THRESHOLD):
        fleet.call(outcome=outcome)
    assert not fleet.call()


def test_timeout_of_a_too_short_call_is_not_a_failure() -> None:
    fleet = Fleet(1)
    silent = ProviderTimeout("silent", may_be_billed=True)
    assert all(fleet.call(outcome=silent, remaining_ms=MIN_CALL_MS - 1) for _ in range(FAILURE_THRESHOLD + 1))
    for _ in range(FAILURE_THRESHOLD):
        fleet.call(outcome=silent, remaining_ms=MIN_CALL_MS)
    assert not fleet.call()


def test_one_concurrent_call_is_the_probe_of_an_open_circuit() -> None:
    fleet = fleet_due_for_probe(8)
    barrier, release = threading.Barrier(8), threading.Event()
    in_flight = threading.Semaphore(0)

    def call(container: int) -> bool:
        breaker = fleet.breakers[container]
        barrier.wait(60)
        try:
            with breaker.track_call(attempt(), deadline=Deadline(fleet.clock.now + LONG_MS)):
                in_flight.release()
                assert release.wait(60)
        except ProviderCircuitOpen:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, container) for container in range(8)]
        assert in_flight.acquire(timeout=60)
        rejected = [completed.result() for completed in itertools.islice(as_completed(calls, timeout=60), 7)]
        release.set()
    assert rejected == [False] * 7


def test_successful_probe_closes_the_circuit_for_all_containers() -> None:
    fleet = fleet_due_for_probe()
    assert fleet.call(1)
    fleet.clock.now += CACHE_MS
    assert all(fleet.calls("GGG"))


def test_rejected_probe_closes_the_circuit() -> None:
    fleet = fleet_due_for_probe()
    assert fleet.call(1, ProviderRejected("no", upstream_status=400))
    assert all(fleet.calls("GG", container=1))


def test_failed_probe_keeps_the_circuit_open_for_another_period() -> None:
    fleet = fleet_due_for_probe()
    assert fleet.call(1, FAILURE)
    fleet.clock.now += OPEN_MS - 10
    assert not any(fleet.calls("GGG"))
    fleet.clock.now += 10
    assert fleet.call(2)


def test_next_probe_starts_after_the_probe_timeout_of_a_lost_one() -> None:
    fleet = fleet_due_for_probe()

    class Killed(BaseException):
        pass

    with pytest.raises(Killed), fleet.breakers[1].track_call(attempt(), deadline=Deadline(fleet.clock.now + LONG_MS)):
        raise Killed
    fleet.clock.now += 30_000 - 2
    assert not fleet.call(2)
    assert fleet.call(2)


def test_calls_in_flight_at_opening_do_not_extend_the_open_period() -> None:
    fleet = Fleet(1)

    def slow_call() -> None:
        with fleet.breakers[0].track_call(attempt(), deadline=Deadline(fleet.clock.now + LONG_MS)):
            fleet.calls("B" * FAILURE_THRESHOLD)
            fleet.clock.now += OPEN_MS - 1
            raise FAILURE

    with pytest.raises(ProviderError):
        slow_call()
    fleet.clock.now += 1
    assert fleet.call()


@given(down_s=st.integers(1, 300), gap_ms=st.integers(200, 9000), containers=st.integers(1, 5), seed=st.integers())
def test_recovered_provider_is_called_within_a_minute(down_s: int, gap_ms: int, containers: int, seed: int) -> None:
    fleet, chance = Fleet(containers), random.Random(seed)
    recovery = fleet.clock.now + down_s * 1000
    while fleet.clock.now < recovery + 60_000 - gap_ms:
        is_up = fleet.clock.now >= recovery
        if fleet.call(chance.randrange(containers), None if is_up else FAILURE) and is_up:
            return
        fleet.clock.now += gap_ms
    pytest.fail("the provider recovered a minute ago and was not called")


def test_healthy_provider_costs_one_read_per_five_seconds_and_no_write() -> None:
    fleet = Fleet(1)
    for _ in range(1000):
        assert fleet.call()
        fleet.clock.now += 100
    assert (fleet.circuits.reads, fleet.circuits.writes) == (20, 0)


def test_breaker_fails_open_when_the_circuit_store_is_unavailable() -> None:
    fleet = Fleet(1)

    def fail(*_: object) -> None:
        raise ConnectionError("DynamoDB is unavailable")

    fleet.circuits.read_all = fleet.circuits.replace = fail
    assert all(fleet.calls("B" * (2 * MIN_CALLS) + "G"))


def test_concurrent_writes_lose_no_failure() -> None:
    fleet = Fleet(2)
    for breaker in fleet.breakers:
        breaker.check(attempt())  # both cache the same circuit
    fleet.calls("B" * FAILURE_THRESHOLD)
    assert len(fleet.gate.stats.failures) == FAILURE_THRESHOLD


def test_unflushed_successes_of_many_containers_keep_the_circuit_closed() -> None:
    fleet = Fleet(20)
    for number in range(2000):
        is_bad = number > 100 and number % 7 in (0, 3)  # 29 %
        assert fleet.call(number % 20, FAILURE if is_bad else None)
        fleet.clock.now += 50
    assert sum(failures for _, failures in fleet.gate.stats.per_second.values()) > 300


@pytest.mark.parametrize("outcomes", ["BBBBB", "BBGBBGBBGG"])
def test_shared_failures_open_the_circuit_after_six_seconds(outcomes: str) -> None:
    begin_ms = 1_800_000_000_000
    gate = Gate()
    for i, letter in enumerate(outcomes):
        gate = gate.with_outcomes(CallStats.for_call(begin_ms + i, is_success=letter == "G"), begin_ms + i)
    assert gate.with_outcomes(CallStats(), begin_ms + 5_999).retry_at is None
    assert gate.with_outcomes(CallStats(), begin_ms + 6_000).retry_at == begin_ms + 6_000 + OPEN_MS


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80))
def test_gate_opens_exactly_by_the_rules(calls: list[tuple[bool, int]]) -> None:
    gate, outcomes, now = Gate(), list[tuple[int, bool]](), 1_800_000_000_000
    for is_success, wait_s in calls:
        now += wait_s * 1000 + 1
        outcomes.append((now, is_success))
        gate = gate.with_outcomes(CallStats.for_call(now, is_success=is_success), now, is_certain=True)
        recent = [is_success for at, is_success in outcomes if at // 1000 > now // 1000 - WINDOW_S]
        consecutive = next((i for i, (_, is_success) in enumerate(reversed(outcomes)) if is_success), len(outcomes))
        opens = consecutive >= FAILURE_THRESHOLD or (len(recent) >= MIN_CALLS and 2 * sum(recent) < len(recent))
        assert (gate.retry_at is not None) == opens
        if opens:
            return


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10_000), st.integers(0, 2)), max_size=30), st.randoms())
@example([(False, 1, 0), (True, 1, 1), *[(False, 1, 0)] * 6], random.Random(0))
def test_outcomes_merged_late_and_out_of_order_do_not_open_early(
    calls: list[tuple[bool, int, int]], chance: random.Random
) -> None:
    now, ordered = 1_800_000_000_000, CallStats()
    bundles = [CallStats(), CallStats(), CallStats()]
    for is_success, wait_ms, container in calls:
        now += wait_ms
        ordered = ordered.merge(CallStats.for_call(now, is_success=is_success), now)
        bundles[container] = bundles[container].merge(CallStats.for_call(now, is_success=is_success), now)
    chance.shuffle(bundles)
    merged, exact = CallStats(), ordered.merge(CallStats(), now)
    for bundle in bundles:
        merged = merged.merge(bundle, now)
    # A container without a success keeps only its last FAILURE_THRESHOLD failures, and so may lose the first failure
    # after a success elsewhere. `failing_since` is then later than the exact one, never earlier, and never later than
    # the first of the failures that open a circuit.
    assert replace(merged, failing_since=exact.failing_since) == exact
    assert exact.failing_since <= merged.failing_since <= min((at for at, _ in exact.failures), default=0)
    for age_ms in (0, CONFIRM_MS, now):
        assert exact.should_open(age_ms, now) or not merged.should_open(age_ms, now)
    assert merged.should_open(0, now) == exact.should_open(0, now)
