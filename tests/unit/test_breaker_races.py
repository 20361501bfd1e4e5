"""The circuit breaker with concurrent threads and containers, and with clock skew."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.circuit_breaker.breaker import CACHE_MS, CircuitBreaker
from aiserver.circuit_breaker.circuit import FAILURE_THRESHOLD, OPEN_MS, CallStats, Circuit
from aiserver.clock import Deadline
from aiserver.errors import ProviderCircuitOpen, ProviderError
from tests.containers import FAILURE, LONG_MS, Fleet, attempt, fleet_due_for_probe, provider_circuit
from tests.examples import examples
from tests.fakes import FakeCircuits, FakeClock

OPENED = provider_circuit(CallStats(failures=((1, ""),) * FAILURE_THRESHOLD), FakeClock().now + OPEN_MS, "opened")


def test_threads_of_a_cold_container_wait_for_the_circuit_store() -> None:
    circuits, clock = FakeCircuits(), FakeClock()
    circuits.stored["p"] = OPENED
    breaker, reading, release = CircuitBreaker(circuits, clock), threading.Event(), threading.Event()
    barrier, original_read = threading.Barrier(8), circuits.read_all

    def slow_read() -> dict[str, Circuit]:
        reading.set()
        assert release.wait(60)
        return original_read()

    circuits.read_all = slow_read

    def is_rejected() -> bool:
        try:
            breaker.check(attempt())
        except ProviderCircuitOpen:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(is_rejected)]
        assert reading.wait(60)
        results += [pool.submit(lambda: barrier.wait(60) >= 0 and is_rejected()) for _ in range(7)]
        barrier.wait(60)
        release.set()
        assert [result.result(60) for result in results] == [True] * 8


def test_read_does_not_overwrite_a_failure_recorded_during_the_read() -> None:
    fleet = Fleet(1)
    fleet.calls("B" * (FAILURE_THRESHOLD - 1))
    fleet.clock.now += CACHE_MS
    original_read = fleet.circuits.read_all

    def read_with_failure() -> dict[str, Circuit]:
        stale = original_read()
        fleet.circuits.read_all = original_read
        assert fleet.call(outcome=FAILURE)
        return stale

    fleet.circuits.read_all = read_with_failure
    with pytest.raises(ProviderCircuitOpen):
        fleet.breakers[0].check(attempt())
    assert not fleet.call()


class SkewedClock(FakeClock):
    """A clock that is some seconds ahead of another clock, or behind it."""

    def __init__(self, reference: FakeClock, offset_s: int) -> None:
        super().__init__()
        self._reference, self._offset_ms = reference, offset_s * 1000

    def now_ms(self) -> int:
        return self._reference.now_ms() + self._offset_ms

    def token(self) -> str:
        return self._reference.token()


@given(offsets=st.lists(st.integers(-5, 5), min_size=2, max_size=5), gap_ms=st.integers(200, 2000), seed=st.integers())
@settings(max_examples=examples(60))
def test_containers_with_clock_skew_respect_the_open_interval(offsets: list[int], gap_ms: int, seed: int) -> None:
    fleet, chance = Fleet(1), random.Random(seed)
    fleet.breakers = [CircuitBreaker(fleet.circuits, SkewedClock(fleet.clock, offset_s)) for offset_s in offsets]
    skew_ms = (max(offsets) - min(offsets)) * 1000

    def calls(for_ms: int, outcome: ProviderError | None) -> list[int]:
        """Make calls for a period, and return the times of those that reached the provider."""
        begin_ms, call_times = fleet.clock.now, list[int]()
        while fleet.clock.now < begin_ms + for_ms:
            if fleet.call(chance.randrange(len(offsets)), outcome, remaining_ms=LONG_MS + skew_ms):
                call_times.append(fleet.clock.now - begin_ms)
            fleet.clock.now += gap_ms
        return call_times

    assert len(calls(20_000, None)) >= 20_000 // (gap_ms + 1)
    failing = calls(120_000, FAILURE)
    probes = [at for at in failing if at > (FAILURE_THRESHOLD + 1) * (gap_ms + 1) + skew_ms + CACHE_MS]
    assert all(later - earlier >= OPEN_MS - skew_ms for earlier, later in pairwise(probes))
    recovered = calls(120_000, None)
    assert recovered[0] <= 60_000 + skew_ms
    assert (
        len([at for at in recovered if at > recovered[0] + CACHE_MS])
        >= (120_000 - recovered[0] - CACHE_MS) // (gap_ms + 1) - 1
    )


def test_probe_after_a_day_closes_the_circuit_and_resets_statistics() -> None:
    fleet = fleet_due_for_probe(2)
    fleet.clock.now += 86_400_000
    assert fleet.call(0)
    assert all(fleet.calls("BGBBGBBBB", container=1))


def test_circuits_of_300_providers_are_read_in_one_call() -> None:
    fleet = Fleet(1)
    breaker, names = fleet.breakers[0], [f"p{number}" for number in range(300)]
    for name in names:
        for _ in range(FAILURE_THRESHOLD):
            with (
                pytest.raises(ProviderError),
                breaker.track_call(attempt(name), deadline=Deadline(fleet.clock.now + LONG_MS)),
            ):
                raise FAILURE
    assert fleet.circuits.reads == 1
    for name in names:
        with pytest.raises(ProviderCircuitOpen):
            breaker.check(attempt(name))
    breaker.check(attempt("another"))
