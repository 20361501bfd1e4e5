"""Failover over several providers: the calls that are made, and the error that is returned."""

import pytest

from aiserver.errors import (
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.routing.failover import FailoverResult
from tests.app import TestApp
from tests.containers import provider_circuit

SYNC_MS = 27_500


def make_app(*queues: str) -> TestApp:
    """Return an app with providers a, b, c in this order, each with its queue."""
    return TestApp(
        *(
            {"name": name, "queue": queue, "priority": -index, "models": {"m": ""}}
            for index, (name, queue) in enumerate(zip("abc", queues, strict=False))
        )
    )


def fail_over(app: TestApp, *outcomes: ProviderError) -> FailoverResult:
    app.dispatcher.outcomes = list(outcomes)
    return app.try_providers(SYNC_MS)


WAIT_60_S, WAIT_5_S, WAIT = (
    ProviderRateLimited(retry_after_s=60),
    ProviderRateLimited(retry_after_s=5),
    ProviderRateLimited(),
)
UNAVAILABLE, FAILED, REJECTED = ProviderUnavailable(), ProviderError(), ProviderRejected()


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ((UNAVAILABLE, FAILED), FAILED),
        ((FAILED, UNAVAILABLE), UNAVAILABLE),
        ((WAIT_60_S, UNAVAILABLE), WAIT_60_S),
        ((WAIT_60_S, WAIT_5_S), WAIT_5_S),
        ((WAIT_5_S, WAIT_60_S), WAIT_5_S),
        ((WAIT, WAIT_60_S), WAIT_60_S),
        ((WAIT_60_S, WAIT), WAIT_60_S),
        ((WAIT_60_S, REJECTED), REJECTED),
    ],
)
def test_returned_error_prefers_rejection_then_rate_limit_then_last_error(
    outcomes: tuple[ProviderError, ...], error: ProviderError
) -> None:
    """Of several rate limits, the one with the shortest wait is returned."""
    assert fail_over(make_app("hosted", "hosted"), *outcomes).error is error


@pytest.mark.parametrize(
    ("outcomes", "wait_s"),
    [
        ((WAIT_60_S, WAIT_5_S), 5),
        ((WAIT_5_S, WAIT_60_S), 5),
        ((WAIT_60_S, UNAVAILABLE), None),
        ((WAIT_60_S, WAIT), None),
    ],
)
def test_retry_after_is_set_when_all_providers_send_one(
    outcomes: tuple[ProviderError, ...], wait_s: int | None
) -> None:
    assert fail_over(make_app("hosted", "hosted"), *outcomes).retry_after_s == wait_s


def test_no_failover_at_the_deadline() -> None:
    app = make_app("gpu", "hosted")
    app.dispatcher.latency_s = SYNC_MS / 1000
    result = fail_over(app, ProviderTimeout(may_be_billed=True))
    assert ([name for name, _ in app.dispatcher.calls], result.error and result.error.status) == (["a"], 504)


def test_retry_after_is_the_earliest_probe_when_all_circuits_are_open() -> None:
    app = make_app("hosted", "hosted")
    for name, wait_ms in (("a", 9_001), ("b", 4_000)):
        app.circuits.stored[name] = provider_circuit(retry_at=app.clock.now + wait_ms, stamp=name)
    result = fail_over(app)
    assert (result.attempts, result.can_retry, result.retry_after_s) == (0, True, None)
    assert result.error
    assert (result.error.status, result.error.retry_after_s) == (503, 4)


def test_open_circuit_error_is_returned_only_without_other_errors() -> None:
    app = make_app("hosted", "hosted")
    app.circuits.stored["b"] = provider_circuit(retry_at=app.clock.now + 9_000, stamp="b")
    assert fail_over(app, WAIT_60_S).error is WAIT_60_S


def test_timeouts_of_gpus_fail_over_until_a_hosted_provider_times_out() -> None:
    silent = ProviderTimeout(may_be_billed=True)
    result = fail_over(make_app("gpu", "gpu", "hosted"), silent, silent, silent)
    assert (result.attempts, result.unknown_outcomes, result.can_retry, result.error) == (3, 3, False, silent)
