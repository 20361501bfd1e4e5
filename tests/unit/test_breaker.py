"""The circuit breaker: what many containers see of a provider decides together whether it is asked."""

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiserver.errors import (
    ProviderAuth,
    ProviderBusy,
    ProviderCircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.breaker import CACHE_MS
from aiserver.providers.circuit import CONFIRM_MS, FAILURE_THRESHOLD, MIN_CALLS, OPEN_MS, WINDOW_S, CallStats, Gate
from aiserver.providers.outcome import MIN_CALL_MS
from tests.containers import BAD, LONG_MS, Fleet, attempt, opened


def test_after_five_failures_in_a_row_it_is_not_asked() -> None:
    fleet = Fleet()
    assert all(fleet.calls("B" * FAILURE_THRESHOLD, container=0))
    assert not fleet.call(0)


def test_failures_that_different_containers_saw_are_counted_together_and_seen_by_all_within_the_cache_s_time() -> None:
    fleet = Fleet(4)
    fleet.call(3)
    for container in (0, 1, 2, 3, 0):
        assert fleet.call(container, BAD)
        fleet.clock.now += CONFIRM_MS // (FAILURE_THRESHOLD - 1)
    fleet.clock.now += CACHE_MS
    assert [fleet.call(container) for container in range(4)] == [False] * 4


def test_a_row_that_no_container_has_seen_alone_counts_when_others_have_had_the_time_to_tell() -> None:
    fleet = Fleet(4)
    assert all(fleet.calls("B" * 8))
    fleet.clock.now += CONFIRM_MS
    assert fleet.call(0, BAD)
    assert not any(fleet.calls("GGGG"))


@pytest.mark.parametrize(("containers", "calls_a_second", "fails"), [(200, 2, 0.05), (100, 1, 0.1), (30, 0.5, 0.2)])
def test_a_provider_that_fails_now_and_then_keeps_its_callers_however_many_containers_there_are(
    containers: int, calls_a_second: float, fails: float
) -> None:
    fleet, chance = Fleet(containers), random.Random(1)
    start = fleet.clock.now
    moments = sorted(chance.uniform(0, 60_000) for _ in range(int(containers * calls_a_second * 60)))
    for moment in moments:
        fleet.clock.now = start + round(moment)
        assert fleet.call(chance.randrange(containers), BAD if chance.random() < fails else None)


def test_one_that_goes_well_in_between_breaks_the_row_whoever_saw_it() -> None:
    fleet = Fleet(2)
    fleet.calls("BBBB", container=0)
    assert fleet.call(1)
    assert all(fleet.calls("BBBB", container=0))
    assert fleet.call(0)


def test_a_row_of_failures_is_broken_by_another_container_s_good_call_however_much_later_that_is() -> None:
    fleet = Fleet(2)
    fleet.calls("BBBB", container=0)
    fleet.clock.now += 10 * WINDOW_S * 1000
    assert fleet.call(1)
    assert fleet.call(0, BAD)
    assert fleet.call(0)


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ("BBBGBBBGB", False),  # nine calls are too few
        ("BBBGBBBGBG", True),
        ("BBGBGBGBGG", False),  # just half
        ("GGGGGBBBBG", False),
    ],
)
def test_more_than_half_of_at_least_ten_open_it(outcomes: str, opens: bool) -> None:
    fleet = Fleet(1)
    assert all(fleet.calls(outcomes))
    assert (fleet.gate.retry_at is not None) == opens


def test_what_was_a_minute_ago_counts_no_more() -> None:
    fleet = Fleet(1)
    fleet.calls("BBBGBBBG")
    fleet.clock.now += WINDOW_S * 1000
    assert all(fleet.calls("BBGBBG"))


@pytest.mark.parametrize(("ago_s", "opens"), [(59, True), (60, False)])
def test_a_minute_is_sixty_seconds_of_the_clock(ago_s: int, opens: bool) -> None:
    fleet = Fleet(1)
    began = fleet.clock.now
    fleet.calls("BBBGBBBG")
    fleet.clock.now = began + ago_s * 1000
    fleet.calls("BG")
    assert (fleet.gate.retry_at is not None) == opens


