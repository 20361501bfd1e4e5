"""Synchronous requests as jobs: repeats of a RefId, recorded outcomes, queued repeats, and a store that fails."""

import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import (
    AiServerError,
    Conflict,
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.operations import SPEECH
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.call import Upstream
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.complete import FIRST_BYTE_TIMEOUT_S, CompletionResult
from aiserver.usecases.enqueue import QUEUED_DUE_MS
from aiserver.usecases.sync_records import POLL_INTERVAL_S
from aiserver.wire import audio_requests, requests, sse
from aiserver.wire.aiserver_audio import bind_speech_to_text, bind_text_to_speech
from aiserver.wire.errors import error_headers
from aiserver.wire.forms import Part, encode_form
from aiserver.wire.requests import ModelRequest, Options
from tests.app import BODY, MARGIN_S, ME, RESPONSE, STREAM_BODY, FakeEventMapper, FakeStream, TestApp
from tests.fakes import FakeClock, FakeJobs

LIMIT_MS = 60_000
EVENT_S = 60  # until a test that waits for another thread fails
REPLY_TO = "https://x.io/hook"
REPEATABLE_ERRORS = [
    ProviderUnavailable("away"),
    ProviderRateLimited("slow down"),
    ProviderAuth("no key"),
    ProviderRejected("wrong"),
    ProviderError("broken"),
]
TIMEOUT = ProviderTimeout("Provider p: the response is incomplete", may_be_billed=True)
UNKNOWN_OUTCOMES = [TIMEOUT, ProviderError("Provider p: no choices", may_be_billed=True)]
FILE = (b"ID3\x04", b"\xff\xfe", b"", b"end")
MP3 = {"content-type": "audio/mpeg"}
FORM = [Part("model", b"m"), Part("file", b"RIFF", "a.wav", "audio/wav")]
SPEECH_BODY = b'{"model":"m","input":"Hello","voice":"alloy"}'


def make_app(jobs: Callable[[FakeClock], FakeJobs] = FakeJobs) -> TestApp:
    operations = ["chat.completions", "audio.transcriptions", "audio.speech"]
    return TestApp({"name": "p", "models": {"m": ""}, "operations": operations}, jobs=jobs)


def chat(body: str = BODY, **options: str) -> ModelRequest:
    return requests.bind_chat(body).with_options(Options(**({"ref_id": "r"} | options)))


def stream_chat(**options: str) -> ModelRequest:
    return chat(BODY.replace('"m"', '"m","stream":true', 1), **options)


def speech(options: Options) -> ModelRequest:
    return audio_requests.bind_speech(SPEECH_BODY, "application/json").with_options(options)


def complete(app: TestApp, request: ModelRequest, *, limit_ms: int = LIMIT_MS) -> CompletionResult:
    deadline = Deadline(app.clock.now + limit_ms)
    return app.complete.run(request, owner=ME.owner, base_url="https://x.io", deadline=deadline)


def queue_chat(app: TestApp, body: str = BODY, **options: str) -> Job:
    return app.enqueue.accept(requests.bind_openai_queue_chat(body, Options(**({"ref_id": "r"} | options))), ME)


def stored_job(app: TestApp) -> Job:
    (job,) = app.jobs.list_page(ME.owner, take=9).jobs
    return job


def fail(app: TestApp, error: ProviderError, request: ModelRequest | None = None) -> None:
    """Make one request that fails."""
    app.dispatcher.outcomes = [error]
    with pytest.raises(type(error)):
        complete(app, request or chat())


def check_conflict(app: TestApp, text: str, request: ModelRequest | None = None) -> None:
    """A repeat is a 409 at once, which the official SDKs do not retry, and calls no provider."""
    calls, now = len(app.dispatcher.calls), app.clock.now
    with pytest.raises(Conflict) as raised:
        complete(app, request or chat())
    error = raised.value
    assert text in error.message
    assert (error.status, error.param, error_headers(error)) == (409, "refId", {"x-should-retry": "false"})
    assert (len(app.dispatcher.calls), app.clock.now) == (calls, now)


def raise_fault(*_: object, **__: object) -> Any:
    raise RuntimeError("a secret of the gateway")


# --- records of calls ---


def test_job_is_started_before_the_call_and_completed_after_it() -> None:
    app = make_app()
    jobs_at_call: list[Job] = []

    def send(upstream: Any, call: Any) -> ProviderResponse:
        jobs_at_call.append(stored_job(app))
        app.clock.advance(2)
        return RESPONSE

    app.dispatcher.send = send  # type: ignore[method-assign]
    started_ms = app.clock.now
    complete(app, chat(tag="t"))
    (started,) = jobs_at_call
    lease_until = started_ms + LIMIT_MS + MARGIN_S * 1000
    assert (started.state, started.ref_id, started.tag, started.queue) == (JobState.STARTED, "r", "t", "")
    assert (started.attempt, started.started_at, started.call_started_at) == (1, started_ms, started_ms)
    assert (started.lease_until, started.due_at, started.call_queue) == (lease_until, lease_until, "hosted")
    job = stored_job(app)
    assert (job.id, job.state, job.served_by, job.usage) == (started.id, JobState.COMPLETED, "p", RESPONSE.usage)
    assert (job.started_at, job.completed_at, job.maybe_billed) == (started_ms, started_ms + 2000, 0)
    assert (job.lease_token, job.lease_until, job.due_at) == (None, None, None)
    assert job.ttl
    assert (app.jobs.read_result(job), app.jobs.read_request(job)) == (RESPONSE.body, BODY.encode())


def test_repeats_of_a_running_request_wait_and_make_no_call() -> None:
    app = make_app()
    has_ended, waits, calls = threading.Event(), threading.Semaphore(0), [0]

    def sleep(seconds: float) -> None:
        waits.release()
        assert (seconds, has_ended.wait(EVENT_S)) == (POLL_INTERVAL_S, True)

    with ThreadPoolExecutor(2) as pool:
        repeats: list[Any] = []

        def send(upstream: Any, call: Any) -> ProviderResponse:
            calls[0] += 1
            if calls[0] == 1:
                repeats.extend(pool.submit(complete, app, chat()) for _ in range(2))
                assert all(waits.acquire(timeout=EVENT_S) for _ in repeats)
            return ProviderResponse(200, {}, b'{"id":"%d"}' % calls[0])

        app.records._sleep = sleep
        app.dispatcher.send = send  # type: ignore[method-assign]
        try:
            first = complete(app, chat())
        finally:
            has_ended.set()
        responses = [repeat.result(EVENT_S) for repeat in repeats]
    assert [(response.body, response.is_replay) for response in (first, *responses)] == [
        (b'{"id":"1"}', False),
        (b'{"id":"1"}', True),
        (b'{"id":"1"}', True),
    ]
    assert calls == [1]


@pytest.mark.parametrize("maybe_billed", [0, 1])
def test_repeat_that_waits_for_a_failure_calls_if_it_had_no_effect(maybe_billed: int) -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    failed = stored_job(app)
    app.jobs.items[failed.id]["state"] = JobState.STARTED
    ended = {"state": JobState.FAILED, "maybe_billed": maybe_billed}
    app.records._sleep = lambda _: app.jobs.items[failed.id].update(ended)
    if maybe_billed:
        check_conflict(app, "belongs to a job that is Failed: away")
    else:
        assert complete(app, chat()).is_replay is False
        assert (stored_job(app).id, stored_job(app).attempt) == (failed.id, 2)


def test_response_is_replayed_with_its_headers_and_without_a_call() -> None:
    app = make_app()
    first, repeat = complete(app, chat()), complete(app, chat())
    assert (repeat.status, repeat.body, repeat.provider, repeat.attempts) == (200, first.body, "p", 1)
    assert repeat.response_headers == {"x-provider": "p", "x-attempts": "1", "x-replayed": "true"}
    assert len(app.dispatcher.calls) == 1


@pytest.mark.parametrize("error", REPEATABLE_ERRORS, ids=lambda error: type(error).__name__)
def test_repeat_after_a_failure_without_effect_restarts_the_job(error: ProviderError) -> None:
    app = make_app()
    fail(app, error)
    failed = stored_job(app)
    assert (failed.state, failed.error, failed.maybe_billed) == (JobState.FAILED, error.message, 0)
    app.clock.advance(5)
    app.dispatcher.outcomes = [ProviderResponse(200, {}, b'{"id":"2"}')]
    assert complete(app, chat()).is_replay is False
    job = stored_job(app)
    assert (job.id, job.state, job.attempt, job.calls) == (failed.id, JobState.COMPLETED, 2, 1)
    assert (job.started_at, job.error, job.error_code, job.error_type) == (app.clock.now, None, None, None)
    assert complete(app, chat()).body == b'{"id":"2"}'
    assert len(app.dispatcher.calls) == 2


def test_job_is_started_during_the_call_of_a_restarted_request() -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    app.clock.advance(5)
    jobs_at_call: list[Job] = []

    def send(upstream: Any, call: Any) -> ProviderResponse:
        jobs_at_call.append(stored_job(app))
        return RESPONSE

    app.dispatcher.send = send  # type: ignore[method-assign]
    complete(app, chat())
    (started,) = jobs_at_call
    lease_until = app.clock.now + LIMIT_MS + MARGIN_S * 1000
    assert (started.state, started.attempt, started.call_started_at) == (JobState.STARTED, 2, app.clock.now)
    assert (started.lease_until, started.due_at, started.error, started.ttl) == (lease_until, lease_until, None, None)


@pytest.mark.parametrize("error", UNKNOWN_OUTCOMES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("stream", [False, True])
def test_repeat_after_an_unknown_outcome_is_a_conflict_with_its_error(error: ProviderError, stream: bool) -> None:
    app = make_app()
    request = stream_chat() if stream else chat()
    fail(app, error, request)
    job = stored_job(app)
    assert (job.state, job.maybe_billed) == (JobState.FAILED, 1)
    check_conflict(app, f"belongs to a job that is Failed: {error.message}", request)
    assert stored_job(app) == job


def test_repeat_of_a_streamed_chat_is_a_conflict_at_once() -> None:
    app = make_app()
    body = complete(app, stream_chat()).body
    assert not isinstance(body, bytes)
    check_conflict(app, "belongs to a job that is Started", stream_chat())
    list(body)
    check_conflict(app, "Completed and has no stored response", stream_chat())


@pytest.mark.parametrize("state", ["running", "completed", "failed", "unknown"])
def test_another_body_with_the_same_ref_id_is_a_conflict_at_once(state: str) -> None:
    app = make_app()
    another_request = chat(BODY.replace("hi", "bye"))
    errors: dict[str, ProviderError] = {"failed": ProviderUnavailable("away"), "unknown": TIMEOUT}
    if error := errors.get(state):
        fail(app, error)
    elif state == "completed":
        complete(app, chat())
    else:

        def send(upstream: Any, call: Any) -> ProviderResponse:
            check_conflict(app, "RefId r was already used for another request", another_request)
            return RESPONSE

        app.dispatcher.send = send  # type: ignore[method-assign]
        complete(app, chat())
    check_conflict(app, "RefId r was already used for another request", another_request)


@pytest.mark.parametrize("is_speech_to_text_first", [False, True])
def test_ref_id_of_a_transcription_is_a_conflict_for_speech_to_text(is_speech_to_text_first: bool) -> None:
    """Their forms may be equal, but only the response to SpeechToText contains times."""
    app = make_app()
    query = {"refId": "r", "model": "m"}
    file = Part("audio", FORM[1].content, FORM[1].file_name, FORM[1].content_type)
    pair = [
        audio_requests.bind_transcription(*encode_form(FORM)).with_options(Options(ref_id="r")),
        bind_speech_to_text(*encode_form([file]), query, name="SpeechToText"),
    ]
    assert (pair[0].body, pair[0].operation, pair[1].options.ref_id) == (pair[1].body, pair[1].operation, "r")
    first, second = reversed(pair) if is_speech_to_text_first else pair
    complete(app, first)
    check_conflict(app, "RefId r was already used for another request", second)
    assert complete(app, first).is_replay


def test_speech_to_text_and_its_queue_request_share_a_ref_id() -> None:
    app = make_app()
    query = {"refId": "r", "model": "m"}
    form = encode_form([Part("audio", b"RIFF", "a.wav", "audio/wav")])
    complete(app, bind_speech_to_text(*form, query, name="SpeechToText"))
    job = app.enqueue.accept(bind_speech_to_text(*form, query, name="QueueSpeechToText"), ME)
    assert job == stored_job(app)


@pytest.mark.parametrize("is_completed", [False, True])
def test_ref_id_of_a_queued_job_is_a_conflict_until_it_completes(is_completed: bool) -> None:
    app = make_app()
    job = queue_chat(app)
    if is_completed:
        app.run(job)
        assert complete(app, chat()).is_replay
        assert len(app.dispatcher.calls) == 1
    else:
        check_conflict(app, "belongs to a job that is Queued")


def test_ref_id_of_a_queued_job_that_failed_is_a_conflict() -> None:
    app = make_app()
    app.dispatcher.outcomes = [ProviderRejected("wrong")]
    job = app.run(queue_chat(app))
    assert (job.state, job.maybe_billed) == (JobState.FAILED, 0)
    check_conflict(app, "belongs to a job that is Failed: wrong")


def test_repeat_of_a_request_that_does_not_end_is_a_conflict_in_time() -> None:
    app = make_app()
    started_ms = app.clock.now
    conflicts: list[str] = []

    def send(upstream: Any, call: Any) -> ProviderResponse:
        with pytest.raises(Conflict) as raised:
            complete(app, chat(), limit_ms=800_000)
        conflicts.append(raised.value.message)
        return RESPONSE

    app.dispatcher.send = send  # type: ignore[method-assign]
    complete(app, chat(), limit_ms=800_000)
    assert conflicts == ["RefId r belongs to a job that is Started"]
    assert app.clock.now == started_ms + FIRST_BYTE_TIMEOUT_S * 1000
    assert stored_job(app).state == JobState.COMPLETED


# --- a queue request with the RefId of a synchronous request ---


@pytest.mark.parametrize("error", REPEATABLE_ERRORS, ids=lambda error: type(error).__name__)
def test_queue_request_runs_a_request_that_failed_without_effect(error: ProviderError) -> None:
    app = make_app()
    fail(app, error)
    failed = stored_job(app)
    app.clock.advance(5)
    job = queue_chat(app, reply_to=REPLY_TO, deadline="3600")
    assert (job.id, job.state, job.queue, job.reply_to) == (failed.id, JobState.QUEUED, "hosted", REPLY_TO)
    assert (job.epoch, job.deadline, job.due_at) == (1, app.clock.now + 3_600_000, app.clock.now + QUEUED_DUE_MS)
    assert (job.error, job.error_code, job.completed_at, job.ttl) == (None, None, None, None)
    assert app.messages.jobs == [("hosted", job.id, 0)]
    job = app.run(job)
    assert (job.state, job.attempt, job.callback) == (JobState.COMPLETED, 2, CallbackState.PENDING)
    assert app.dispatcher.calls[-1][1]["idempotency_key"] == f"job-{job.id}-1"
    assert app.deliver(job).callback == CallbackState.DELIVERED
    ((url, body, headers),) = app.webhook_client.posts
    assert (url, body, headers["x-ref-id"], headers["x-job-state"]) == (REPLY_TO, RESPONSE.body, "r", "Completed")
    assert len(app.dispatcher.calls) == 2


@pytest.mark.parametrize("name", ["TextToSpeech", ""])
def test_queued_repeat_is_described_by_the_queue_request(name: str) -> None:
    """A callback of AI Server's, its `state`, and the provider that the queue request names."""
    text_to_speech = partial(bind_text_to_speech, b'{"input":"Hello","model":"m","seed":1}', "application/json")
    app = TestApp(*({"name": name, "models": {"m": ""}, "operations": ["audio.speech"]} for name in ("p", "q")))
    synchronous = replace(text_to_speech({}, name="TextToSpeech"), name=name)
    fail(app, ProviderUnavailable("away"), synchronous.with_options(Options(ref_id="r", tag="t", provider="p")))
    options = Options(ref_id="r", tag="u", provider="q", reply_to=REPLY_TO, state="s")
    job = app.enqueue.accept(text_to_speech({}, name="QueueTextToSpeech").with_options(options), ME)
    assert (job.request_name, job.client_state, job.ignored) == ("QueueTextToSpeech", "s", "seed")
    assert (job.tag, job.provider, job.reply_to) == ("u", "q", REPLY_TO)
    app.dispatcher.outcomes = [ProviderResponse(200, {"content-type": "audio/mpeg"}, b"ID3")]
    app.deliver(app.run(job))
    assert app.dispatcher.calls[-1][0] == "q"
    ((_, body, _),) = app.webhook_client.posts
    callback = json.loads(body)
    assert (callback["state"], callback["refId"], callback["outputs"][0]["provider"]) == ("s", "r", "q")


def test_repeat_after_a_failure_is_described_by_the_repeat() -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"), chat(tag="t"))
    complete(app, chat(tag="u", provider="p"))
    job = stored_job(app)
    assert (job.state, job.tag, job.provider) == (JobState.COMPLETED, "u", "p")


def test_queued_repeat_without_reply_to_has_no_callback() -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    job = app.run(queue_chat(app))
    assert (job.state, job.reply_to, job.callback) == (JobState.COMPLETED, None, CallbackState.NONE)
    assert complete(app, chat()).is_replay


def test_sweeper_sends_the_message_of_a_queued_repeat_that_was_not_sent() -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    app.messages.is_down = True
    job = queue_chat(app, reply_to=REPLY_TO)
    app.messages.is_down = False
    app.clock.advance(QUEUED_DUE_MS / 1000)
    app.run_sweep(job)
    assert app.messages.jobs == [("hosted", job.id, 0)]


def test_second_queue_request_gets_the_queued_job() -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    first, second = queue_chat(app, reply_to=REPLY_TO), queue_chat(app, reply_to=REPLY_TO)
    assert (first, first.epoch) == (second, 1)
    assert len(app.messages.jobs) == 1


def test_queue_request_that_loses_to_another_gets_the_queued_job() -> None:
    """The other request queues the job after this one has read it as Failed."""
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    apply = app.jobs.apply

    def apply_second(*arguments: Any) -> Any:
        app.jobs.apply = apply  # type: ignore[method-assign]
        queue_chat(app, reply_to=REPLY_TO)
        return apply(*arguments)

    app.jobs.apply = apply_second  # type: ignore[method-assign]
    job = queue_chat(app, reply_to=REPLY_TO)
    assert (job.state, job.epoch, len(app.messages.jobs)) == (JobState.QUEUED, 1, 1)


def check_queue_conflict(app: TestApp, state: JobState, **options: str) -> None:
    before = stored_job(app)
    with pytest.raises(Conflict, match=f"RefId r belongs to a synchronous request that is {state}") as raised:
        queue_chat(app, **options)
    assert (raised.value.status, raised.value.param) == (409, "refId")
    assert (stored_job(app), app.messages.jobs) == (before, [])


@pytest.mark.parametrize("options", [{}, {"reply_to": REPLY_TO}])
def test_queue_request_during_a_synchronous_one_is_a_conflict(options: dict[str, str]) -> None:
    app = make_app()

    def send(upstream: Any, call: Any) -> ProviderResponse:
        check_queue_conflict(app, JobState.STARTED, **options)
        return RESPONSE

    app.dispatcher.send = send  # type: ignore[method-assign]
    complete(app, chat())
    assert stored_job(app).state == JobState.COMPLETED


@pytest.mark.parametrize("options", [{}, {"reply_to": REPLY_TO}])
@pytest.mark.parametrize("error", UNKNOWN_OUTCOMES, ids=lambda error: type(error).__name__)
def test_queue_request_after_an_unknown_outcome_is_a_conflict(error: ProviderError, options: dict[str, str]) -> None:
    app = make_app()
    fail(app, error)
    check_queue_conflict(app, JobState.FAILED, **options)


def test_queue_request_after_a_completed_one_gets_its_job_or_a_conflict() -> None:
    """A completed job without a ReplyTo never sends a callback."""
    app = make_app()
    complete(app, chat())
    assert queue_chat(app) == stored_job(app)
    assert app.messages.jobs == []
    check_queue_conflict(app, JobState.COMPLETED, reply_to=REPLY_TO)


def test_queue_request_with_another_body_is_a_conflict() -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    with pytest.raises(Conflict, match="RefId r was already used for another request"):
        queue_chat(app, BODY.replace("hi", "bye"))
    assert stored_job(app).state == JobState.FAILED


# --- streamed files ---


@dataclass
class FakeFile:
    """stream.ProviderStream of a file: each step is bytes, seconds of silence, or an error to raise."""

    clock: FakeClock
    script: list[bytes | float | Exception]
    headers: dict[str, str] = field(default_factory=lambda: dict(MP3))
    mapper: FakeEventMapper = field(default_factory=FakeEventMapper)
    has_events: bool = False
    is_closed: bool = False
    steps: int = 0

    def __post_init__(self) -> None:
        self.events: Iterator[bytes | None] = self._play()

    def _play(self) -> Generator[bytes | None]:
        for step in self.script:
            self.steps += 1
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                self.clock.advance(step)
            yield None if isinstance(step, float) else step
        self.mapper.is_complete = self.mapper.is_done = True

    def close(self) -> None:
        self.is_closed = True


def open_file(
    app: TestApp, options: Options, *script: bytes | float | Exception
) -> tuple[FakeFile, Generator[bytes | None]]:
    """The upstream's file and the body of the response."""
    file: Any = FakeFile(app.clock, list(script))
    app.dispatcher.outcomes = [file]
    body = complete(app, speech(options)).body
    assert not isinstance(body, bytes)
    return file, body


RECORDED = [Options(ref_id="r"), Options(tag="t"), Options(ref_id="r", tag="t")]


@pytest.mark.parametrize("options", RECORDED, ids=["RefId", "Tag", "RefId and Tag"])
@pytest.mark.parametrize("chunks", range(len(FILE) + 1))
def test_file_whose_caller_disconnects_is_stored_completely(options: Options, chunks: int) -> None:
    app = make_app()
    file, body = open_file(app, options, *FILE)
    for _ in range(chunks):
        next(body)
    body.close()
    assert file.is_closed
    job = stored_job(app)
    assert (job.state, job.result_type, job.result_bytes) == (JobState.COMPLETED, "audio/mpeg", len(b"".join(FILE)))
    assert (job.has_file, app.jobs.read_result(job)) == (True, b"".join(FILE))


def test_repeat_after_a_disconnect_replays_the_whole_file() -> None:
    app = make_app()
    _, body = open_file(app, Options(ref_id="r"), *FILE)
    next(body)
    body.close()
    repeat = complete(app, speech(Options(ref_id="r")))
    assert (repeat.body, repeat.is_replay, repeat.headers["content-type"]) == (b"".join(FILE), True, "audio/mpeg")
    assert len(app.dispatcher.calls) == 1


def test_repeat_of_running_speech_waits_for_the_file() -> None:
    app = make_app()
    _, body = open_file(app, Options(ref_id="r"), *FILE)
    next(body)
    app.records._sleep = lambda _: [*body]
    repeat = complete(app, speech(Options(ref_id="r")))
    assert (repeat.body, repeat.is_replay, len(app.dispatcher.calls)) == (b"".join(FILE), True, 1)


def test_file_without_a_record_is_closed_when_its_caller_disconnects() -> None:
    app = make_app()
    file, body = open_file(app, Options(), *FILE)
    next(body)
    body.close()
    assert (file.is_closed, file.steps, app.jobs.items) == (True, 1, {})


@pytest.mark.parametrize(
    "end",
    [
        [LIMIT_MS / 1000, b"end"],
        [b"x", LIMIT_MS / 1000],
        [ProviderTimeout("cut", may_be_billed=True)],
        [ProviderError("broken", may_be_billed=True)],
    ],
    ids=["deadline", "deadline at the end", "timeout", "error"],
)
def test_file_that_breaks_off_after_a_disconnect_is_not_completed(end: list[Any]) -> None:
    app = make_app()
    file, body = open_file(app, Options(ref_id="r"), b"ID3", *end, *[b"never"] * 3)
    next(body)
    body.close()
    job = stored_job(app)
    assert (file.is_closed, job.state, job.result_location) == (True, JobState.CANCELLED, None)
    assert file.steps <= 1 + len(end)
    check_conflict(app, "belongs to a job that is Cancelled", speech(Options(ref_id="r")))


def test_gateway_fault_after_a_disconnect_is_an_unknown_outcome() -> None:
    app = make_app()
    _, body = open_file(app, Options(ref_id="r"), b"ID3", RuntimeError("a secret of the gateway"))
    next(body)
    with pytest.raises(RuntimeError):
        body.close()
    job = stored_job(app)
    assert (job.state, job.error_code, job.maybe_billed) == (JobState.FAILED, "InternalError", 1)


@pytest.mark.parametrize("options", RECORDED, ids=["RefId", "Tag", "RefId and Tag"])
def test_file_that_is_read_to_its_end_is_stored(options: Options) -> None:
    app = make_app()
    file, body = open_file(app, options, *FILE)
    assert b"".join(filter(None, body)) == b"".join(FILE)
    assert (stored_job(app).state, app.jobs.read_result(stored_job(app))) == (JobState.COMPLETED, b"".join(FILE))
    assert file.is_closed


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ([TIMEOUT], ProviderTimeout),
        ([RuntimeError("a secret of the gateway")], RuntimeError),
        ([LIMIT_MS / 1000, b"x"], ProviderTimeout),
    ],
    ids=["provider", "gateway", "deadline"],
)
@pytest.mark.parametrize("options", RECORDED[:2], ids=["RefId", "Tag"])
def test_file_that_breaks_off_is_an_unknown_outcome(end: list[Any], error: type[Exception], options: Options) -> None:
    app = make_app()
    _, body = open_file(app, options, b"ID3", *end)
    with pytest.raises(error):
        list(body)
    job = stored_job(app)
    assert (job.state, job.maybe_billed, job.result_location) == (JobState.FAILED, 1, None)
    assert "secret" not in (job.error or "")


