"""The circuit breaker among threads and containers that interrupt each other, and before a store that is away."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver import wiring
from aiserver.errors import ProviderCircuitOpen
from aiserver.providers.breaker import AWAY_MS, CACHE_MS, Breaker
from aiserver.providers.circuit import OPEN_MS, ROW, Circuit, Tally
from tests.fakes import FakeCircuits, FakeClock
from tests.fleet import BAD, LONG_MS, Fleet

OPENED = Circuit(Tally(bad_at=(1,) * ROW), FakeClock().now + OPEN_MS, "opened")


def test_a_provider_s_first_failure_in_one_thread_disturbs_no_other_that_looks_at_what_is_known() -> None:
    fleet, breaking = Fleet(1), threading.Event()
    looked, written = threading.Event(), threading.Event()

    class Looked(Circuit):
        """The other thread has its turn just while this one is looked at."""

        def is_troubled(self, now_ms: int) -> bool:
            if breaking.is_set() and not looked.is_set():
                looked.set()
                assert written.wait(60)
            return super().is_troubled(now_ms)

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


class Stuck(FakeCircuits):
    """A store that is slow, or lets whoever asks wait for three seconds and then is away."""

    is_stuck = True
    slow_s = 0.0

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def all(self) -> dict[str, Circuit]:
        self._hang()
        self._clock.advance(self.slow_s)
        return super().all()

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        self._hang()
        return super().replace(name, old, new)

    def _hang(self) -> None:
        if self.is_stuck:
            self._clock.advance(3)
            raise ConnectionError("DynamoDB is away")


def stuck() -> tuple[Fleet, Stuck]:
    fleet = Fleet(1)
    store = fleet.circuits = Stuck(fleet.clock)
    fleet.breakers = [Breaker(store, fleet.clock)]
    return fleet, store


def test_a_store_that_hangs_holds_up_one_call_in_ten_seconds_and_that_one_once() -> None:
    fleet, _ = stuck()
    began = fleet.clock.now
    assert all(fleet.calls("BGB" * 3))
    assert fleet.clock.now - began == 3_000 + 9
    fleet.clock.now += AWAY_MS
    began = fleet.clock.now
    assert all(fleet.calls("GBG"))
    assert fleet.clock.now - began == 3_000 + 3


def test_a_store_that_hangs_while_a_provider_fails_holds_up_no_more_than_one_call_in_ten_seconds() -> None:
    fleet, store = stuck()
    store.is_stuck = False
    fleet.calls("BBB")
    store.is_stuck = True
    began = fleet.clock.now
    assert all(fleet.calls("BGBGB"))
    assert fleet.clock.now - began == 3_000 + 5


def test_a_store_that_is_slow_while_a_provider_fails_is_read_once_for_a_call() -> None:
    fleet, store = stuck()
    store.is_stuck = False
    fleet.calls("BB")
    store.slow_s, store.reads = 1.5, 0
    for _ in range(3):
        fleet.clock.now += CACHE_MS
        assert fleet.call(outcome=BAD)
    assert store.reads == 3


@pytest.mark.usefixtures("stack")
def test_circuits_are_given_up_after_three_seconds_of_a_table_that_hangs() -> None:
    config = wiring._client("dynamodb", is_vital=False).meta.config  # pyright: ignore[reportPrivateUsage]
    attempts = config.retries["total_max_attempts"]
    between_s = sum(2**retry for retry in range(attempts - 1))  # boto3 waits so long at most before each
    assert attempts > 1
    assert attempts * max(config.connect_timeout, config.read_timeout) + between_s <= 3


def test_what_failed_while_the_store_was_away_is_told_when_it_is_back() -> None:
    fleet, store = stuck()
    fleet.calls("B" * (ROW - 1))
    store.is_stuck = False
    fleet.clock.now += AWAY_MS
    fleet.calls("B")
    assert not fleet.call()


def test_a_store_that_is_away_when_a_trial_ends_leaves_it_to_the_next_trial_to_close() -> None:
    fleet, store = stuck()
    store.is_stuck = False
    fleet.calls("B" * ROW)
    fleet.clock.now += OPEN_MS
    with fleet.breakers[0].watched("p", deadline_ms=fleet.clock.now + LONG_MS):
        store.is_stuck = True
    store.is_stuck = False
    assert not fleet.call()
    fleet.clock.now += 60_000 - 5_000
    assert fleet.call()
    assert all(fleet.calls("BGGBG"))
