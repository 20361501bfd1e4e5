"""What comes of a pass over several providers: who is asked, and which of their errors is told."""

import pytest

from aiserver.errors import (
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.router import ProviderCall
from aiserver.usecases.failover import FailoverResult, try_candidates
from tests.app import BODY, TestApp
from tests.containers import circuit_of_everyone

SYNC_MS = 27_500


def house(*queues: str) -> TestApp:
    """Providers a, b, c in this order, each of its queue."""
    return TestApp(
        *(
            {"name": name, "queue": queue, "priority": -place, "models": {"m": ""}}
            for place, (name, queue) in enumerate(zip("abc", queues, strict=False))
        )
    )


def one_pass(house: TestApp, *outcomes: ProviderError) -> FailoverResult:
    house.protocol.outcomes = list(outcomes)
    question, found = ProviderCall("chat.completions", BODY.encode()), house.router.candidates("m")
    return try_candidates(house.router, question, found, clock=house.clock, deadline_ms=house.clock.now + SYNC_MS)


LATER, SOON, SOMETIME = (
    ProviderRateLimited(retry_after_s=60),
    ProviderRateLimited(retry_after_s=5),
    ProviderRateLimited(),
)
AWAY, BAD, REJECTED = ProviderUnavailable(), ProviderError(), ProviderRejected()


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ((AWAY, BAD), BAD),
        ((BAD, AWAY), AWAY),
        ((LATER, AWAY), LATER),
        ((LATER, SOON), SOON),
        ((SOON, LATER), SOON),
        ((SOMETIME, LATER), LATER),
        ((LATER, SOMETIME), LATER),
        ((LATER, REJECTED), REJECTED),
    ],
)
def test_told_is_the_slow_down_with_the_shortest_wait_or_the_last_error_or_what_ended_the_pass(
    outcomes: tuple[ProviderError, ...], told: ProviderError
) -> None:
    assert one_pass(house("hosted", "hosted"), *outcomes).error is told


@pytest.mark.parametrize(
    ("outcomes", "wait_s"),
    [((LATER, SOON), 5), ((SOON, LATER), 5), ((LATER, AWAY), None), ((LATER, SOMETIME), None)],
)
def test_a_wait_was_asked_for_where_all_asked_for_one(outcomes: tuple[ProviderError, ...], wait_s: int | None) -> None:
    assert one_pass(house("hosted", "hosted"), *outcomes).retry_after_s == wait_s


def test_whose_time_has_been_used_up_to_the_last_millisecond_asks_nobody_else() -> None:
    gpu_first = house("gpu", "hosted")
    gpu_first.protocol.takes_s = SYNC_MS / 1000
    done = one_pass(gpu_first, ProviderTimeout(may_be_billed=True))
    assert ([name for name, _ in gpu_first.protocol.calls], done.error and done.error.status) == (["a"], 504)


def test_where_all_circuits_are_open_the_shortest_wait_until_a_trial_is_told() -> None:
    both = house("hosted", "hosted")
    for name, left_ms in (("a", 9_001), ("b", 4_000)):
        both.circuits.stored[name] = circuit_of_everyone(ask_at=both.clock.now + left_ms, stamp=name)
    done = one_pass(both)
    assert (done.attempts, done.can_retry, done.retry_after_s) == (0, True, None)
    assert done.error
    assert (done.error.status, done.error.retry_after_s) == (503, 4)


def test_an_open_circuit_is_told_of_only_where_there_is_nothing_else() -> None:
    both = house("hosted", "hosted")
    both.circuits.stored["b"] = circuit_of_everyone(ask_at=both.clock.now + 9_000, stamp="b")
    assert one_pass(both, LATER).error is LATER


def test_calls_in_vain_to_own_gpus_are_counted_until_a_hosted_one_s_ends_the_pass() -> None:
    silent = ProviderTimeout(may_be_billed=True)
    done = one_pass(house("gpu", "gpu", "hosted"), silent, silent, silent)
    assert (done.attempts, done.unknown_outcomes, done.can_retry, done.error) == (3, 3, False, silent)