def test_one_that_goes_well_in_the_millisecond_of_a_failure_breaks_the_row() -> None:
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
def test_a_refusal_and_slow_down_are_no_failures(outcome: ProviderError) -> None:
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
def test_no_answer_and_a_bad_one_are_failures(outcome: ProviderError) -> None:
    fleet = Fleet(1)
    for _ in range(FAILURE_THRESHOLD):
        fleet.call(outcome=outcome)
    assert not fleet.call()


def test_a_call_that_had_but_a_moment_says_nothing_of_its_provider() -> None:
    fleet = Fleet(1)
    silent = ProviderTimeout("silent", may_be_billed=True)
    assert all(fleet.call(outcome=silent, left_ms=MIN_CALL_MS - 1) for _ in range(FAILURE_THRESHOLD + 1))
    for _ in range(FAILURE_THRESHOLD):
        fleet.call(outcome=silent, left_ms=MIN_CALL_MS)
    assert not fleet.call()


def test_of_all_who_would_ask_an_open_one_again_one_real_call_is_the_trial() -> None:
    fleet = opened(8)
    barrier, release = threading.Barrier(8), threading.Event()
    under_way = threading.Semaphore(0)

    def ask(container: int) -> bool:
        breaker = fleet.breakers[container]
        barrier.wait(60)
        try:
            with breaker.track_call(attempt(), deadline_ms=fleet.clock.now + LONG_MS):
                under_way.release()
                assert release.wait(60)
        except ProviderCircuitOpen:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, container) for container in range(8)]
        assert under_way.acquire(timeout=60)
        refused = [one.result() for one in itertools.islice(as_completed(asked, timeout=60), 7)]
        release.set()
    assert refused == [False] * 7


def test_a_trial_that_goes_well_closes_it_for_all() -> None:
    fleet = opened()
    assert fleet.call(1)
    fleet.clock.now += CACHE_MS
    assert all(fleet.calls("GGG"))


def test_a_trial_that_is_refused_closes_it_too_since_somebody_answered() -> None:
    fleet = opened()
    assert fleet.call(1, ProviderRejected("no", upstream_status=400))
    assert all(fleet.calls("GG", container=1))


def test_a_trial_that_fails_leaves_it_open_for_as_long_again() -> None:
    fleet = opened()
    assert fleet.call(1, BAD)
    fleet.clock.now += OPEN_MS - 10
    assert not any(fleet.calls("GGG"))
    fleet.clock.now += 10
    assert fleet.call(2)


def test_a_trial_that_is_never_heard_of_again_leaves_it_to_another() -> None:
    fleet = opened()

    class Killed(BaseException):
        pass

    with pytest.raises(Killed), fleet.breakers[1].track_call(attempt(), deadline_ms=fleet.clock.now + LONG_MS):
        raise Killed
    fleet.clock.now += 30_000 - 2
    assert not fleet.call(2)
    assert fleet.call(2)


def test_calls_that_were_under_way_when_it_opened_do_not_keep_it_open() -> None:
    fleet = Fleet(1)

    def slow() -> None:
        with fleet.breakers[0].track_call(attempt(), deadline_ms=fleet.clock.now + LONG_MS):
            fleet.calls("B" * FAILURE_THRESHOLD)
            fleet.clock.now += OPEN_MS - 1
            raise BAD

    with pytest.raises(ProviderError):
        slow()
    fleet.clock.now += 1
    assert fleet.call()


@given(down_s=st.integers(1, 300), gap_ms=st.integers(200, 9000), containers=st.integers(1, 5), seed=st.integers())
def test_it_is_used_again_within_a_minute_of_its_recovery(down_s: int, gap_ms: int, containers: int, seed: int) -> None:
    fleet, chance = Fleet(containers), random.Random(seed)
    recovery = fleet.clock.now + down_s * 1000
    while fleet.clock.now < recovery + 60_000 - gap_ms:
        is_up = fleet.clock.now >= recovery
        if fleet.call(chance.randrange(containers), None if is_up else BAD) and is_up:
            return
        fleet.clock.now += gap_ms
    pytest.fail("it recovered a minute ago and was not asked")


