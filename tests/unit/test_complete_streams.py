"""Synchronous streams: provider selection, the stored job, and the effect on the provider's circuit and leases."""

import json
from contextlib import suppress
from typing import Any

import pytest

from aiserver.circuit_breaker.circuit import FAILURE_THRESHOLD
from aiserver.clock import Deadline
from aiserver.errors import (
    Conflict,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.jobs.states import JobState
from aiserver.usecases import views
from aiserver.usecases.complete import FIRST_BYTE_TIMEOUT_S, CompletionResult
from aiserver.wire import requests
from tests.app import ME, STREAM_BODY, FakeStream, TestApp

LIMIT_MS = 893_500
BODY = '{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]%s}'


def make_app(**options: Any) -> TestApp:
    return TestApp({"name": "a", "priority": 1, "models": {"m": "x"}, **options}, {"name": "b", "models": {"m": ""}})


def complete(app: TestApp, fields: str = "", body: str = BODY) -> CompletionResult:
    request = requests.bind_chat(body % fields)
    deadline = Deadline(app.clock.now + LIMIT_MS)
    return app.complete.run(request, owner=ME.owner, base_url="https://x.io", deadline=deadline)


def test_stream_is_forwarded_with_provider_headers_and_closed() -> None:
    app = make_app()
    stream = FakeStream(app.clock, [STREAM_BODY], headers={"x-request-id": "up-1", "content-type": "text/plain"})
    app.dispatcher.outcomes = [stream]
    result = complete(app)
    assert (result.status, result.provider, result.attempts) == (200, "a", 1)
    assert result.headers["x-request-id"] == "up-1"
    assert result.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert result.headers["cache-control"] == "no-cache"
    assert list(result.body) == [STREAM_BODY]
    assert stream.is_closed
    ((_, call),) = app.dispatcher.calls
    assert (json.loads(call["body"]), call["model"]) == (json.loads(BODY % ""), "x")


def test_first_byte_timeout_is_shorter_than_total_timeout() -> None:
    app = make_app(timeout_s=700)
    complete(app)
    ((_, call),) = app.dispatcher.calls
    assert (call["head_timeout_s"], call["total_timeout_s"]) == (FIRST_BYTE_TIMEOUT_S, LIMIT_MS / 1000)


@pytest.mark.parametrize("error", [ProviderUnavailable("away"), ProviderRateLimited("slow"), ProviderError("broken")])
def test_failover_before_the_stream_has_started(error: ProviderError) -> None:
    app = make_app()
    app.dispatcher.outcomes = [error]
    result = complete(app)
    assert (result.provider, result.attempts) == ("b", 2)
    assert list(result.body) == [STREAM_BODY]


@pytest.mark.parametrize("error", [ProviderRejected("bad"), ProviderTimeout("cut", may_be_billed=True)])
def test_rejected_or_possibly_billed_call_is_not_repeated(error: ProviderError) -> None:
    app = make_app()
    app.dispatcher.outcomes = [error]
    with pytest.raises(type(error)):
        complete(app)
    assert len(app.dispatcher.calls) == 1


@pytest.mark.parametrize("body", [BODY, BODY.replace('"stream":true,', "")])
def test_first_byte_timeout_error_suggests_the_queue(body: str) -> None:
    app = TestApp({"name": "p", "models": {"m": ""}, "timeout_s": 800})
    app.dispatcher.latency_s = FIRST_BYTE_TIMEOUT_S
    app.dispatcher.outcomes = [ProviderTimeout("Provider p: no response within the time limit", may_be_billed=True)]
    with pytest.raises(ProviderTimeout, match="within the time limit; queue the request"):
        complete(app, body=body)
    ((_, call),) = app.dispatcher.calls
    assert call.get("head_timeout_s", call.get("timeout_s")) == FIRST_BYTE_TIMEOUT_S == 280


def test_truncated_response_error_does_not_suggest_the_queue() -> None:
    app = TestApp({"name": "p", "models": {"m": ""}})
    app.dispatcher.outcomes = [ProviderTimeout("Provider p: the response is incomplete", may_be_billed=True)]
    with pytest.raises(ProviderTimeout, match=r"incomplete$"):
        complete(app)


# --- the stored job ---


def stored_job(app: TestApp) -> Any:
    (job,) = app.jobs.list_page(ME.owner, take=9).jobs
    return job


def test_stream_with_ref_id_is_stored_with_usage_and_without_body() -> None:
    app = make_app()
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, 2.0], usage='{"total_tokens":3}')]
    result = complete(app, ',"refId":"r","tag":"t"')
    started = app.jobs.find_by_ref_id(ME.owner, "r", now_ms=app.clock.now)
    assert started is not None
    assert started.state == JobState.STARTED
    list(result.body)
    job = stored_job(app)
    assert (job.ref_id, job.tag, job.state, job.served_by, job.attempt) == ("r", "t", JobState.COMPLETED, "a", 1)
    assert (job.usage, job.result_location, job.completed_at - job.started_at) == ('{"total_tokens":3}', None, 2000)
    view = json.loads(views.status_view(job, None))
    assert view["jobState"] == "Completed"
    assert not {"result", "resultUrl"} & view.keys()


