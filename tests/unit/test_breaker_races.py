"""The circuit breaker among threads and containers that interrupt each other, and before a store that is away."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.errors import ProviderCircuitOpen
from aiserver.providers.breaker import CACHE_MS, Breaker
from aiserver.providers.circuit import OPEN_MS, ROW, Circuit, Tally
from tests.fakes import FakeCircuits, FakeClock
from tests.fleet import BAD, Fleet

OPENED = Circuit(Tally(bad_at=(1,) * ROW), FakeClock().now + OPEN_MS, "opened")


class Interrupted(Circuit):
    """One that another thread changes something besides, just while it is looked at."""

    meanwhile: Callable[[], None]

    def is_troubled(self, now_ms: int) -> bool:
        type(self).meanwhile()
        return super().is_troubled(now_ms)


def test_a_provider_s_first_failure_in_one_thread_disturbs_no_other_that_looks_at_what_is_known() -> None:
    fleet, breaking = Fleet(1), threading.Event()
    looked, written = threading.Event(), threading.Event()

    class Looked(Interrupted):
        @staticmethod
        def meanwhile() -> None:
            if breaking.is_set() and not looked.is_set():
                looked.set()
                assert written.wait(60)

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
        fleet.breakers[0].check("other")
        failing.result(60)
    assert fleet.circuits.stored["p"].tally.bad_at


def test_a_cold_container_s_threads_all_wait_to_know_before_any_asks_an_open_provider() -> None:
    circuits, clock = FakeCircuits(), FakeClock()
    circuits.stored["p"] = OPENED
    breaker, reading, release = Breaker(circuits, clock), threading.Event(), threading.Event()
    gate, read = threading.Barrier(8), circuits.all

    def slow() -> dict[str, Circuit]:
        reading.set()
        assert release.wait(60)
        return read()

    circuits.all = slow

    def refused() -> bool:
        try:
            breaker.check("p")
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
    fleet.calls("B" * (ROW - 1))
    fleet.clock.now += CACHE_MS
    read = fleet.circuits.all

    def overtaken() -> dict[str, Circuit]:
        before = read()
        fleet.circuits.all = read
        assert fleet.call(outcome=BAD)
        return before

    fleet.circuits.all = overtaken
    with pytest.raises(ProviderCircuitOpen):
        fleet.breakers[0].check("p")
    assert not fleet.call()
