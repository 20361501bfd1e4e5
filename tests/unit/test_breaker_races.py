"""The circuit breaker among threads and containers that interrupt each other, and before a store that is away."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiserver.providers.circuit import OPEN_MS, ROW, Circuit, Tally
from tests.fakes import FakeClock
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
