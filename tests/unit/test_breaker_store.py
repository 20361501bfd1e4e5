"""The circuit breaker with a slow, hanging or unavailable table, and its number of reads otherwise."""

import pytest

from aiserver import bootstrap
from aiserver.circuit_breaker.breaker import CACHE_MS, STORE_DOWN_MS, CircuitBreaker
from aiserver.circuit_breaker.circuit import FAILURE_THRESHOLD, OPEN_MS, WINDOW_S, CallStats, Circuit
from aiserver.clock import Deadline
from tests.containers import FAILURE, LONG_MS, Fleet, attempt, fleet_due_for_probe, provider_circuit
from tests.fakes import FakeCircuits, FakeClock


class HangingStore(FakeCircuits):
    """A store that is slow, or hangs for three seconds and then fails."""

    hangs = True
    read_s = 0.0

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def read_all(self) -> dict[str, Circuit]:
        self._hang()
        self._clock.advance(self.read_s)
        return super().read_all()

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        self._hang()
        return super().replace(name, old, new)

    def _hang(self) -> None:
        if self.hangs:
            self._clock.advance(3)
            raise ConnectionError("DynamoDB is unavailable")


def fleet_with_hanging_store() -> tuple[Fleet, HangingStore]:
    fleet = Fleet(1)
    store = fleet.circuits = HangingStore(fleet.clock)
    fleet.breakers = [CircuitBreaker(store, fleet.clock)]
    return fleet, store


def test_hanging_store_delays_one_call_per_ten_seconds() -> None:
    fleet, _ = fleet_with_hanging_store()
    begin_ms = fleet.clock.now
    assert all(fleet.calls("BGB" * 3))
    assert fleet.clock.now - begin_ms == 3_000 + 9
    fleet.clock.now += STORE_DOWN_MS
    begin_ms = fleet.clock.now
    assert all(fleet.calls("GBG"))
    assert fleet.clock.now - begin_ms == 3_000 + 3


def test_hanging_store_delays_one_call_per_ten_seconds_during_failures() -> None:
    fleet, store = fleet_with_hanging_store()
    store.hangs = False
    fleet.calls("BBB")
    store.hangs = True
    begin_ms = fleet.clock.now
    assert all(fleet.calls("BGBGB"))
    assert fleet.clock.now - begin_ms == 3_000 + 5


def test_slow_store_is_read_once_per_call_during_failures() -> None:
    fleet, store = fleet_with_hanging_store()
    store.hangs = False
    fleet.calls("BB")
    store.read_s, store.reads = 1.5, 0
    for _ in range(3):
        fleet.clock.now += CACHE_MS
        assert fleet.call(outcome=FAILURE)
    assert store.reads == 3


@pytest.mark.usefixtures("stack")
def test_circuit_table_client_gives_up_after_three_seconds() -> None:
    config = bootstrap._client("dynamodb", is_vital=False).meta.config  # pyright: ignore[reportPrivateUsage]
    attempts = config.retries["total_max_attempts"]
    backoff_s = sum(2**retry for retry in range(attempts - 1))  # the maximum wait of boto3 between attempts
    assert attempts > 1
    assert attempts * max(config.connect_timeout, config.read_timeout) + backoff_s <= 3


def test_failures_during_a_store_outage_are_written_after_it() -> None:
    fleet, store = fleet_with_hanging_store()
    fleet.calls("B" * (FAILURE_THRESHOLD - 1))
    store.hangs = False
    fleet.clock.now += STORE_DOWN_MS
    fleet.calls("B")
    assert not fleet.call()


def test_store_outage_at_the_end_of_a_probe_leaves_closing_to_the_next() -> None:
    fleet, store = fleet_with_hanging_store()
    store.hangs = False
    fleet.calls("B" * FAILURE_THRESHOLD)
    fleet.clock.now += OPEN_MS
    with fleet.breakers[0].track_call(attempt(), deadline=Deadline(fleet.clock.now + LONG_MS)):
        store.hangs = True
    store.hangs = False
    assert not fleet.call()
    fleet.clock.now += 60_000 - 5_000
    assert fleet.call()
    assert all(fleet.calls("BGGBG"))


def test_unused_open_circuit_is_not_read_every_second_forever() -> None:
    fleet = fleet_due_for_probe(1)
    fleet.clock.now += WINDOW_S * 1000
    fleet.circuits.reads = 0
    for _ in range(100):
        fleet.breakers[0].check(attempt("another"))
        fleet.clock.now += 1000
    assert fleet.circuits.reads == 20


def test_unflushed_successes_are_limited_to_the_window() -> None:
    fleet = Fleet(1)
    for _ in range(10_000):
        assert fleet.call()
        fleet.clock.now += 999
    fleet.call(outcome=FAILURE)
    stats = fleet.gate.stats
    assert sum(successes for successes, _ in stats.per_second.values()) == WINDOW_S - 1
    assert len(stats.per_second) <= WINDOW_S


SECOND = 1_800_000_000


@pytest.mark.parametrize(("later_s", "is_unstable"), [(0, True), (59, True), (60, False), (86_400, False)])
@pytest.mark.parametrize(
    "circuit",
    [
        provider_circuit(retry_at=SECOND * 1000 + 999),
        provider_circuit(CallStats({SECOND: (9, 1)})),
        provider_circuit(CallStats({SECOND: (9, 1), SECOND + 60: (1, 0)}, failures=((SECOND * 1000, ""),))),
    ],
)
def test_circuit_is_unstable_until_a_minute_after_a_probe_or_failure(
    circuit: Circuit, later_s: int, is_unstable: bool
) -> None:
    assert circuit.is_unstable((SECOND + later_s) * 1000) == is_unstable