# --- unknown outcomes ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("options", [{}, {"ref_id": "", "tag": "t"}], ids=["RefId", "Tag"])
def test_gateway_fault_during_the_call_is_an_unknown_outcome(options: dict[str, str], stream: bool) -> None:
    app = make_app()
    app.dispatcher.send = app.dispatcher.open_stream = raise_fault  # type: ignore[method-assign]
    request = (stream_chat if stream else chat)(**options)
    with pytest.raises(RuntimeError, match="a secret of the gateway"):
        complete(app, request)
    job = stored_job(app)
    assert (job.state, job.error_code, job.maybe_billed) == (JobState.FAILED, "InternalError", 1)
    assert job.error == "The gateway failed during the call; it may have been billed"
    if not options:
        check_conflict(app, f"belongs to a job that is Failed: {job.error}", request)


def test_gateway_fault_without_a_record_is_raised_and_not_stored() -> None:
    app = make_app()
    app.dispatcher.send = raise_fault  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a secret of the gateway"):
        complete(app, chat(ref_id=""))
    assert app.jobs.items == {}


@pytest.mark.parametrize("step", [RuntimeError("a secret of the gateway"), TIMEOUT], ids=["gateway", "provider"])
@pytest.mark.parametrize("options", [{}, {"ref_id": "", "tag": "t"}], ids=["RefId", "Tag"])
def test_fault_within_an_open_stream_is_an_unknown_outcome(step: Exception, options: dict[str, str]) -> None:
    app = make_app()
    app.dispatcher.outcomes = [FakeStream(app.clock, [STREAM_BODY, step])]
    with suppress(RuntimeError):
        list(complete(app, stream_chat(**options)).body)
    job = stored_job(app)
    assert (job.state, job.maybe_billed) == (JobState.FAILED, 1)
    assert "secret" not in (job.error or "")


