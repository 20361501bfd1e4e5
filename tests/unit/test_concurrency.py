"""The `concurrency` limit of a provider over all functions: calls over the limit fail over, or wait."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest

from aiserver.errors import ProviderBusy, ProviderError, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.providers.response import ProviderResponse
from aiserver.routing.admission import LEASE_MARGIN_MS
from aiserver.routing.failover import FailoverResult
from tests.app import RESPONSE, TestApp
from tests.containers import provider_circuit

ONE: dict[str, Any] = {"name": "one", "concurrency": 1, "priority": 1, "models": {"m": ""}}
OTHER: dict[str, Any] = {"name": "other", "models": {"m": ""}}
DEADLINE_MS = 28_000


def fail_over(app: TestApp) -> FailoverResult:
    """Return the failover result of a synchronous request."""
    return app.try_providers(DEADLINE_MS)


def take_lease(app: TestApp, expires_ms: int | None = None) -> None:
    """Take the only concurrency lease of provider `one`."""
    assert (
        app.leases.acquire(
            "provider#one", [0], now_ms=app.clock.now, expires_ms=expires_ms or app.clock.now + 1_000_000
        )
        == 0
    )


def test_provider_at_its_limit_is_skipped() -> None:
    app = TestApp(ONE, OTHER)
    assert fail_over(app).provider == "one"
    take_lease(app)
    result = fail_over(app)
    assert (result.response, result.provider, result.attempts) == (RESPONSE, "other", 1)


def test_without_free_provider_a_request_gets_429_and_a_job_waits() -> None:
    app = TestApp(ONE)
    take_lease(app)
    result = fail_over(app)
    assert isinstance(result.error, ProviderBusy)
    assert (result.error.status, result.error.retry_after_s, result.attempts, app.dispatcher.calls) == (
        429,
        2,
        0,
        [],
    )
    waiting = app.run(app.accept())
    assert (waiting.state, waiting.wait_reason, waiting.calls) == (JobState.QUEUED, "provider_busy", 0)
    app.leases.held.clear()
    app.clock.now = waiting.not_before
    assert app.run(waiting).state == JobState.COMPLETED


@pytest.mark.parametrize("outcome", [RESPONSE, ProviderError("bad"), ProviderTimeout(may_be_billed=True)])
def test_lease_is_released_after_every_outcome(
    outcome: ProviderResponse | ProviderError,
) -> None:
    app = TestApp(ONE)
    app.dispatcher.outcomes = [outcome]
    fail_over(app)
    assert fail_over(app).response == RESPONSE


def test_lease_of_a_killed_container_expires_a_minute_after_the_deadline() -> None:
    app = TestApp(ONE)

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> ProviderResponse:
        raise Killed

    release = app.leases.release
    app.leases.release = lambda *_, **__: None  # a killed container releases nothing
    send, app.dispatcher.send = app.dispatcher.send, kill
    with pytest.raises(Killed):
        fail_over(app)
    app.dispatcher.send, app.leases.release = send, release
    app.clock.now += DEADLINE_MS + LEASE_MARGIN_MS
    assert isinstance(fail_over(app).error, ProviderBusy)
    app.clock.now += 1
    assert fail_over(app).response == RESPONSE


def test_lease_store_failure_skips_the_provider() -> None:
    app = TestApp(ONE, OTHER)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("DynamoDB is unavailable")

    app.leases.acquire = fail
    assert fail_over(app).provider == "other"


def test_provider_without_limit_takes_no_lease() -> None:
    app = TestApp(OTHER)
    assert fail_over(app).response == RESPONSE
    assert app.leases.held == {}


def test_concurrent_calls_never_exceed_the_limit() -> None:
    app = TestApp({**ONE, "concurrency": 3})
    in_flight, release = threading.Semaphore(0), threading.Event()

    def blocking_call(*_: object, **__: object) -> ProviderResponse:
        in_flight.release()
        assert release.wait(60)
        return RESPONSE

    app.dispatcher.send = blocking_call
    with ThreadPoolExecutor(12) as pool:
        passes = [pool.submit(fail_over, app) for _ in range(12)]
        for _ in range(3):
            assert in_flight.acquire(timeout=60)
        rejected = list(itertools.islice(as_completed(passes, timeout=60), 9))
        assert all(isinstance(completed.result().error, ProviderBusy) for completed in rejected)
        release.set()
    assert sum(completed.result().response == RESPONSE for completed in passes) == 3


def test_provider_with_open_circuit_takes_no_lease() -> None:
    app = TestApp(ONE, OTHER)
    app.circuits.stored["one"] = provider_circuit(retry_at=app.clock.now + 1, stamp="opened")

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a lease was taken")

    app.leases.acquire = fail
    assert fail_over(app).provider == "other"
