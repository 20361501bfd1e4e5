"""The circuit breaker's trials, which may take long, and what counts as a failure of a call that was cut off."""

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from aiserver.providers.breaker import CACHE_MS, MAX_WRITE_ATTEMPTS, CircuitBreaker
from aiserver.providers.circuit import FAILURE_THRESHOLD, OPEN_MS, PROBE_TIMEOUT_MS, Circuit
from aiserver.providers.outcome import MIN_CALL_MS
from tests.containers import BAD, KEY, LONG_MS, MODEL, Fleet, attempt, opened
from tests.examples import examples
from tests.fakes import FakeCircuits
from tests.virtual_scheduler import Turns


def test_a_provider_s_first_failure_in_one_thread_disturbs_no_other_that_looks_at_what_is_known() -> None:
    fleet, breaking = Fleet(1), threading.Event()
    looked, written = threading.Event(), threading.Event()

    class Looked(Circuit):
        """The other thread has its turn just while this one is looked at."""

        def is_troubled(self, now_ms: int) -> bool:
            if breaking.is_set() and not looked.is_set():
                looked.set()
                assert written.wait(60)
            return super().is_unstable(now_ms)

    fleet.circuits.stored["other"] = Looked(stamp="a")
    assert fleet.call()
    stored = fleet.circuits.replace

    def slow(name: str, old: Circuit, new: Circuit) -> Circuit:
        breaking.set()
        assert looked.wait(60)
        return stored(name, old, new)

    fleet.circuits.replace = slow

    def fail() -> None:
        fleet.call(outcome=BAD)
        written.set()

    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(fail)
        assert breaking.wait(60)
        fleet.breakers[0].check(attempt("other"))
        failing.result(60)
    assert fleet.gate.stats.failures


def begin(fleet: Fleet, container: int = 0, left_ms: int = LONG_MS) -> ExitStack:
    """A call that is under way until the stack is closed."""
    call = ExitStack()
    call.enter_context(fleet.breakers[container].track_call(attempt(), deadline_ms=fleet.clock.now + left_ms))
    return call


def fail(call: ExitStack) -> None:
    assert not call.__exit__(ProviderTimeout, ProviderTimeout(may_be_billed=True), None)


def test_while_a_waiting_caller_s_trial_takes_all_of_its_time_nobody_else_is_put_before_a_provider_that_hangs() -> None:
    fleet = opened()
    trial = begin(fleet, 0)
    fleet.clock.now += LONG_MS
    assert not fleet.call(1)
    fail(trial)
    fleet.clock.now += OPEN_MS - 2
    assert not fleet.call(2, BAD)
    assert fleet.call(1)


def test_a_trial_that_fails_minutes_later_does_not_put_off_those_that_came_after_it() -> None:
    fleet = opened()
    trial = begin(fleet, 0, left_ms=600_000)
    for _ in range(5):
        fleet.clock.now += PROBE_TIMEOUT_MS
        assert fleet.call(1, BAD)
    fleet.clock.now += OPEN_MS - 10
    fail(trial)
    fleet.clock.now += 10
    assert fleet.call(1)


def test_a_trial_that_fails_minutes_later_though_nobody_asked_since_puts_off_nobody() -> None:
    fleet = opened()
    trial = begin(fleet, 0, left_ms=600_000)
    fleet.clock.now += 600_000
    fail(trial)
    assert fleet.call(1)


def test_a_trial_that_ends_well_closes_it_though_a_later_one_has_failed() -> None:
    fleet = opened()
    trial = begin(fleet, 0, left_ms=600_000)
    fleet.clock.now += PROBE_TIMEOUT_MS
    assert fleet.call(1, BAD)
    trial.close()
    assert all(fleet.calls("BGBG", container=0))


def test_a_trial_that_fails_after_another_has_closed_it_counts_no_more() -> None:
    fleet = opened()
    trial = begin(fleet, 0, left_ms=600_000)
    fleet.clock.now += PROBE_TIMEOUT_MS
    assert fleet.call(1)
    fail(trial)
    assert all(fleet.calls("BBBB", container=1))
    assert fleet.call(1)


class Contested(FakeCircuits):
    """A store into which others, whose clocks are behind, write just before each of ours; the last one a trial."""

    left = 0

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        if self.left:
            self.left -= 1
            theirs = replace(self.stored[name], stamp=f"theirs{self.left}")
            self.stored[name] = theirs if self.left else replace(theirs, gates=new.gates)
        return super().replace(name, old, new)


def test_who_loses_a_trial_to_another_at_its_last_try_does_not_ask() -> None:
    fleet = opened(1)
    contested = Contested()
    contested.stored, contested.left = fleet.circuits.stored, MAX_WRITE_ATTEMPTS
    fleet.breakers = [CircuitBreaker(contested, fleet.clock)]
    assert not fleet.call()


@given(
    takes_s=st.lists(st.sampled_from([0, 2, 27, 50, 75, 100]), min_size=1, max_size=3),  # of a sync call, and of jobs
    down_s=st.integers(30, 200),
    gap_ms=st.integers(400, 3000),
    seed=st.integers(),
)
@settings(max_examples=examples(60))
def test_however_long_failing_calls_take_it_is_tried_by_one_at_a_time_and_used_within_a_minute_of_its_recovery(
    takes_s: list[int], down_s: int, gap_ms: int, seed: int
) -> None:
    fleet, chance = Fleet(4), random.Random(seed)
    turns, recovery = Turns(fleet.clock), fleet.clock.now + down_s * 1000
    begun: list[int] = []
    opened_at: list[int] = []

    def call() -> None:
        taken_s, breaker = chance.choice(takes_s), chance.choice(fleet.breakers)
        is_up, deadline_ms = fleet.clock.now >= recovery, fleet.clock.now + max(LONG_MS, taken_s * 1000)
        with contextlib.suppress(ProviderError):
            breaker.check(attempt())
            with breaker.track_call(attempt(), deadline_ms=deadline_ms):
                begun.append(fleet.clock.now)
                if not is_up:
                    turns.pause(taken_s)
                    raise BAD

    def look() -> None:
        call()
        circuit = fleet.circuits.stored.get("p")
        if not opened_at and circuit and circuit.retry_at(KEY, MODEL) is not None:
            opened_at.append(fleet.clock.now)

    for number in range((down_s + 60) * 1000 // gap_ms):
        turns.at(fleet.clock.now + number * gap_ms, look)
    turns.run()
    trials = [at for at in begun if opened_at and opened_at[0] + CACHE_MS < at < recovery]
    assert all(later - earlier >= OPEN_MS for earlier, later in pairwise(trials))
    assert any(at >= recovery for at in begun)


def test_a_provider_that_was_given_but_a_moment_to_be_connected_to_has_not_failed() -> None:
    fleet = Fleet(1)

    def cut_off(left_ms: int) -> None:
        with fleet.breakers[0].track_call(attempt(), deadline_ms=fleet.clock.now + left_ms):
            fleet.clock.now += left_ms
            raise ProviderUnavailable("no connection in time")

    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ProviderUnavailable):
            cut_off(MIN_CALL_MS - 1)
    assert fleet.call()
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ProviderUnavailable):
            cut_off(MIN_CALL_MS)
    assert not fleet.call()


def test_a_provider_that_refuses_the_connection_has_failed_however_little_time_it_was_given() -> None:
    fleet = Fleet(1)
    for _ in range(FAILURE_THRESHOLD):
        assert fleet.call(outcome=ProviderUnavailable("refused"), left_ms=5)
    assert not fleet.call()