@pytest.mark.parametrize("error", UNKNOWN_OUTCOMES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("stream", [False, True])
def test_unknown_outcome_of_a_request_with_a_tag_is_recorded(error: ProviderError, stream: bool) -> None:
    app = make_app()
    fail(app, error, (stream_chat if stream else chat)(ref_id="", tag="t"))
    job = stored_job(app)
    assert (job.tag, job.state, job.error, job.maybe_billed) == ("t", JobState.FAILED, error.message, 1)


@pytest.mark.parametrize("error", REPEATABLE_ERRORS, ids=lambda error: type(error).__name__)
def test_failure_without_effect_of_a_request_with_a_tag_is_not_billed(error: ProviderError) -> None:
    app = make_app()
    fail(app, error, chat(ref_id="", tag="t"))
    assert (stored_job(app).state, stored_job(app).maybe_billed) == (JobState.FAILED, 0)


@pytest.mark.parametrize("outcome", [ProviderUnavailable("away"), RESPONSE], ids=["error", "response"])
@pytest.mark.parametrize("options", [{}, {"ref_id": "", "tag": "t"}], ids=["RefId", "Tag"])
def test_unknown_outcome_of_an_earlier_call_is_recorded(outcome: Any, options: dict[str, str]) -> None:
    """A request is repeated after an unknown outcome of a GPU, which costs no money."""
    gpu = {"name": "gpu", "queue": "gpu", "priority": 1, "models": {"m": ""}}
    app = TestApp(gpu, {"name": "p", "models": {"m": ""}})
    app.dispatcher.outcomes = [TIMEOUT, outcome]
    with suppress(ProviderUnavailable):
        complete(app, chat(**options))
    job = stored_job(app)
    assert (job.calls, job.maybe_billed) == (2, 1)
    if not options and job.state == JobState.FAILED:
        check_conflict(app, "belongs to a job that is Failed: away")


class SlowJobs(FakeJobs):
    """Its creates end after the deadline of the request."""

    def create(self, *arguments: Any, **options: Any) -> Any:
        self._clock.advance(LIMIT_MS / 1000)
        return super().create(*arguments, **options)


@pytest.mark.parametrize("options", [{}, {"ref_id": "", "tag": "t"}], ids=["RefId", "Tag"])
def test_deadline_before_any_call_has_no_effect_and_allows_a_repeat(options: dict[str, str]) -> None:
    app = make_app(SlowJobs)
    with pytest.raises(ProviderTimeout, match="The deadline passed before a provider could be called"):
        complete(app, chat(**options), limit_ms=0 if options else LIMIT_MS)
    job = stored_job(app)
    assert (app.dispatcher.calls, job.state, job.calls, job.maybe_billed) == ([], JobState.FAILED, 0, 0)
    if not options:
        assert complete(app, chat()).is_replay is False
        assert (stored_job(app).state, len(app.dispatcher.calls)) == (JobState.COMPLETED, 1)


def speech_events() -> OpenAiEventMapper:
    (provider,) = make_app().providers
    return OpenAiEventMapper(Upstream(provider, "m", True), SPEECH, hides_usage=False)


AUDIO_EVENT = sse.format_event(b'{"type":"speech.audio.delta","audio":"SUQz"}')
ERRORS = [
    b'{"type":"error","error":{"type":"server_error","message":"broken"}}',
    b'{"error":{"message":"broken","code":"rate_limit_exceeded"}}',
    b'{"error":{"message":"broken","type":"invalid_request_error"}}',
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("audio_events", [0, 1, 2])
def test_error_event_after_audio_may_be_billed(error: bytes, audio_events: int) -> None:
    mapper = speech_events()
    for _ in range(audio_events):
        assert mapper.on_event(AUDIO_EVENT) == AUDIO_EVENT
    with pytest.raises(ProviderError) as raised:
        mapper.on_event(sse.format_event(error))
    assert raised.value.may_be_billed is (audio_events > 0)


# --- errors of the store ---


@pytest.mark.parametrize("request_", [chat(), stream_chat()], ids=["complete", "stream"])
def test_provider_is_not_called_when_the_job_cannot_be_created(request_: ModelRequest) -> None:
    app = make_app()
    app.jobs.create = raise_fault  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a secret of the gateway"):
        complete(app, request_)
    assert app.dispatcher.calls == []


@pytest.mark.parametrize("method", ["find_by_ref_id", "apply"])
def test_provider_is_not_called_when_a_job_cannot_be_read_or_restarted(method: str) -> None:
    app = make_app()
    fail(app, ProviderUnavailable("away"))
    setattr(app.jobs, method, raise_fault)
    with pytest.raises(RuntimeError, match="a secret of the gateway"):
        complete(app, chat())
    assert len(app.dispatcher.calls) == 1


def test_response_with_a_tag_is_returned_when_the_job_cannot_be_created() -> None:
    app = make_app()
    app.jobs.create = raise_fault  # type: ignore[method-assign]
    assert complete(app, chat(ref_id="", tag="t")).body == RESPONSE.body


def check_sweep(app: TestApp) -> None:
    """The sweeper ends the job after its lease, and not before; then a repeat is a conflict."""
    job = stored_job(app)
    assert (job.state, job.lease_until) == (JobState.STARTED, app.clock.now + LIMIT_MS + MARGIN_S * 1000)
    app.clock.advance(LIMIT_MS / 1000 + MARGIN_S)
    assert app.run_sweep(job).state == JobState.STARTED
    app.clock.advance(0.001)
    swept = app.run_sweep(job)
    assert (swept.state, swept.error_code, swept.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    check_conflict(app, "belongs to a job that is Failed: The worker died during the call")


def test_response_is_returned_when_the_job_cannot_be_completed(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.jobs.complete = raise_fault  # type: ignore[method-assign]
    assert complete(app, chat()).body == RESPONSE.body
    assert [record.msg for record in caplog.records if record.levelname == "ERROR"] == ["sync_response_record_failed"]
    check_sweep(app)
    assert len(app.dispatcher.calls) == 1


def test_error_is_raised_when_the_job_cannot_be_failed() -> None:
    app = make_app()
    apply, app.jobs.apply = app.jobs.apply, raise_fault  # type: ignore[method-assign]
    fail(app, ProviderUnavailable("away"))
    app.jobs.apply = apply  # type: ignore[method-assign]
    check_sweep(app)


def test_gateway_fault_is_raised_when_the_job_cannot_be_failed() -> None:
    app = make_app()
    app.dispatcher.send = raise_fault  # type: ignore[method-assign]
    apply = app.jobs.apply

    def fail_write(*_: object) -> Any:
        raise AiServerError("the store is unavailable")

    app.jobs.apply = fail_write  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a secret of the gateway"):
        complete(app, chat())
    app.jobs.apply = apply  # type: ignore[method-assign]
    check_sweep(app)


def test_file_is_relayed_completely_when_its_job_cannot_be_completed() -> None:
    app = make_app()
    app.jobs.complete = raise_fault  # type: ignore[method-assign]
    _, body = open_file(app, Options(ref_id="r"), *FILE)
    assert b"".join(filter(None, body)) == b"".join(FILE)
    assert stored_job(app).state == JobState.STARTED


def test_ref_id_of_text_to_speech_is_the_job_of_equal_speech() -> None:
    """Both requests are stored as the same file."""
    app = make_app()
    _, body = open_file(app, Options(ref_id="r"), *FILE)
    list(body)
    members = json.dumps({"input": "Hello", "model": "m:alloy", "refId": "r"}).encode()
    request = bind_text_to_speech(members, "application/json", {}, name="TextToSpeech")
    assert request.body == SPEECH_BODY
    repeat = complete(app, request)
    assert (repeat.body, repeat.is_replay, len(app.dispatcher.calls)) == (b"".join(FILE), True, 1)
