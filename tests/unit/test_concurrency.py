"""A provider's `concurrency`: no more calls at once over all functions; what finds no room goes on, or waits."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest

from aiserver.errors import ProviderBusy, ProviderError, ProviderResponse, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.router import LEASE_MARGIN_MS, ProviderCall
from aiserver.usecases.failover import try_candidates
from aiserver.wire import requests
from tests.app import ANSWER, BODY, TestApp
from tests.containers import circuit_of_everyone

ONE: dict[str, Any] = {"name": "one", "concurrency": 1, "priority": 1, "models": {"m": ""}}
OTHER: dict[str, Any] = {"name": "other", "models": {"m": ""}}
DEADLINE_MS = 28_000


def sync(house: TestApp) -> Any:
    """What a waiting caller's pass comes to."""
    question = ProviderCall("chat.completions", requests.bind_chat(BODY).body)
    found = house.router.candidates("m")
    return try_candidates(house.router, question, found, clock=house.clock, deadline_ms=house.clock.now + DEADLINE_MS)


def fill(house: TestApp, until_ms: int | None = None) -> None:
    """Another function has a call to `one` under way."""
    assert (
        house.slots.acquire(
            "provider#one", [0], now_ms=house.clock.now, expires_ms=until_ms or house.clock.now + 1_000_000
        )
        == 0
    )


def test_a_provider_that_is_full_is_passed_over_and_the_next_one_answers() -> None:
    house = TestApp(ONE, OTHER)
    assert sync(house).provider == "one"
    fill(house)
    done = sync(house)
    assert (done.response, done.provider, done.attempts) == (ANSWER, "other", 1)


def test_where_nobody_has_room_a_caller_is_told_when_to_come_again_and_a_job_waits() -> None:
    house = TestApp(ONE)
    fill(house)
    done = sync(house)
    assert isinstance(done.error, ProviderBusy)
    assert (done.error.status, done.error.retry_after_s, done.attempts, house.protocol.calls) == (429, 2, 0, [])
    waiting = house.run(house.accept())
    assert (waiting.state, waiting.wait_reason, waiting.calls) == (JobState.QUEUED, "provider_busy", 0)
    house.slots.held.clear()
    house.clock.now = waiting.not_before
    assert house.run(waiting).state == JobState.COMPLETED


@pytest.mark.parametrize("outcome", [ANSWER, ProviderError("bad"), ProviderTimeout(may_be_billed=True)])
def test_a_call_that_has_ended_however_it_did_leaves_its_room_to_the_next(
    outcome: ProviderResponse | ProviderError,
) -> None:
    house = TestApp(ONE)
    house.protocol.outcomes = [outcome]
    sync(house)
    assert sync(house).response == ANSWER


def test_a_caller_that_was_killed_in_a_call_holds_its_room_until_a_minute_after_the_deadline() -> None:
    house = TestApp(ONE)

    class Killed(BaseException):
        pass

    def dies(*_: object, **__: object) -> ProviderResponse:
        raise Killed

    give_back = house.slots.release
    house.slots.release = lambda *_, **__: None  # whoever is killed gives nothing back
    call, house.protocol.call = house.protocol.call, dies
    with pytest.raises(Killed):
        sync(house)
    house.protocol.call, house.slots.release = call, give_back
    house.clock.now += DEADLINE_MS + LEASE_MARGIN_MS
    assert isinstance(sync(house).error, ProviderBusy)
    house.clock.now += 1
    assert sync(house).response == ANSWER


def test_a_count_that_cannot_be_read_is_a_provider_that_is_busy() -> None:
    house = TestApp(ONE, OTHER)

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("DynamoDB is away")

    house.slots.acquire = away
    assert sync(house).provider == "other"


def test_without_concurrency_nothing_is_counted() -> None:
    house = TestApp(OTHER)
    assert sync(house).response == ANSWER
    assert house.slots.held == {}


def test_no_more_calls_are_under_way_at_once_than_there_may_be() -> None:
    house = TestApp({**ONE, "concurrency": 3})
    inside, release = threading.Semaphore(0), threading.Event()

    def slow(*_: object, **__: object) -> ProviderResponse:
        inside.release()
        assert release.wait(60)
        return ANSWER

    house.protocol.call = slow
    with ThreadPoolExecutor(12) as pool:
        passes = [pool.submit(sync, house) for _ in range(12)]
        for _ in range(3):
            assert inside.acquire(timeout=60)
        ended = list(itertools.islice(as_completed(passes, timeout=60), 9))
        assert all(isinstance(one.result().error, ProviderBusy) for one in ended)
        release.set()
    assert sum(one.result().response == ANSWER for one in passes) == 3


def test_a_provider_that_is_not_worth_asking_takes_no_place() -> None:
    house = TestApp(ONE, OTHER)
    house.circuits.stored["one"] = circuit_of_everyone(ask_at=house.clock.now + 1, stamp="opened")

    def taken(*_: object, **__: object) -> None:
        pytest.fail("a place was taken")

    house.slots.acquire = taken
    assert sync(house).provider == "other"
