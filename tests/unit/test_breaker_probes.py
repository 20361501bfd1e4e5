"""Long probes of the circuit breaker, and which interrupted calls count as failures."""

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

from aiserver.circuit_breaker.breaker import CACHE_MS, MAX_WRITE_ATTEMPTS, CircuitBreaker
from aiserver.circuit_breaker.circuit import FAILURE_THRESHOLD, OPEN_MS, PROBE_TIMEOUT_MS, Circuit
from aiserver.circuit_breaker.outcome import MIN_CALL_MS
from aiserver.clock import Deadline
from aiserver.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from tests.containers import FAILURE, KEY, LONG_MS, MODEL, Fleet, attempt, fleet_due_for_probe
from tests.examples import examples
from tests.fakes import FakeCircuits
from tests.virtual_scheduler import VirtualScheduler


def test_recording_a_failure_is_safe_while_another_thread_reads_circuits() -> None:
    fleet, writing = Fleet(1), threading.Event()
    reading, written = threading.Event(), threading.Event()

    class BlockingCircuit(Circuit):
        """A circuit whose read blocks until the other thread has written."""

        def is_unstable(self, now_ms: int) -> bool:
            if writing.is_set() and not reading.is_set():
                reading.set()
                assert written.wait(60)
            return super().is_unstable(now_ms)

    fleet.circuits.stored["other"] = BlockingCircuit(stamp="a")
    assert fleet.call()
    original_replace = fleet.circuits.replace

    def blocking_replace(name: str, old: Circuit, new: Circuit) -> Circuit:
        writing.set()
        assert reading.wait(60)
        return original_replace(name, old, new)

    fleet.circuits.replace = blocking_replace

    def fail() -> None:
        fleet.call(outcome=FAILURE)
        written.set()

    with ThreadPoolExecutor(1) as pool:
        failure = pool.submit(fail)
        assert writing.wait(60)
        fleet.breakers[0].check(attempt("other"))
        failure.result(60)
    assert fleet.gate.stats.failures


def begin(fleet: Fleet, container: int = 0, remaining_ms: int = LONG_MS) -> ExitStack:
    """Start a call that is in flight until the stack is closed."""
    call = ExitStack()
    call.enter_context(
        fleet.breakers[container].track_call(attempt(), deadline=Deadline(fleet.clock.now + remaining_ms))
    )
    return call


def fail(call: ExitStack) -> None:
    assert not call.__exit__(ProviderTimeout, ProviderTimeout(may_be_billed=True), None)


def test_one_probe_at_a_time_calls_a_hanging_provider() -> None:
    fleet = fleet_due_for_probe()
    probe = begin(fleet, 0)
    fleet.clock.now += LONG_MS
    assert not fleet.call(1)
    fail(probe)
    fleet.clock.now += OPEN_MS - 2
    assert not fleet.call(2, FAILURE)
    assert fleet.call(1)


def test_late_failure_of_a_probe_does_not_delay_later_probes() -> None:
    fleet = fleet_due_for_probe()
    probe = begin(fleet, 0, remaining_ms=600_000)
    for _ in range(5):
        fleet.clock.now += PROBE_TIMEOUT_MS
        assert fleet.call(1, FAILURE)
    fleet.clock.now += OPEN_MS - 10
    fail(probe)
    fleet.clock.now += 10
    assert fleet.call(1)


def test_late_failure_of_the_only_probe_does_not_delay_the_next() -> None:
    fleet = fleet_due_for_probe()
    probe = begin(fleet, 0, remaining_ms=600_000)
    fleet.clock.now += 600_000
    fail(probe)
    assert fleet.call(1)


def test_successful_probe_closes_the_circuit_after_a_later_failed_probe() -> None:
    fleet = fleet_due_for_probe()
    probe = begin(fleet, 0, remaining_ms=600_000)
    fleet.clock.now += PROBE_TIMEOUT_MS
    assert fleet.call(1, FAILURE)
    probe.close()
    assert all(fleet.calls("BGBG", container=0))