def test_stream_without_ref_id_or_tag_is_not_stored() -> None:
    app = make_app()
    list(complete(app).body)
    assert app.jobs.items == {}


def test_interrupted_stream_is_stored_as_failed_with_estimated_usage() -> None:
    app = make_app()
    error = ProviderTimeout("Provider a: the stream ended before the response was complete", may_be_billed=True)
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, error], content_events=4)]
    *_, last_event = complete(app, ',"tag":"t"').body
    assert b'"errorCode":"ProviderTimeout"' in bytes(last_event)
    job = stored_job(app)
    assert (job.state, job.error_code, job.error) == (JobState.FAILED, "ProviderTimeout", error.message)
    assert json.loads(job.usage) == {"completion_tokens": 4, "estimated": True}


def test_interrupted_responses_stream_estimates_output_tokens() -> None:
    app = TestApp({"name": "p", "models": {"m": ""}, "operations": ["responses"]})
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, ProviderError("cut")], content_events=2)]
    request = requests.bind_responses('{"model":"m","input":"hi","stream":true,"tag":"t"}')
    result = app.complete.run(
        request, owner=ME.owner, base_url="https://x.io", deadline=Deadline(app.clock.now + LIMIT_MS)
    )
    list(result.body)
    assert json.loads(stored_job(app).usage) == {"output_tokens": 2, "estimated": True}


def test_stream_of_disconnected_client_is_stored_as_cancelled() -> None:
    app = make_app()
    app.dispatcher.outcomes = [stream := FakeStream(app.clock, [STREAM_BODY, STREAM_BODY], content_events=2)]
    result = complete(app, ',"tag":"t"')
    assert not isinstance(result.body, bytes)
    next(result.body)
    result.body.close()
    assert stream.is_closed
    job = stored_job(app)
    assert (job.state, json.loads(job.usage)["completion_tokens"]) == (JobState.CANCELLED, 2)


def test_stream_continues_when_the_job_cannot_be_stored() -> None:
    app = make_app()

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("no table")

    app.jobs.create = fail  # type: ignore[method-assign]
    assert list(complete(app, ',"tag":"t"').body) == [STREAM_BODY]


def test_repeated_ref_id_of_a_stream_is_a_conflict() -> None:
    app = make_app()
    list(complete(app, ',"refId":"r"').body)
    with pytest.raises(Conflict, match="has no stored response"):
        complete(app, ',"refId":"r"')
    assert len(app.dispatcher.calls) == 1


@pytest.mark.parametrize("step", [ProviderTimeout("cut", may_be_billed=True), RuntimeError("fault"), 900.0])
def test_repeated_ref_id_of_an_interrupted_stream_is_a_conflict(step: Exception | float) -> None:
    app = make_app()
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, step, STREAM_BODY], content_events=1)]
    with suppress(RuntimeError):
        list(complete(app, ',"refId":"r"').body)
    with pytest.raises(Conflict, match="a job that is Failed"):
        complete(app, ',"refId":"r"')
    assert (stored_job(app).maybe_billed, len(app.dispatcher.calls)) == (1, 1)


