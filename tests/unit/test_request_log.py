"""One event for each synchronous request and each outcome of a job: who called what, how it ended, what it used."""

import logging
from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import AiServerError, ProviderRejected, ProviderUnavailable
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.complete import Complete, CompletionResult
from aiserver.wire import requests
from tests.app import ME, STREAM_BODY, FakeStream, TestApp

SECRET = "the text of the prompt"
CHAT = '{"model":"m","messages":[{"role":"user","content":"%s"}]%s}'
USAGE = '{"prompt_tokens": 1, "total_tokens": 3}'


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiserver")


def make_app(*, logs_tags: bool = False) -> TestApp:
    app = TestApp({"name": "a", "priority": 1, "models": {"m": "x"}}, {"name": "b", "models": {"m": "y"}})
    app.complete = Complete(app.jobs, app.directory, app.failover, app.records, app.clock, logs_tags=logs_tags)
    return app


def complete(app: TestApp, fields: str = "", model: str = "m") -> CompletionResult:
    body = (CHAT % (SECRET, fields)).replace('"m"', f'"{model}"')
    deadline = Deadline(app.clock.now + 600_000)
    return app.complete.run(requests.bind_chat(body), owner=ME.owner, base_url="https://x.io", deadline=deadline)


def answered(usage: str | None = USAGE) -> ProviderResponse:
    return ProviderResponse(200, {}, b'{"choices":[]}', usage=usage)


def events(caplog: pytest.LogCaptureFixture, name: str = "request_completed") -> list[dict[str, Any]]:
    names = vars(logging.makeLogRecord({}))
    records = [record for record in caplog.records if record.msg == name]
    return [{key: value for key, value in vars(record).items() if key not in names} for record in records]


def test_complete_response_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.dispatcher.latency_s = 2
    app.dispatcher.outcomes = [ProviderUnavailable("away"), answered()]
    complete(app)
    (event,) = events(caplog)
    event.pop("message", None)
    assert event == {
        "key_id": ME.owner,
        "operation": "chat.completions",
        "model": "m",
        "served_model": "y",
        "provider": "b",
        "attempts": 2,
        "status": 200,
        "first_byte_ms": 4000,
        "duration_ms": 4000,
        "usage": {"prompt_tokens": 1, "total_tokens": 3},
    }


def test_stream_is_logged_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, 2.0], usage=USAGE)]
    result = complete(app, ',"stream":true')
    assert events(caplog) == []
    list(result.body)
    (event,) = events(caplog)
    assert (event["stream"], event["state"], event["status"]) == (True, "Completed", 200)
    assert (event["first_byte_ms"], event["duration_ms"]) == (0, 2000)
    assert event["usage"] == {"prompt_tokens": 1, "total_tokens": 3}


def test_disconnect_of_the_caller_is_the_state_of_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, 2.0])]
    body: Any = complete(app, ',"stream":true').body
    body.close()
    (event,) = events(caplog)
    assert (event["state"], "error" in event) == ("Cancelled", False)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProviderRejected("bad"), 400, "ProviderRejected"),
        (ProviderUnavailable("away"), 503, "ProviderUnavailable"),
    ],
)
def test_failed_request_is_logged_with_its_status(
    caplog: pytest.LogCaptureFixture, error: Exception, status: int, code: str
) -> None:
    app = make_app()
    app.dispatcher.outcomes = [error, error]
    with pytest.raises(type(error)):
        complete(app)
    (event,) = events(caplog)
    assert (event["status"], event["error"], event["key_id"]) == (status, code, ME.owner)


def test_fault_of_the_gateway_is_logged_as_a_500(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("a fault")

    app = make_app()
    monkeypatch.setattr(app.failover, "try_candidates", fail)
    with pytest.raises(RuntimeError):
        complete(app)
    (event,) = events(caplog)
    assert (event["status"], event["error"]) == (500, "InternalError")


def test_unknown_model_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AiServerError):
        complete(make_app(), model="nope")
    (event,) = events(caplog)
    assert (event["status"], event["model"], "provider" in event) == (404, "nope", False)


def test_replayed_response_is_marked(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.dispatcher.outcomes = [answered()]
    for _ in range(2):
        complete(app, ',"refId":"r"')
    first, second = events(caplog)
    assert ("replayed" in first, second["replayed"], second["provider"]) == (False, True, "a")
    assert "usage" not in second


@pytest.mark.parametrize("logs_tags", [False, True])
def test_tag_is_logged_only_if_configured(caplog: pytest.LogCaptureFixture, logs_tags: bool) -> None:
    app = make_app(logs_tags=logs_tags)
    app.dispatcher.outcomes = [answered()]
    complete(app, ',"tag":"t"')
    (event,) = events(caplog)
    assert event.get("tag") == ("t" if logs_tags else None)


def test_usage_that_is_not_json_is_omitted(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.dispatcher.outcomes = [answered(usage="{")]
    complete(app)
    (event,) = events(caplog)
    assert "usage" not in event


def test_outcome_of_a_job_is_logged_with_its_key_and_usage(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.dispatcher.latency_s = 3
    app.dispatcher.outcomes = [answered(), ProviderRejected("bad")]
    jobs = [app.run(app.accept()) for _ in range(2)]
    (completed,), (failed,) = events(caplog, "job_completed"), events(caplog, "job_failed")
    common = {"job_id": jobs[0].id, "attempt": 1, "key_id": ME.owner, "operation": "chat.completions", "model": "m"}
    completed.pop("message", None)
    assert completed == common | {
        "provider": "a",
        "served_model": "x",
        "calls": 1,
        "duration_ms": 3000,
        "usage": {"prompt_tokens": 1, "total_tokens": 3},
    }
    assert (failed["error"], failed["duration_ms"], failed["key_id"]) == ("ProviderRejected", 3000, ME.owner)


def test_no_event_contains_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(logs_tags=True)
    app.dispatcher.outcomes = [ProviderRejected(SECRET), answered()]
    with pytest.raises(ProviderRejected):
        complete(app)
    complete(app)
    assert SECRET not in str([vars(record) for record in caplog.records if record.msg == "request_completed"])