def test_failed_probe_is_ignored_after_another_closed_the_circuit() -> None:
    fleet = fleet_due_for_probe()
    probe = begin(fleet, 0, remaining_ms=600_000)
    fleet.clock.now += PROBE_TIMEOUT_MS
    assert fleet.call(1)
    fail(probe)
    assert all(fleet.calls("BBBB", container=1))
    assert fleet.call(1)


class ContendedStore(FakeCircuits):
    """A store with a concurrent write before each of ours; the last one starts a probe."""

    writes_left = 0

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        if self.writes_left:
            self.writes_left -= 1
            concurrent = replace(self.stored[name], stamp=f"concurrent{self.writes_left}")
            self.stored[name] = concurrent if self.writes_left else replace(concurrent, gates=new.gates)
        return super().replace(name, old, new)


def test_call_is_rejected_when_it_loses_the_probe_at_its_last_write() -> None:
    fleet = fleet_due_for_probe(1)
    store = ContendedStore()
    store.stored, store.writes_left = fleet.circuits.stored, MAX_WRITE_ATTEMPTS
    fleet.breakers = [CircuitBreaker(store, fleet.clock)]
    assert not fleet.call()


@given(
    durations_s=st.lists(
        st.sampled_from([0, 2, 27, 50, 75, 100]), min_size=1, max_size=3
    ),  # of synchronous calls and of jobs
    down_s=st.integers(30, 200),
    gap_ms=st.integers(400, 3000),
    seed=st.integers(),
)
@settings(max_examples=examples(60))
def test_slow_failures_allow_one_probe_at_a_time_and_recovery_in_a_minute(
    durations_s: list[int], down_s: int, gap_ms: int, seed: int
) -> None:
    fleet, chance = Fleet(4), random.Random(seed)
    scheduler, recovery = VirtualScheduler(fleet.clock), fleet.clock.now + down_s * 1000
    call_times: list[int] = []
    opened_at: list[int] = []

    def call() -> None:
        duration_s, breaker = chance.choice(durations_s), chance.choice(fleet.breakers)
        is_up = fleet.clock.now >= recovery
        deadline = Deadline(fleet.clock.now + max(LONG_MS, duration_s * 1000))
        with contextlib.suppress(ProviderError):
            breaker.check(attempt())
            with breaker.track_call(attempt(), deadline=deadline):
                call_times.append(fleet.clock.now)
                if not is_up:
                    scheduler.sleep(duration_s)
                    raise FAILURE

    def observe() -> None:
        call()
        circuit = fleet.circuits.stored.get("p")
        if not opened_at and circuit and circuit.retry_at(KEY, MODEL) is not None:
            opened_at.append(fleet.clock.now)

    for number in range((down_s + 60) * 1000 // gap_ms):
        scheduler.schedule(fleet.clock.now + number * gap_ms, observe)
    scheduler.run()
    probes = [at for at in call_times if opened_at and opened_at[0] + CACHE_MS < at < recovery]
    assert all(later - earlier >= OPEN_MS for earlier, later in pairwise(probes))
    assert any(at >= recovery for at in call_times)


def test_connect_timeout_of_a_too_short_call_is_not_a_failure() -> None:
    fleet = Fleet(1)

    def time_out(timeout_ms: int) -> None:
        with fleet.breakers[0].track_call(attempt(), deadline=Deadline(fleet.clock.now + timeout_ms)):
            fleet.clock.now += timeout_ms
            raise ProviderUnavailable("no connection in time")

    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ProviderUnavailable):
            time_out(MIN_CALL_MS - 1)
    assert fleet.call()
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ProviderUnavailable):
            time_out(MIN_CALL_MS)
    assert not fleet.call()


def test_refused_connection_is_a_failure_at_any_timeout() -> None:
    fleet = Fleet(1)
    for _ in range(FAILURE_THRESHOLD):
        assert fleet.call(outcome=ProviderUnavailable("refused"), remaining_ms=5)
    assert not fleet.call()