def test_repeated_ref_id_of_a_disconnected_stream_is_a_conflict() -> None:
    app = make_app()
    result = complete(app, ',"refId":"r"')
    assert not isinstance(result.body, bytes)
    result.body.close()
    with pytest.raises(Conflict, match="a job that is Cancelled"):
        complete(app, ',"refId":"r"')
    assert len(app.dispatcher.calls) == 1


def test_ref_id_of_a_stream_that_failed_without_effect_can_be_repeated() -> None:
    app = make_app()
    app.dispatcher.outcomes = [ProviderUnavailable("away"), ProviderUnavailable("away")]
    with pytest.raises(ProviderUnavailable):
        complete(app, ',"refId":"r"')
    assert (stored_job(app).state, stored_job(app).calls, stored_job(app).maybe_billed) == (JobState.FAILED, 2, 0)
    assert list(complete(app, ',"refId":"r"').body) == [STREAM_BODY]
    assert (stored_job(app).state, stored_job(app).calls, stored_job(app).attempt) == (JobState.COMPLETED, 1, 2)


# --- circuits and leases ---


def test_concurrency_lease_is_held_until_the_stream_ends() -> None:
    app = TestApp({"name": "p", "concurrency": 1, "timeout_s": 30, "models": {"m": ""}})
    result = complete(app)
    (expires_ms,) = app.leases.held["provider#p"].values()
    assert expires_ms >= app.clock.now + LIMIT_MS  # a stream may last until the function timeout
    with pytest.raises(ProviderRateLimited):
        complete(app)
    list(result.body)
    assert app.leases.held["provider#p"] == {}
    list(complete(app).body)


def app_due_for_probe() -> TestApp:
    """Return an app whose only provider has an open circuit; the next call is a probe."""
    app = TestApp({"name": "p", "models": {"m": ""}})
    app.dispatcher.outcomes = [ProviderError("broken") for _ in range(FAILURE_THRESHOLD)]
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ProviderError):
            complete(app)
    app.clock.advance(26)
    return app


def test_probe_succeeds_at_the_first_event_of_its_stream() -> None:
    app = app_due_for_probe()
    first = complete(app)
    events = iter(first.body)
    assert next(events) == STREAM_BODY
    assert app.circuits.stored["p"].retry_at("me", "m") is None
    second = complete(app)
    assert list(second.body) == [STREAM_BODY]
    assert list(events) == []


def test_probe_with_late_first_event_succeeds_at_that_event() -> None:
    app = app_due_for_probe()
    app.dispatcher.outcomes = [FakeStream(app.clock, [20.0, STREAM_BODY, 1.0])]
    events = iter(complete(app).body)
    next(events)
    assert app.circuits.stored["p"].retry_at("me", "m") is not None
    assert next(events) == STREAM_BODY
    assert app.circuits.stored["p"].retry_at("me", "m") is None


def test_probe_without_any_event_does_not_succeed() -> None:
    app = app_due_for_probe()
    app.dispatcher.outcomes = [FakeStream(app.clock, [700.0, ProviderTimeout("silent", may_be_billed=True)])]
    result = complete(app)
    assert app.circuits.stored["p"].retry_at("me", "m") is not None
    list(result.body)
    assert app.circuits.stored["p"].retry_at("me", "m") is not None


def test_streams_cut_by_the_gateway_limit_do_not_open_the_circuit() -> None:
    app = TestApp({"name": "p", "models": {"m": ""}, "timeout_s": 80_000})
    for _ in range(2 * FAILURE_THRESHOLD):
        app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, 900.0, STREAM_BODY])]
        *_, last = complete(app).body
        assert b"The deadline passed" in bytes(last)
    list(complete(app).body)


def test_interrupted_streams_open_the_circuit() -> None:
    app = TestApp({"name": "p", "models": {"m": ""}})
    interruption = ProviderTimeout("cut", may_be_billed=True)
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, interruption]) for _ in range(50)]
    for _ in range(50):
        list(complete(app).body)
        if app.circuits.stored["p"].retry_at("me", "m") is not None:
            return
    raise AssertionError("the circuit never opened")
