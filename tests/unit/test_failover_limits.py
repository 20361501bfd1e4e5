"""Each condition of failover by itself: the next candidate, the counts of a pass, its error and its wait."""

from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import (
    InvalidRequest,
    ProviderCircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.operations import CHAT
from aiserver.providers.call import ProviderCall
from aiserver.routing.failover import CallPermission, CandidateOutcome, FailoverResult
from aiserver.routing.selection import Candidate
from tests.app import BODY, RESPONSE, STREAM_BODY, FakeStream, TestApp, load_providers
from tests.containers import provider_circuit

LIMIT_MS = 27_500
BILLED, UNBILLED = ProviderTimeout("silent", may_be_billed=True), ProviderTimeout("no connection in time")
UNAVAILABLE, REJECTED = ProviderUnavailable("away"), ProviderRejected("invalid")
WAIT_5_S, WAIT_9_S = ProviderRateLimited(retry_after_s=5), ProviderRateLimited(retry_after_s=9)
INCOMPLETE = ProviderError("cut", may_be_billed=True)


def make_app(*names: str, **config: Any) -> TestApp:
    """Return an app with providers of these names, in this order."""
    return TestApp(*({"name": name, "priority": -i, "models": {"m": name}} | config for i, name in enumerate(names)))


def fail_over(app: TestApp, *outcomes: Any) -> FailoverResult:
    app.dispatcher.outcomes = list(outcomes)
    return app.try_providers(LIMIT_MS)


def candidate(queue: str = "hosted") -> Candidate:
    (provider,) = load_providers({"name": "p", "queue": queue, "models": {"m": ""}})
    return Candidate(provider, "m", 0)


@pytest.mark.parametrize(
    ("error", "queue", "allows_next", "may_be_billed"),
    [
        (None, "hosted", False, False),
        (InvalidRequest("no"), "hosted", True, False),
        (REJECTED, "gpu", False, False),
        (UNAVAILABLE, "hosted", True, False),
        (UNBILLED, "hosted", True, False),
        (BILLED, "hosted", False, True),
        (BILLED, "gpu", True, True),
        (INCOMPLETE, "hosted", False, True),
        (INCOMPLETE, "gpu", True, True),
    ],
)
def test_next_candidate_needs_a_temporary_error_that_is_free(
    error: ProviderError | InvalidRequest | None, queue: str, allows_next: bool, may_be_billed: bool
) -> None:
    outcome = CandidateOutcome(candidate(queue), error=error)
    assert (outcome.allows_next, outcome.may_be_billed) == (allows_next, may_be_billed)


@pytest.mark.parametrize(
    ("queue", "outcomes", "attempts", "unknown_outcomes", "can_retry"),
    [
        ("hosted", [RESPONSE], 1, 0, False),
        ("hosted", [UNAVAILABLE, RESPONSE], 2, 0, False),
        ("hosted", [UNAVAILABLE, UNAVAILABLE], 2, 0, True),
        ("hosted", [UNBILLED, UNBILLED], 2, 0, True),
        ("hosted", [UNAVAILABLE, REJECTED], 2, 0, False),
        ("hosted", [UNAVAILABLE, BILLED], 2, 1, False),
        ("hosted", [BILLED], 1, 1, False),
        ("gpu", [BILLED, BILLED], 2, 2, True),
        ("gpu", [BILLED, UNAVAILABLE], 2, 1, True),
    ],
)
def test_pass_counts_its_calls_and_its_unknown_outcomes(
    queue: str, outcomes: list[Any], attempts: int, unknown_outcomes: int, can_retry: bool
) -> None:
    result = fail_over(make_app("a", "b", queue=queue), *outcomes)
    assert (result.attempts, result.unknown_outcomes, result.can_retry) == (attempts, unknown_outcomes, can_retry)


def test_unsupported_and_skipped_candidates_are_no_attempts() -> None:
    app = make_app("a", "b")
    app.dispatcher.unsupported_models = ("a", "b")
    result = fail_over(app)
    assert isinstance(result.error, InvalidRequest)
    assert (result.attempts, result.can_retry, result.retry_after_s) == (0, False, None)
    app = make_app("a")
    app.circuits.stored["a"] = provider_circuit(retry_at=app.clock.now + 1, stamp="opened")
    result = fail_over(app)
    assert isinstance(result.error, ProviderCircuitOpen)
    assert (result.attempts, result.can_retry, result.retry_after_s) == (0, True, None)


def test_pass_after_its_deadline_calls_no_provider() -> None:
    app = make_app("a")
    result = app.try_providers(0)
    assert isinstance(result.error, ProviderTimeout)
    assert (result.provider, result.attempts, result.can_retry, app.dispatcher.calls) == ("", 0, True, [])
    assert app.try_providers(1).response == RESPONSE


def test_next_candidate_is_called_until_a_millisecond_before_the_deadline() -> None:
    for latency_ms, provider in ((LIMIT_MS - 1, "b"), (LIMIT_MS, "a")):
        app = make_app("a", "b")
        app.dispatcher.latency_s = latency_ms / 1000
        assert fail_over(app, UNAVAILABLE).provider == provider


@pytest.mark.parametrize(
    ("outcomes", "error", "wait_s"),
    [
        ([RESPONSE], None, None),
        ([WAIT_9_S, WAIT_5_S], WAIT_5_S, 5),
        ([WAIT_5_S, WAIT_9_S], WAIT_5_S, 5),
        ([WAIT_9_S, ProviderRateLimited()], WAIT_9_S, None),
        ([ProviderRateLimited(), WAIT_9_S], WAIT_9_S, None),
        ([WAIT_5_S, UNAVAILABLE], WAIT_5_S, None),
        ([UNAVAILABLE, WAIT_5_S], WAIT_5_S, None),
        ([WAIT_5_S, REJECTED], REJECTED, None),
        ([WAIT_5_S, INCOMPLETE], INCOMPLETE, None),
        ([UNAVAILABLE, INCOMPLETE], INCOMPLETE, None),
        ([ProviderUnavailable(retry_after_s=0), WAIT_9_S], WAIT_9_S, 0),
    ],
)
def test_pass_reports_its_shortest_wait_and_its_most_useful_error(
    outcomes: list[Any], error: ProviderError | None, wait_s: int | None
) -> None:
    result = fail_over(make_app("a", "b"), *outcomes)
    assert (result.error, result.retry_after_s) == (error, wait_s)


def test_circuit_that_closes_first_is_reported_when_all_are_open() -> None:
    app = make_app("a", "b")
    for name, wait_ms in (("a", 8_000), ("b", 3_001)):
        app.circuits.stored[name] = provider_circuit(retry_at=app.clock.now + wait_ms, stamp=name)
    error = fail_over(app).error
    assert isinstance(error, ProviderCircuitOpen)
    assert error.retry_after_s == 4
    assert fail_over(app_with_open_circuit("a"), UNAVAILABLE).error is UNAVAILABLE


def app_with_open_circuit(name: str) -> TestApp:
    app = make_app("a", "b")
    app.circuits.stored[name] = provider_circuit(retry_at=app.clock.now + 8_000, stamp=name)
    return app


def provider_call(app: TestApp, *, stream: bool = False) -> ProviderCall:
    deadline = Deadline(app.clock.now + LIMIT_MS)
    return ProviderCall(CHAT, BODY.encode(), deadline, deadline, stream=stream)


@pytest.mark.parametrize("permission", [CallPermission.LEASE_LOST, CallPermission.STORE_UNAVAILABLE])
def test_denied_permission_ends_the_pass_without_a_call(permission: CallPermission) -> None:
    def deny(candidate: Candidate, unknown_outcomes: int) -> CallPermission:
        return permission

    app = make_app("a", "b")
    result = app.failover.try_candidates(provider_call(app), app.directory.candidates("m"), deny)
    assert (result.permission, result.provider, result.error, result.can_retry) == (permission, "a", None, False)
    assert (result.attempts, app.dispatcher.calls, app.circuits.stored) == (0, [], {})


def test_permission_is_asked_with_the_unknown_outcomes_so_far() -> None:
    app, asked = make_app("a", "b", "c", queue="gpu"), list[tuple[str, int]]()

    def grant(candidate: Candidate, unknown_outcomes: int) -> CallPermission:
        asked.append((candidate.provider.name, unknown_outcomes))
        return CallPermission.GRANTED

    app.dispatcher.outcomes = [BILLED, UNAVAILABLE]
    assert app.failover.try_candidates(provider_call(app), app.directory.candidates("m"), grant).provider == "c"
    assert asked == [("a", 0), ("b", 1), ("c", 1)]


def test_stream_counts_as_an_attempt_and_holds_its_lease_until_closed() -> None:
    app = make_app("a", concurrency=1)
    stream = FakeStream(app.clock, [STREAM_BODY])
    app.dispatcher.outcomes = [stream]
    result = app.failover.try_candidates(provider_call(app, stream=True), app.directory.candidates("m"))
    assert result.stream
    assert (result.response, result.error, result.attempts, result.can_retry) == (None, None, 1, False)
    assert len(app.leases.held["provider#a"]) == 1
    result.stream.resources.close()
    assert (app.leases.held["provider#a"], stream.is_closed) == ({}, True)


class Secrets:
    """failover.Secrets that returns a key of each name."""

    def value(self, name: str) -> str:
        return f"key of {name}"


@pytest.mark.parametrize(
    ("secret", "has_secrets", "api_key"),
    [(None, True, None), ("/a", True, "key of /a"), ("/a", False, None), (None, False, None)],
)
def test_api_key_is_read_only_for_a_provider_with_a_secret(
    secret: str | None, has_secrets: bool, api_key: str | None
) -> None:
    config: dict[str, Any] = {"name": "a", "models": {"m": ""}, "api_key_secret": secret}
    app = TestApp(config, secrets=lambda _: Secrets() if has_secrets else None)
    assert fail_over(app).response == RESPONSE
    ((_, options),) = app.dispatcher.calls
    assert options["api_key"] == api_key
