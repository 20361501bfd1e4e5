"""The circuit breaker before a table that is slow, hangs or is away, and what it asks of it otherwise."""

import pytest

from aiserver import bootstrap
from aiserver.providers.breaker import CACHE_MS, STORE_DOWN_MS, CircuitBreaker
from aiserver.providers.circuit import FAILURE_THRESHOLD, OPEN_MS, WINDOW_S, CallStats, Circuit
from tests.containers import BAD, LONG_MS, Fleet, attempt, circuit_of_everyone, opened
from tests.fakes import FakeCircuits, FakeClock


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
        return super().read_all()

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
    fleet.breakers = [CircuitBreaker(store, fleet.clock)]
    return fleet, store


def test_a_store_that_hangs_holds_up_one_call_in_ten_seconds_and_that_one_once() -> None:
    fleet, _ = stuck()
    began = fleet.clock.now
    assert all(fleet.calls("BGB" * 3))
    assert fleet.clock.now - began == 3_000 + 9
    fleet.clock.now += STORE_DOWN_MS
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
    config = bootstrap._client("dynamodb", is_vital=False).meta.config  # pyright: ignore[reportPrivateUsage]
    attempts = config.retries["total_max_attempts"]
    between_s = sum(2**retry for retry in range(attempts - 1))  # boto3 waits so long at most before each
    assert attempts > 1
    assert attempts * max(config.connect_timeout, config.read_timeout) + between_s <= 3


def test_what_failed_while_the_store_was_away_is_told_when_it_is_back() -> None:
    fleet, store = stuck()
    fleet.calls("B" * (FAILURE_THRESHOLD - 1))
    store.is_stuck = False
    fleet.clock.now += STORE_DOWN_MS
    fleet.calls("B")
    assert not fleet.call()


def test_a_store_that_is_away_when_a_trial_ends_leaves_it_to_the_next_trial_to_close() -> None:
    fleet, store = stuck()
    store.is_stuck = False
    fleet.calls("B" * FAILURE_THRESHOLD)
    fleet.clock.now += OPEN_MS
    with fleet.breakers[0].track_call(attempt(), deadline_ms=fleet.clock.now + LONG_MS):
        store.is_stuck = True
    store.is_stuck = False
    assert not fleet.call()
    fleet.clock.now += 60_000 - 5_000
    assert fleet.call()
    assert all(fleet.calls("BGGBG"))


def test_a_circuit_that_nobody_asks_after_is_not_read_each_second_for_ever() -> None:
    fleet = opened(1)
    fleet.clock.now += WINDOW_S * 1000
    fleet.circuits.reads = 0
    for _ in range(100):
        fleet.breakers[0].check(attempt("another"))
        fleet.clock.now += 1000
    assert fleet.circuits.reads == 20


def test_what_a_day_of_good_calls_leaves_to_be_told_is_a_minute_of_them() -> None:
    fleet = Fleet(1)
    for _ in range(10_000):
        assert fleet.call()
        fleet.clock.now += 999
    fleet.call(outcome=BAD)
    tally = fleet.gate.stats
    assert sum(good for good, _ in tally.per_second.values()) == WINDOW_S - 1
    assert len(tally.per_second) <= WINDOW_S


SECOND = 1_800_000_000


@pytest.mark.parametrize(("later_s", "is_troubled"), [(0, True), (59, True), (60, False), (86_400, False)])
@pytest.mark.parametrize(
    "circuit",
    [
        circuit_of_everyone(ask_at=SECOND * 1000 + 999),
        circuit_of_everyone(CallStats({SECOND: (9, 1)})),
        circuit_of_everyone(CallStats({SECOND: (9, 1), SECOND + 60: (1, 0)}, failures=((SECOND * 1000, ""),))),
    ],
)
def test_one_is_looked_after_each_second_until_a_minute_after_it_was_tried_or_failed(
    circuit: Circuit, later_s: int, is_troubled: bool
) -> None:
    assert circuit.is_unstable((SECOND + later_s) * 1000) == is_troubled
