"""The parallel calls of one worker hold one large response at a time, and any number of small ones."""

import threading
from collections.abc import Callable

from aiserver.errors import ProviderTimeout
from aiserver.limits import LARGE_RESPONSE_BYTES
from aiserver.providers.memory_budget import MemoryBudget, reserve

LARGE = LARGE_RESPONSE_BYTES + 1


def in_thread(call: Callable[[], None]) -> Exception | None:
    """Run the call in a new thread and return its exception."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors[0] if errors else None


def read(budget: MemoryBudget, size: int, error: Exception | None = None) -> Callable[[], None]:
    def call() -> None:
        with budget.share():
            reserve(size, lambda: 0)
            if error:
                raise error

    return call


def test_second_large_response_waits_for_the_first_and_times_out() -> None:
    budget = MemoryBudget()
    with budget.share():
        reserve(LARGE, lambda: 0)
        reserve(LARGE + 1, lambda: 0)  # a second reservation of the same call
        assert isinstance(in_thread(read(budget, LARGE)), ProviderTimeout)
        assert in_thread(read(budget, LARGE_RESPONSE_BYTES)) is None
    assert in_thread(read(budget, LARGE)) is None


def test_failed_call_gives_back_its_share() -> None:
    budget = MemoryBudget()
    error = in_thread(read(budget, LARGE, RuntimeError()))
    assert isinstance(error, RuntimeError)
    assert in_thread(read(budget, LARGE)) is None


def test_large_response_outside_of_a_share_never_waits() -> None:
    budget = MemoryBudget()
    with budget.share():
        reserve(LARGE, lambda: 0)
        assert in_thread(lambda: reserve(LARGE, lambda: 0)) is None
