"""A new operation is one row: two made-up ones pass through routing, provider, job, result and callback."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import pytest

from aiserver import operations
from aiserver.aws.bedrock import bedrock_transport
from aiserver.clock import Deadline
from aiserver.jobs.states import CallbackState, JobState
from aiserver.operations import Operation, ResponseKind
from aiserver.providers import provider as provider_module
from aiserver.providers.call import ProviderCall
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.registry import AdapterRegistry
from aiserver.routing.admission import AdmissionControl
from aiserver.routing.failover import Failover
from aiserver.usecases.complete import CompletionResult
from aiserver.wire.requests import ModelRequest, Options
from local.scripted import ScriptedProvider
from tests.app import ME, TestApp
from tests.fakes import FakeClock

READ_ALOUD = Operation("read.aloud", "/read/aloud", response=ResponseKind.BYTES, can_queue=True)
WRITE_DOWN = Operation("write.down", "/write/down", response=ResponseKind.TEXT)
ROWS = MappingProxyType({**operations.OPERATIONS, READ_ALOUD.name: READ_ALOUD, WRITE_DOWN.name: WRITE_DOWN})
AUDIO = b"ID3\x00\xff\xfe"
FORM_TYPE = "multipart/form-data; boundary=b"
FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def app(upstream: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestApp]:
    """The use cases with the two operations, over a real HTTP client."""
    for module in (operations, provider_module):
        monkeypatch.setattr(module, "OPERATIONS", ROWS)
    upstream.requests.clear()
    config = {"name": "p", "base_url": upstream.base_url, "operations": list(ROWS), "models": {"m": "voice-1"}}
    test_app = TestApp(config)
    with create_client() as client:
        dispatcher = Dispatcher(client, AdapterRegistry(FakeClock(), bedrock_transport), test_app.clock)
        failover = Failover(dispatcher, AdmissionControl(test_app.clock), None, test_app.clock)
        monkeypatch.setattr(test_app.complete, "_failover", failover)
        monkeypatch.setattr(test_app.run_job, "_failover", failover)
        test_app.failover = failover
        yield test_app


def make_call(app: TestApp, operation: Operation, body: bytes) -> ProviderCall:
    deadline = Deadline(app.clock.now + 20_000)
    return ProviderCall(operation, body, deadline, deadline)


def run_sync(app: TestApp, request: ModelRequest) -> CompletionResult:
    deadline = Deadline(app.clock.now + 20_000)
    return app.complete.run(request, owner=ME.owner, base_url=ME.base_url, deadline=deadline)


def aloud(**options: str) -> ModelRequest:
    return ModelRequest(READ_ALOUD, b'{"model":"m","input":"hi"}', "m", Options(**options))


def test_json_request_returns_bytes_with_their_content_type(app: TestApp, upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, AUDIO, {"content-type": "audio/mpeg"})
    result = run_sync(app, aloud())
    assert (result.body, result.headers["content-type"]) == (AUDIO, "audio/mpeg")
    (received,) = upstream.requests
    assert (received.path, json.loads(received.body)) == ("/v1/read/aloud", {"model": "voice-1", "input": "hi"})


def test_form_request_returns_text(app: TestApp, upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, b"hello", {"content-type": "text/plain"})
    call = replace(make_call(app, WRITE_DOWN, FORM), content_type=FORM_TYPE)
    result = app.failover.try_candidates(call, app.directory.candidates("m", operation=WRITE_DOWN))
    assert result.response is not None
    assert (result.response.body, result.response.content_type) == (b"hello", "text/plain")
    (received,) = upstream.requests
    assert (received.path, received.headers["content-type"], received.body) == ("/v1/write/down", FORM_TYPE, FORM)


def test_error_of_an_operation_with_bytes_is_mapped_as_json(app: TestApp, upstream: ScriptedProvider) -> None:
    error = b'{"error":{"message":"no such voice","type":"invalid_request_error","code":null,"param":"voice"}}'
    upstream.respond_with(400, error)
    call = make_call(app, READ_ALOUD, aloud().body)
    result = app.failover.try_candidates(call, app.directory.candidates("m", operation=READ_ALOUD))
    assert result.error is not None
    assert (result.error.status, result.error.message, result.can_retry) == (400, "no such voice", False)


def test_queued_result_keeps_its_content_type_for_result_and_callback(app: TestApp, upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, AUDIO, {"content-type": "audio/mpeg"})
    job = app.run(app.enqueue.accept(aloud(reply_to="https://hooks.example.com/x"), ME))
    assert (job.state, job.result_type, job.result_bytes) == (JobState.COMPLETED, "audio/mpeg", len(AUDIO))
    assert app.status.result(job) == AUDIO
    status = json.loads(app.status.status(job))
    assert (status.get("result"), status["resultUrl"]) == (None, f"https://x.io/v1/jobs/{job.id}/result")
    assert app.status.record(job).get("responseBody") is None
    assert app.deliver(job).callback == CallbackState.DELIVERED
    ((_, body, headers),) = app.webhook_client.posts
    assert (body, headers["content-type"]) == (AUDIO, "audio/mpeg")


def test_repeated_ref_id_returns_bytes_with_their_content_type(app: TestApp, upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, AUDIO, {"content-type": "audio/mpeg"})
    first, second = run_sync(app, aloud(ref_id="r")), run_sync(app, aloud(ref_id="r"))
    assert (second.is_replay, second.body, second.headers) == (True, AUDIO, {"content-type": "audio/mpeg"})
    assert first.body == second.body
    assert len(upstream.requests) == 1


def test_stream_of_an_operation_ends_with_its_end_event(app: TestApp, upstream: ScriptedProvider) -> None:
    end = b'data: {"type":"aloud.done","usage":{"input_tokens":1}}\n\n'
    upstream.stream_with(iter([b'data: {"type":"aloud.delta","audio":"AA"}\n\n', end]))
    streamed = replace(READ_ALOUD, end_events=("aloud.done",))
    call = replace(make_call(app, streamed, aloud().body), stream=True)
    result = app.failover.try_candidates(call, app.directory.candidates("m", operation=READ_ALOUD))
    assert result.stream is not None
    with result.stream.resources:
        received = b"".join(event or b"" for event in result.stream.stream.events)
    assert (received.endswith(end), result.stream.stream.mapper.is_complete) == (True, True)
    assert result.stream.stream.mapper.usage == '{"input_tokens":1}'
