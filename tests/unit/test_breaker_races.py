"""The circuit breaker among threads and containers that interrupt each other, and whose clocks differ."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import ProviderCircuitOpen, ProviderError
from aiserver.providers.breaker import CACHE_MS, CircuitBreaker
from aiserver.providers.circuit import FAILURE_THRESHOLD, OPEN_MS, CallStats, Circuit
from tests.containers import BAD, LONG_MS, Fleet, attempt, circuit_of_everyone, opened
from tests.examples import examples
from tests.fakes import FakeCircuits, FakeClock

OPENED = circuit_of_everyone(CallStats(failures=((1, ""),) * FAILURE_THRESHOLD), FakeClock().now + OPEN_MS, "opened")


def test_a_cold_container_s_threads_all_wait_to_know_before_any_asks_an_open_provider() -> None:
    circuits, clock = FakeCircuits(), FakeClock()
    circuits.stored["p"] = OPENED
    breaker, reading, release = CircuitBreaker(circuits, clock), threading.Event(), threading.Event()
    gate, read = threading.Barrier(8), circuits.read_all

    def slow() -> dict[str, Circuit]:
        reading.set()
        assert release.wait(60)
        return read()

    circuits.read_all = slow

    def refused() -> bool:
        try:
            breaker.check(attempt())
        except ProviderCircuitOpen:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(refused)]
        assert reading.wait(60)
        asked += [pool.submit(lambda: gate.wait(60) >= 0 and refused()) for _ in range(7)]
        gate.wait(60)
        release.set()
        assert [one.result(60) for one in asked] == [True] * 8


def test_what_a_container_wrote_while_it_was_reading_is_not_forgotten_for_what_was_there_before() -> None:
    fleet = Fleet(1)
    fleet.calls("B" * (FAILURE_THRESHOLD - 1))
    fleet.clock.now += CACHE_MS
    read = fleet.circuits.read_all

    def overtaken() -> dict[str, Circuit]:
        before = read()
        fleet.circuits.read_all = read
        assert fleet.call(outcome=BAD)
        return before

    fleet.circuits.read_all = overtaken
    with pytest.raises(ProviderCircuitOpen):
        fleet.breakers[0].check(attempt())
    assert not fleet.call()


class Off(FakeClock):
    """Some seconds ahead of another clock, or behind it."""

    def __init__(self, right: FakeClock, off_s: int) -> None:
        super().__init__()
        self._right, self._off_ms = right, off_s * 1000

    def now_ms(self) -> int:
        return self._right.now_ms() + self._off_ms

    def token(self) -> str:
        return self._right.token()


@given(offs=st.lists(st.integers(-5, 5), min_size=2, max_size=5), gap_ms=st.integers(200, 2000), seed=st.integers())
@settings(max_examples=examples(60))
def test_containers_whose_clocks_are_some_seconds_apart_agree_all_the_same(
    offs: list[int], gap_ms: int, seed: int
) -> None:
    fleet, chance = Fleet(1), random.Random(seed)
    fleet.breakers = [CircuitBreaker(fleet.circuits, Off(fleet.clock, off_s)) for off_s in offs]
    apart_ms = (max(offs) - min(offs)) * 1000

    def calls(for_ms: int, outcome: ProviderError | None) -> list[int]:
        """When the provider was asked, since the beginning of these."""
        began, asked = fleet.clock.now, list[int]()
        while fleet.clock.now < began + for_ms:
            if fleet.call(chance.randrange(len(offs)), outcome, left_ms=LONG_MS + apart_ms):
                asked.append(fleet.clock.now - began)
            fleet.clock.now += gap_ms
        return asked

    assert len(calls(20_000, None)) >= 20_000 // (gap_ms + 1)
    failing = calls(120_000, BAD)
    trials = [at for at in failing if at > (FAILURE_THRESHOLD + 1) * (gap_ms + 1) + apart_ms + CACHE_MS]
    assert all(later - earlier >= OPEN_MS - apart_ms for earlier, later in pairwise(trials))
    back = calls(120_000, None)
    assert back[0] <= 60_000 + apart_ms
    assert len([at for at in back if at > back[0] + CACHE_MS]) >= (120_000 - back[0] - CACHE_MS) // (gap_ms + 1) - 1


def test_a_provider_that_is_added_again_after_a_day_is_asked_at_once_and_by_what_it_does_now() -> None:
    fleet = opened(2)
    fleet.clock.now += 86_400_000
    assert fleet.call(0)
    assert all(fleet.calls("BGBBGBBBB", container=1))


def test_hundreds_of_providers_have_a_circuit_each_and_are_read_at_once() -> None:
    fleet = Fleet(1)
    breaker, names = fleet.breakers[0], [f"p{number}" for number in range(300)]
    for name in names:
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(ProviderError), breaker.track_call(attempt(name), deadline_ms=fleet.clock.now + LONG_MS):
                raise BAD
    assert fleet.circuits.reads == 1
    for name in names:
        with pytest.raises(ProviderCircuitOpen):
            breaker.check(attempt(name))
    breaker.check(attempt("another"))