def test_a_day_in_which_nothing_fails_costs_one_read_each_five_seconds_and_no_write() -> None:
    fleet = Fleet(1)
    for _ in range(1000):
        assert fleet.call()
        fleet.clock.now += 100
    assert (fleet.circuits.reads, fleet.circuits.writes) == (20, 0)


def test_who_cannot_read_or_write_circuits_asks_the_provider() -> None:
    fleet = Fleet(1)

    def away(*_: object) -> None:
        raise ConnectionError("DynamoDB is away")

    fleet.circuits.read_all = fleet.circuits.replace = away
    assert all(fleet.calls("B" * (2 * MIN_CALLS) + "G"))


def test_two_who_write_at_once_lose_no_failure() -> None:
    fleet = Fleet(2)
    for breaker in fleet.breakers:
        breaker.check(attempt())  # both know the same
    fleet.calls("B" * FAILURE_THRESHOLD)
    assert len(fleet.gate.stats.failures) == FAILURE_THRESHOLD


def test_a_crowd_s_good_calls_outweigh_its_bad_ones_though_none_is_told_while_all_is_well() -> None:
    fleet = Fleet(20)
    for number in range(2000):
        is_bad = number > 100 and number % 7 in (0, 3)  # 29 %
        assert fleet.call(number % 20, BAD if is_bad else None)
        fleet.clock.now += 50
    assert sum(bad for _, bad in fleet.gate.stats.per_second.values()) > 300


@pytest.mark.parametrize("outcomes", ["BBBBB", "BBGBBGBBGG"])
def test_what_several_containers_saw_opens_it_when_it_has_been_so_for_six_seconds(outcomes: str) -> None:
    first = 1_800_000_000_000
    gate = Gate()
    for i, letter in enumerate(outcomes):
        gate = gate.with_outcomes(CallStats.for_call(first + i, is_success=letter == "G"), first + i)
    assert gate.with_outcomes(CallStats(), first + 5_999).retry_at is None
    assert gate.with_outcomes(CallStats(), first + 6_000).retry_at == first + 6_000 + OPEN_MS


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80))
def test_it_opens_exactly_when_the_rule_says(calls: list[tuple[bool, int]]) -> None:
    gate, seen, now = Gate(), list[tuple[int, bool]](), 1_800_000_000_000
    for is_good, wait_s in calls:
        now += wait_s * 1000 + 1
        seen.append((now, is_good))
        gate = gate.with_outcomes(CallStats.for_call(now, is_success=is_good), now, is_certain=True)
        lately = [good for at, good in seen if at // 1000 > now // 1000 - WINDOW_S]
        row = next((i for i, (_, good) in enumerate(reversed(seen)) if good), len(seen))
        opens = row >= FAILURE_THRESHOLD or (len(lately) >= MIN_CALLS and 2 * sum(lately) < len(lately))
        assert (gate.retry_at is not None) == opens
        if opens:
            return


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10_000), st.integers(0, 2)), max_size=30), st.randoms())
@example([(False, 1, 0), (True, 1, 1), *[(False, 1, 0)] * 6], random.Random(0))
def test_outcomes_told_late_in_bundles_open_no_circuit_too_soon(
    calls: list[tuple[bool, int, int]], chance: random.Random
) -> None:
    now, whole = 1_800_000_000_000, CallStats()
    bundles = [CallStats(), CallStats(), CallStats()]
    for is_good, wait_ms, container in calls:
        now += wait_ms
        whole = whole.merge(CallStats.for_call(now, is_success=is_good), now)
        bundles[container] = bundles[container].merge(CallStats.for_call(now, is_success=is_good), now)
    chance.shuffle(bundles)
    told, true = CallStats(), whole.merge(CallStats(), now)
    for bundle in bundles:
        told = told.merge(bundle, now)
    # A container that saw no success forgets failures before its last ROW, and so which was the first after a success
    # elsewhere: then the row is taken to have begun later, never sooner, and never after the ROW that opens a circuit.
    assert replace(told, failing_since=true.failing_since) == true
    assert true.failing_since <= told.failing_since <= min((at for at, _ in true.failures), default=0)
    for age_ms in (0, CONFIRM_MS, now):
        assert true.should_open(age_ms, now) or not told.should_open(age_ms, now)
    assert told.should_open(0, now) == true.should_open(0, now)
