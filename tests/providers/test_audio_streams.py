"""Streamed audio: transcripts as events, as each server ends them, and speech as bytes that are never edited."""

import gzip
import itertools
import json
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.clock import Deadline
from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.jobs.states import JobState
from aiserver.providers import stream as stream_module
from aiserver.providers.call import ProviderCall
from aiserver.providers.catalogue import AUDIO_OPERATIONS
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.routing.failover import FailoverResult
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.examples import examples
from tests.fakes import FakeClock
from tests.hostile_servers import Behaviour, Connection
from tests.providers.audio_calls import (
    FILE_SECONDS,
    TIMEOUT_S,
    TRANSLATIONS,
    fail_over_audio,
    form_file,
    open_audio_stream,
    read_audio,
    speech_call,
    transcription_call,
    usage_of,
)
from tests.providers.calls import dispatcher, provider, upstream_of
from tests.providers.streaming import DONE, HEAD, LAST_CHUNK, http_chunks, read_stream, serve_stream

PATIENCE_S = 60  # of a scripted server, for an event of the test
SHORT_S = 0.5  # for timeouts that expire
MP3 = {"content-type": "audio/mpeg"}
MP3_HEAD = hostile_servers.head(200, "content-type: audio/mpeg", "transfer-encoding: chunked")
MP3_START, MP3_END = b"ID3\x04\x00\x00" + bytes(range(256)), b"\xff\xfb\x90\x00" * 64
EVENT_SPEECH = b'{"model":"m","input":"Hello","stream_format":"sse"}'
FILE_USAGE = {"type": "duration", "seconds": FILE_SECONDS}
TOKENS = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
SECONDS = {"type": "duration", "seconds": 9}


def event(**members: object) -> bytes:
    return f"data: {json.dumps(members, ensure_ascii=False)}\n\n".encode()


def delta(text: str) -> bytes:
    return event(type="transcript.text.delta", delta=text)


def vllm_chunk(text: str) -> bytes:
    choice = {"delta": {"content": text}, "finish_reason": None}
    return event(id="trsc-1", object="transcription.chunk", created=0, model="m", choices=[choice])


def speech_delta(audio: str = "SUQz") -> bytes:
    return event(type="speech.audio.delta", audio=audio)


def error_event(**members: object) -> bytes:
    return event(type="error", error={"message": "out of memory", **members})


DELTAS = [delta("Grüße "), delta("語😀")]
TEXT_DONE = event(type="transcript.text.done", text="Grüße 語😀", usage=TOKENS)
VLLM_CHUNKS = [vllm_chunk("Grüße "), vllm_chunk("語😀")]
SEGMENT = {"id": 0, "start": 0.0, "end": 1.5, "text": " Hello", "tokens": [50364, 2425]}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with create_client() as client:
        yield client


@pytest.fixture
def target(upstream: ScriptedProvider) -> Provider:
    """The scripted provider, without a preset."""
    return provider(upstream.base_url, operations=AUDIO_OPERATIONS)


@contextmanager
def server_provider(*behaviours: Behaviour, **options: object) -> Generator[Provider]:
    """A provider with these behaviours, one per connection."""
    with hostile_servers.receiver(*behaviours) as server:
        yield provider(f"http://127.0.0.1:{server.port}/v1", operations=AUDIO_OPERATIONS, **options)


def receive_from(http: httpx.Client, behaviour: Behaviour, call: ProviderCall) -> tuple[bytes, ProviderError | None]:
    with server_provider(behaviour) as target:
        return read_audio(http, target, call)[:2]


def send_bytes(*parts: bytes, end: bytes = LAST_CHUNK) -> Behaviour:
    """Send an MP3 file in these chunks and a proper end, or `end` instead."""
    return hostile_servers.send_raw(MP3_HEAD, http_chunks(*parts) + end)


def data_of(events: Iterator[bytes | None]) -> Iterator[bytes]:
    return (data for data in events if data)


# --- transcripts as events ---

COMPLETE_STREAMS: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "OpenAI": ([*DELTAS, TEXT_DONE], TOKENS | {"seconds": FILE_SECONDS}),
    "OpenAI, [DONE]": ([*DELTAS, TEXT_DONE, DONE], TOKENS | {"seconds": FILE_SECONDS}),
    "OpenAI, seconds": ([*DELTAS, event(type="transcript.text.done", text="x", usage=SECONDS)], SECONDS),
    "OpenAI, segments": (
        [event(type="transcript.text.segment", speaker="A", text="Hi"), delta("Hi"), TEXT_DONE],
        TOKENS | {"seconds": FILE_SECONDS},
    ),
    "OpenAI, named events": (
        [b"event: transcript.text.delta\r\n" + DELTAS[0].replace(b"\n", b"\r\n"), TEXT_DONE],
        TOKENS | {"seconds": FILE_SECONDS},
    ),
    "vLLM": ([*VLLM_CHUNKS, DONE], FILE_USAGE),
    "vLLM, usage": (
        [*VLLM_CHUNKS, event(object="transcription.chunk", choices=[], usage={"prompt_tokens": 4}), DONE],
        FILE_USAGE | {"prompt_tokens": 4},
    ),
    "vLLM, silence": ([vllm_chunk(""), DONE], FILE_USAGE),
    "vLLM, closed without [DONE]": (VLLM_CHUNKS, FILE_USAGE),
    "speaches, old, json": ([event(text=" Hello"), event(text=" you")], FILE_USAGE),
    "speaches, old, verbose_json": (
        [event(task="transcribe", language="en", duration=1.5, text=" Hello", segments=[SEGMENT], words=[])],
        FILE_USAGE,
    ),
    "bare segments": ([event(**SEGMENT), event(**SEGMENT | {"id": 1, "text": ' "type": "x"'})], FILE_USAGE),
    "speaches": ([*DELTAS, event(type="transcript.text.done", text="")], FILE_USAGE),
    "speaches, silence": ([event(type="transcript.text.done", text="")], FILE_USAGE),
    "LocalAI": ([*DELTAS, event(type="transcript.text.done", text="Hello"), DONE], FILE_USAGE),
    "comments between events": (
        [b": wait\n\n", DELTAS[0], b": wait\n\n", TEXT_DONE],
        TOKENS | {"seconds": FILE_SECONDS},
    ),
    "error of null": (
        [event(type="transcript.text.delta", delta="x", error=None), TEXT_DONE, DONE],
        TOKENS | {"seconds": FILE_SECONDS},
    ),
}


@pytest.mark.parametrize(("events", "usage"), COMPLETE_STREAMS.values(), ids=COMPLETE_STREAMS.keys())
def test_complete_transcript_stream_is_relayed_byte_for_byte(
    events: list[bytes], usage: dict[str, Any], upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.stream_with(events, {"content-type": "text/event-stream; charset=utf-8"})
    call = transcription_call(stream=True)
    assert read_audio(http, target, call) == (b"".join(events), None, usage)
    assert upstream.requests[-1].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("name", ["OpenAI", "OpenAI, [DONE]", "vLLM", "speaches"])
def test_translation_stream_ends_as_a_transcript_does(
    name: str, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    events, usage = COMPLETE_STREAMS[name]
    upstream.stream_with(events)
    call = transcription_call(operation=TRANSLATIONS, stream=True)
    assert read_audio(http, target, call) == (b"".join(events), None, usage)


@given(st.sampled_from(sorted(COMPLETE_STREAMS)), st.lists(st.integers(1, 60), max_size=12))
@settings(max_examples=examples(100))
def test_transcript_stream_is_relayed_wherever_it_is_split(
    scripted_provider: ScriptedProvider, http: httpx.Client, name: str, sizes: list[int]
) -> None:
    body = b"".join(COMPLETE_STREAMS[name][0])
    cuts = [0, *(cut for cut in itertools.accumulate(sizes) if cut < len(body)), len(body)]
    scripted_provider.stream_with([body[start:end] for start, end in itertools.pairwise(cuts)])
    target = provider(scripted_provider.base_url)
    received, error, usage = read_audio(http, target, transcription_call(stream=True))
    assert (received, error, usage) == (body, None, COMPLETE_STREAMS[name][1])


def test_transcript_stream_has_events_headers_and_a_count_of_deltas(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.stream_with([*DELTAS, TEXT_DONE], {"content-type": "text/event-stream", "x-request-id": "r"})
    with open_audio_stream(http, target, transcription_call(stream=True)) as stream:
        read_stream(stream.events)
        assert stream.has_events
        assert (stream.headers["x-request-id"], stream.mapper.content_events) == ("r", 2)


def test_stream_with_a_file_of_unknown_duration_has_the_reported_usage(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    for last_event, usage in ((TEXT_DONE, TOKENS), (event(type="transcript.text.done", text="x"), None)):
        upstream.stream_with([*DELTAS, last_event])
        call = transcription_call(file=form_file(b"webm"), stream=True)
        assert read_audio(http, target, call) == (b"".join(DELTAS) + last_event, None, usage)


def test_events_arrive_while_the_provider_still_sends(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    first_received = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield DELTAS[0]
        if first_received.wait(PATIENCE_S):
            yield TEXT_DONE

    upstream.stream_with(chunks())
    with open_audio_stream(http, target, transcription_call(stream=True)) as stream:
        assert next(data_of(stream.events)) == DELTAS[0]
        first_received.set()
        assert read_stream(stream.events) == (TEXT_DONE, None)


# --- transcripts that break off ---

BROKEN_STREAMS: dict[str, tuple[Behaviour, bytes, type[ProviderError], bool, str]] = {
    "typed deltas without an end": (serve_stream(*DELTAS), b"".join(DELTAS), ProviderTimeout, True, "ended before"),
    "cut between events": (serve_stream(*DELTAS, end=b""), b"".join(DELTAS), ProviderTimeout, True, "incomplete"),
    "cut within an event": (
        serve_stream(DELTAS[0], DELTAS[1][:30], end=b""),
        DELTAS[0],
        ProviderTimeout,
        True,
        "incomplete",
    ),
    "cut within the last event": (
        serve_stream(*DELTAS, TEXT_DONE[:-20], end=b""),
        b"".join(DELTAS),
        ProviderTimeout,
        True,
        "incomplete",
    ),
    "closed within an event": (
        serve_stream(DELTAS[0], DELTAS[1][:30]),
        DELTAS[0],
        ProviderTimeout,
        True,
        "ended before",
    ),
    "vLLM, cut": (serve_stream(*VLLM_CHUNKS, end=b""), b"".join(VLLM_CHUNKS), ProviderTimeout, True, "incomplete"),
    "bare segments, cut": (
        serve_stream(event(text=" a"), end=b""),
        event(text=" a"),
        ProviderTimeout,
        True,
        "incomplete",
    ),
    "error event": (
        serve_stream(*DELTAS, error_event(), TEXT_DONE),
        b"".join(DELTAS),
        ProviderError,
        True,
        "out of memory",
    ),
    "LocalAI, error event and [DONE]": (
        serve_stream(DELTAS[0], error_event(type="server_error"), DONE),
        DELTAS[0],
        ProviderError,
        True,
        "out of memory",
    ),
    "LocalAI, only an error event and [DONE]": (
        serve_stream(error_event(), DONE),
        b"",
        ProviderError,
        False,
        "out of memory",
    ),
    "vLLM, error and [DONE]": (
        serve_stream(VLLM_CHUNKS[0], event(error={"message": "out of memory", "code": 500}), DONE),
        VLLM_CHUNKS[0],
        ProviderError,
        True,
        "out of memory",
    ),
    "vLLM, old error and [DONE]": (
        serve_stream(VLLM_CHUNKS[0], event(object="error", message="out of memory"), DONE),
        VLLM_CHUNKS[0],
        ProviderError,
        True,
        "out of memory",
    ),
    "named error event": (
        serve_stream(DELTAS[0], b"event: error\ndata: out of memory\n\n"),
        DELTAS[0],
        ProviderError,
        True,
        "out of memory",
    ),
    "bare JSON error": (
        serve_stream(DELTAS[0], b'{"error":{"message":"out of memory"}}'),
        DELTAS[0],
        ProviderError,
        True,
        "out of memory",
    ),
    "no event": (serve_stream(), b"", ProviderTimeout, True, "ended before"),
    "only [DONE]": (serve_stream(DONE), b"", ProviderError, True, "without a result"),
    "JSON labelled as events": (
        serve_stream(b'{"detail":"out of memory"}'),
        b"",
        ProviderError,
        True,
        "out of memory",
    ),
    "HTML labelled as events": (
        serve_stream(b"<html><h1>out of memory</h1></html>"),
        b"",
        ProviderError,
        True,
        "out of memory",
    ),
    "rate limit": (serve_stream(error_event(code=429)), b"", ProviderRateLimited, False, "out of memory"),
}


@pytest.mark.parametrize("case", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS.keys())
def test_broken_transcript_stream_is_an_error_after_its_complete_events(
    case: tuple[Behaviour, bytes, type[ProviderError], bool, str], http: httpx.Client
) -> None:
    behaviour, expected, error_class, may_be_billed, message = case
    received, error = receive_from(http, behaviour, transcription_call(stream=True))
    assert error is not None
    assert (received, type(error), error.may_be_billed) == (expected, error_class, may_be_billed)
    assert message in error.message


@pytest.mark.parametrize("events", [[*DELTAS, TEXT_DONE], [*DELTAS, TEXT_DONE, DONE]], ids=["done", "[DONE]"])
def test_connection_cut_after_the_last_event_is_a_success(events: list[bytes], http: httpx.Client) -> None:
    behaviour = serve_stream(*events, end=b"")
    assert receive_from(http, behaviour, transcription_call(stream=True)) == (b"".join(events), None)


@given(st.integers(0, len(b"".join(DELTAS) + TEXT_DONE) - 3))
@settings(max_examples=examples(50))
def test_truncated_transcript_stream_is_never_complete(
    scripted_provider: ScriptedProvider, http: httpx.Client, end: int
) -> None:
    body = (b"".join(DELTAS) + TEXT_DONE)[:end]
    scripted_provider.stream_with([body] if body else [])
    received, error, _ = read_audio(http, provider(scripted_provider.base_url), transcription_call(stream=True))
    assert (received, type(error)) == (body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b"", ProviderTimeout)


# --- a stream that the provider answers as a whole ---

WHOLE_ANSWERS = {
    "whisper-1": (None, "application/json", b'{"text":"Hi","usage":{"seconds":2}}', "application/json", {"seconds": 2}),
    "verbose_json": (
        "verbose_json",
        "application/json",
        b'{"text":"","duration":"2"}',
        "application/json",
        SECONDS | {"seconds": 2.0},
    ),
    "text": ("text", "text/plain; charset=utf-8", b"Hi\n", "text/plain; charset=utf-8", FILE_USAGE),
    "whisper.cpp text": ("text", "text/html", b"Hi\n", "text/plain; charset=utf-8", FILE_USAGE),
    "text that starts as events": ("text", "text/plain", b"data: is a word\n\n", "text/plain", FILE_USAGE),
    "silence": ("vtt", "text/vtt", b"", "text/vtt", FILE_USAGE),
}


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("answer", WHOLE_ANSWERS.values(), ids=WHOLE_ANSWERS.keys())
def test_stream_that_is_answered_as_a_whole_is_a_complete_response(
    answer: tuple[str | None, str, bytes, str, dict[str, Any]],
    is_chunked: bool,
    upstream: ScriptedProvider,
    target: Provider,
    http: httpx.Client,
) -> None:
    response_format, content_type, body, caller_type, usage = answer
    if is_chunked:
        upstream.stream_with([body[:1], body[1:]] if body else [], {"content-type": content_type})
    else:
        upstream.respond_with(200, body, {"content-type": content_type})
    result = fail_over_audio(http, transcription_call(response_format, stream=True), [target])
    assert (result.stream, result.error, result.attempts) == (None, None, 1)
    assert result.response is not None
    assert (result.response.body, result.response.content_type) == (body, caller_type)
    assert usage_of(result.response.usage) == usage


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (transcription_call("text", stream=True), b'{"text":"Hi"}'),
        (transcription_call("text", stream=True), b'  \n{"text":"Hi","usage":{}}'),
    ],
)
def test_text_that_is_answered_as_json_is_unwrapped_for_streams(
    call: ProviderCall, body: bytes, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(200, body)
    with dispatcher(http).open_stream(upstream_of(target), call) as response:
        assert isinstance(response, ProviderResponse)
        assert (response.body, response.content_type) == (b"Hi", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("status", "body", "error_class", "may_be_billed"),
    [
        (200, b'{"error":{"message":"no"}}', ProviderError, True),
        (200, b'{"detail":"no"}', ProviderError, True),
        (200, b'["no"]', ProviderError, True),
        (400, b'{"error":{"message":"no"}}', ProviderRejected, False),
        (413, b"<html>no</html>", ProviderRejected, False),
        (422, b'{"detail":[{"msg":"no"}]}', ProviderRejected, False),
        (401, b'{"detail":"no"}', ProviderAuth, False),
        (429, b"no", ProviderRateLimited, False),
        (503, b'{"detail":"no"}', ProviderUnavailable, False),
    ],
)
@pytest.mark.parametrize("call", [transcription_call(stream=True), speech_call(stream=True)], ids=["text", "speech"])
def test_failed_stream_has_the_error_of_a_complete_call(
    call: ProviderCall,
    status: int,
    body: bytes,
    error_class: type[ProviderError],
    may_be_billed: bool,
    upstream: ScriptedProvider,
    target: Provider,
    http: httpx.Client,
) -> None:
    upstream.respond_with(status, body)
    received, error, _ = read_audio(http, target, call)
    assert error is not None
    assert (received, type(error), error.may_be_billed) == (b"", error_class, may_be_billed)


# --- pings ---


def pause_after(start: bytes, end: bytes, resume: threading.Event) -> Iterator[bytes]:
    yield start
    if resume.wait(PATIENCE_S):
        yield end


def test_silent_transcript_stream_sends_pings(upstream: ScriptedProvider, target: Provider, http: httpx.Client) -> None:
    clock, resume = FakeClock(), threading.Event()
    upstream.stream_with(pause_after(DELTAS[0], TEXT_DONE, resume))
    with open_audio_stream(http, target, transcription_call(stream=True, clock=clock), clock) as stream:
        assert (next(stream.events), next(stream.events)) == (DELTAS[0], None)
        clock.advance(sse.PING_MS / 1000)
        assert next(stream.events) == sse.PING
        resume.set()
        assert read_stream(stream.events) == (TEXT_DONE, None)


def test_silent_speech_file_sends_no_pings(upstream: ScriptedProvider, target: Provider, http: httpx.Client) -> None:
    clock, resume = FakeClock(), threading.Event()
    upstream.stream_with(pause_after(MP3_START, MP3_END, resume), MP3)
    with open_audio_stream(http, target, speech_call(stream=True, clock=clock), clock) as stream:
        assert (next(stream.events), next(stream.events)) == (MP3_START, None)
        clock.advance(10 * sse.PING_MS / 1000)
        assert next(stream.events) is None
        resume.set()
        assert read_stream(stream.events) == (MP3_END, None)


# --- speech as bytes ---


@given(
    st.lists(
        st.binary(min_size=1, max_size=60) | st.sampled_from([b"data: ", b"\n\n", b"{", b"<html>"]),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["audio/mpeg", "audio/ogg;codec=opus", "application/octet-stream", ""]),
    st.booleans(),
)
@settings(max_examples=examples(250))
def test_any_bytes_in_any_chunks_are_relayed_byte_for_byte(
    scripted_provider: ScriptedProvider, http: httpx.Client, chunks: list[bytes], content_type: str, has_length: bool
) -> None:
    headers = {"content-type": content_type} if content_type else {"x-request-id": "r"}
    if has_length:
        scripted_provider.respond_with(200, b"".join(chunks), headers)
    else:
        scripted_provider.stream_with(chunks, headers)
    with open_audio_stream(http, provider(scripted_provider.base_url), speech_call(stream=True)) as stream:
        assert not stream.has_events
        assert stream.headers == {"content-type": "application/octet-stream"} | headers
        assert read_stream(stream.events) == (b"".join(chunks), None)
        assert usage_of(stream.mapper.usage) == {"characters": 5}


def test_compressed_speech_is_decompressed(upstream: ScriptedProvider, target: Provider, http: httpx.Client) -> None:
    upstream.respond_with(200, gzip.compress(MP3_START + MP3_END), MP3 | {"content-encoding": "gzip"})
    with open_audio_stream(http, target, speech_call(stream=True)) as stream:
        assert read_stream(stream.events) == (MP3_START + MP3_END, None)
        assert stream.headers == MP3
    assert upstream.requests[-1].headers["accept-encoding"] == "identity"
    assert upstream.requests[-1].headers["accept"] == "*/*"


def test_speech_that_ends_with_the_connection_is_complete(http: httpx.Client) -> None:
    behaviour = hostile_servers.send_raw(b"HTTP/1.0 200 OK\r\ncontent-type: audio/mpeg\r\n\r\n", MP3_START, MP3_END)
    assert receive_from(http, behaviour, speech_call(stream=True)) == (MP3_START + MP3_END, None)


def test_first_bytes_of_speech_arrive_while_the_provider_still_sends(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    first_received = threading.Event()
    upstream.stream_with(pause_after(MP3_START, MP3_END, first_received), MP3)
    with open_audio_stream(http, target, speech_call(stream=True)) as stream:
        assert next(data_of(stream.events)) == MP3_START
        assert not stream.mapper.is_complete
        first_received.set()
        assert read_stream(stream.events) == (MP3_END, None)
        assert stream.mapper.is_complete


@pytest.mark.parametrize(
    "behaviour",
    [
        send_bytes(MP3_START, end=b""),
        send_bytes(MP3_START, end=b"8\r\n1234"),
        hostile_servers.send_raw(
            hostile_servers.head(200, "content-type: audio/mpeg", "content-length: 900"), MP3_START
        ),
    ],
    ids=["between chunks", "within a chunk", "before its length"],
)
def test_speech_that_breaks_off_raises_after_its_bytes(behaviour: Behaviour, http: httpx.Client) -> None:
    received, error = receive_from(http, behaviour, speech_call(stream=True))
    assert type(error) is ProviderTimeout
    assert received.removesuffix(b"1234") == MP3_START
    assert error.may_be_billed


@pytest.mark.parametrize(
    "behaviour",
    [
        send_bytes(),
        hostile_servers.respond(200, "content-type: audio/mpeg"),
        send_bytes(end=b""),
        hostile_servers.respond(200, "content-type: application/json", body=b'{"detail":"no voice"}'),
        hostile_servers.respond(200, "content-type: application/json"),
    ],
    ids=["no chunks", "a length of 0", "cut before the first chunk", "JSON", "empty JSON"],
)
def test_speech_without_audio_is_an_error_that_may_be_billed(behaviour: Behaviour, http: httpx.Client) -> None:
    received, error = receive_from(http, behaviour, speech_call(stream=True))
    assert isinstance(error, ProviderError)
    assert (received, error.may_be_billed) == (b"", True)


def test_file_of_the_largest_size_passes_and_a_larger_one_is_an_error(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_RESPONSE_BYTES", len(MP3_START) + 10)
    upstream.stream_with([MP3_START, bytes(10)], MP3)
    with open_audio_stream(http, target, speech_call(stream=True)) as stream:
        assert read_stream(stream.events) == (MP3_START + bytes(10), None)
    start_received = threading.Event()
    upstream.stream_with(pause_after(MP3_START, bytes(11), start_received), MP3)
    with open_audio_stream(http, target, speech_call(stream=True)) as stream:
        assert next(data_of(stream.events)) == MP3_START
        start_received.set()
        received, error = read_stream(stream.events)
    assert (received, type(error)) == (b"", ProviderError)
    assert error is not None
    assert (error.message, error.may_be_billed) == ("Provider p: the response is too large", True)


def test_endless_file_is_ended_at_the_largest_size(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_RESPONSE_BYTES", 100_000)
    behaviour = hostile_servers.flood(MP3_HEAD, http_chunks(MP3_END))
    received, error = receive_from(http, behaviour, speech_call(stream=True))
    assert len(received) <= 100_000
    assert error is not None
    assert "too large" in error.message


# --- speech as events ---

SPEECH_STREAMS: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "OpenAI": (
        [speech_delta(), speech_delta(), event(type="speech.audio.done", usage={"input_tokens": 1})],
        {"input_tokens": 1, "characters": 5},
    ),
    "OpenAI, [DONE]": ([speech_delta(), event(type="speech.audio.done"), DONE], {"characters": 5}),
    "speaches": ([speech_delta(), event(type="speech.audio.done", token_usage={"input_tokens": 0})], {"characters": 5}),
    "Together AI": ([event(object="audio.tts.chunk", model="m", b64="SUQz"), DONE], {"characters": 5}),
}


@pytest.mark.parametrize(("events", "usage"), SPEECH_STREAMS.values(), ids=SPEECH_STREAMS.keys())
def test_speech_as_events_is_relayed_until_its_last_event(
    events: list[bytes], usage: dict[str, Any], upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.stream_with(events)
    call = speech_call(EVENT_SPEECH, stream=True)
    assert read_audio(http, target, call) == (b"".join(events), None, usage)
    assert json.loads(upstream.requests[-1].body) == json.loads(EVENT_SPEECH)


@pytest.mark.parametrize(
    "behaviour",
    [
        serve_stream(speech_delta()),
        serve_stream(speech_delta(), end=b""),
        serve_stream(speech_delta(), b"data: {", end=b""),
    ],
    ids=["without an end", "cut", "cut within an event"],
)
def test_speech_as_events_without_its_last_event_is_an_error(behaviour: Behaviour, http: httpx.Client) -> None:
    received, error = receive_from(http, behaviour, speech_call(EVENT_SPEECH, stream=True))
    assert (received, type(error)) == (speech_delta(), ProviderTimeout)
    assert error is not None
    assert error.may_be_billed


def test_error_event_of_speech_has_the_message_of_the_provider(http: httpx.Client) -> None:
    behaviour = serve_stream(speech_delta(), error_event(), DONE)
    received, error = receive_from(http, behaviour, speech_call(EVENT_SPEECH, stream=True))
    assert (received, type(error)) == (speech_delta(), ProviderError)
    assert error is not None
    assert json.loads(sse.event_data(wire_errors.render_error_event(error)))["error"]["message"] == "out of memory"


def test_bytes_instead_of_events_are_a_file(upstream: ScriptedProvider, target: Provider, http: httpx.Client) -> None:
    upstream.stream_with([MP3_START, MP3_END], MP3)
    with open_audio_stream(http, target, speech_call(EVENT_SPEECH, stream=True)) as stream:
        assert (stream.has_events, stream.headers) == (False, MP3)
        assert read_stream(stream.events) == (MP3_START + MP3_END, None)


# --- timeouts and failover ---


def send_head_after(clock: FakeClock, seconds: float, response_head: bytes) -> Behaviour:
    """Send the head, move the clock, and send nothing more."""

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(response_head)
        clock.advance(seconds)
        hostile_servers.hang(connection)

    return behave


def test_speech_without_a_byte_until_the_begin_deadline_is_a_timeout(http: httpx.Client) -> None:
    clock = FakeClock()
    call = speech_call(stream=True, clock=clock, timeout_s=600)
    with server_provider(send_head_after(clock, TIMEOUT_S, MP3_HEAD)) as target:
        result = fail_over_audio(http, call, [target], clock)
    assert (type(result.error), result.attempts, result.unknown_outcomes) == (ProviderTimeout, 1, 1)
    assert result.error is not None
    assert result.error.message == "Provider p: no response within the time limit"


@pytest.mark.parametrize("call", [speech_call, transcription_call], ids=["speech", "transcription"])
def test_head_after_the_begin_deadline_is_a_timeout(call: Callable[..., ProviderCall], http: httpx.Client) -> None:
    with (
        server_provider(hostile_servers.hang) as target,
        pytest.raises(ProviderTimeout) as raised,
        open_audio_stream(http, target, call(stream=True, begin_timeout_s=SHORT_S)),
    ):
        pass
    assert raised.value.may_be_billed


@pytest.mark.parametrize(("queue", "continues"), [("hosted", False), ("gpu", True)])
def test_slow_speech_fails_over_from_a_gpu_only(
    queue: str, continues: bool, upstream: ScriptedProvider, http: httpx.Client
) -> None:
    if continues:
        upstream.stream_with([MP3_START], MP3)
    silent = hostile_servers.send_then_hang(MP3_HEAD)
    with server_provider(silent, name="first", priority=1, queue=queue, timeout_s=SHORT_S) as slow:
        targets = [slow, provider(upstream.base_url, name="second")]
        result = fail_over_audio(http, speech_call(stream=True), targets)
        received = read_open_stream(result)
    assert (len(upstream.requests), result.attempts, result.unknown_outcomes) == (continues, 1 + continues, 1)
    assert received == (MP3_START if continues else b"")
    assert type(result.error) is (type(None) if continues else ProviderTimeout)


def read_open_stream(result: FailoverResult) -> bytes:
    """Read and close the stream of a failover, if it has one."""
    if result.stream is None:
        return b""
    with result.stream.resources:
        received, error = read_stream(result.stream.stream.events)
    assert error is None
    return received


STREAM_CALLS: Sequence[tuple[str, Callable[..., ProviderCall], list[bytes], dict[str, str]]] = (
    ("speech", speech_call, [MP3_START, MP3_END], MP3),
    ("transcription", transcription_call, [*DELTAS, TEXT_DONE], {"content-type": "text/event-stream"}),
)


@pytest.mark.parametrize("fault", ["refused", 503, 500, 429, "error event"])
@pytest.mark.parametrize("stream_call", STREAM_CALLS, ids=lambda stream_call: stream_call[0])
def test_stream_fails_over_when_nothing_was_generated(
    stream_call: tuple[str, Callable[..., ProviderCall], list[bytes], dict[str, str]],
    fault: int | str,
    upstream: ScriptedProvider,
    http: httpx.Client,
) -> None:
    _, call, chunks, headers = stream_call
    with hostile_servers.refusing_port() as port:
        url = f"http://127.0.0.1:{port}/v1" if fault == "refused" else upstream.base_url
        if isinstance(fault, int):
            upstream.respond_with(fault, b'{"error":{"message":"no"}}')
        elif fault == "error event":
            upstream.stream_with([error_event(code=503), DONE])
        upstream.stream_with(chunks, headers)
        targets = [provider(url, name="first", priority=1), provider(upstream.base_url, name="second")]
        result = fail_over_audio(http, call(stream=True), targets)
        received = read_open_stream(result)
    assert (result.provider, result.attempts, result.unknown_outcomes) == ("second", 2, 0)
    assert received == b"".join(chunks)


@pytest.mark.parametrize("behaviour", [send_bytes(), send_bytes(end=b""), hostile_servers.send_raw()])
def test_speech_that_may_be_billed_does_not_fail_over(
    behaviour: Behaviour, upstream: ScriptedProvider, http: httpx.Client
) -> None:
    with server_provider(behaviour, name="first", priority=1) as broken:
        targets = [broken, provider(upstream.base_url, name="second")]
        result = fail_over_audio(http, speech_call(stream=True), targets)
    assert (result.provider, result.attempts, result.unknown_outcomes, upstream.requests) == ("first", 1, 1, [])
    assert isinstance(result.error, ProviderError)


# --- the reader of a stream ---


@contextmanager
def running_response(
    http: httpx.Client, target: Provider, call: ProviderCall, clock: FakeClock
) -> Generator[tuple[Generator[bytes | None], list[StreamOutcome]]]:
    """The response that the caller reads, and its outcomes."""
    outcomes: list[StreamOutcome] = []
    result = fail_over_audio(http, call, [target], clock)
    assert result.stream is not None
    response = stream_response("p", result.stream, clock, deadline=Deadline.after(60, clock), on_end=outcomes.append)
    try:
        yield response, outcomes
    finally:
        response.close()


def test_speech_that_breaks_off_is_an_error_for_the_reader(http: httpx.Client) -> None:
    """Nothing is added to its bytes: the caller must see that the file is not complete."""
    clock = FakeClock()
    received: list[bytes] = []
    with (
        server_provider(send_bytes(MP3_START, end=b"")) as target,
        running_response(http, target, speech_call(stream=True), clock) as (response, outcomes),
        pytest.raises(ProviderTimeout) as raised,
    ):
        received.extend(data_of(response))
    assert b"".join(received) == MP3_START
    expected = StreamOutcome(JobState.FAILED, raised.value, '{"characters": 5}', 1)
    assert (outcomes, raised.value.may_be_billed) == ([expected], True)


def test_transcript_that_breaks_off_ends_with_an_error_event(http: httpx.Client) -> None:
    clock = FakeClock()
    with (
        server_provider(serve_stream(*DELTAS, end=b"")) as target,
        running_response(http, target, transcription_call(stream=True), clock) as (response, outcomes),
    ):
        received = b"".join(data_of(response))
    assert received.startswith(b"".join(DELTAS))
    error = json.loads(sse.event_data(received.removeprefix(b"".join(DELTAS))))["error"]
    assert error["message"] == "Provider p: the response is incomplete"
    assert [(outcome.state, outcome.content_events) for outcome in outcomes] == [(JobState.FAILED, 2)]
    assert usage_of(outcomes[0].usage) == FILE_USAGE


def test_file_is_not_complete_at_the_deadline_of_the_response(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    clock, resume = FakeClock(), threading.Event()
    upstream.stream_with(pause_after(MP3_START, MP3_END, resume), MP3)
    with running_response(http, target, speech_call(stream=True), clock) as (response, outcomes):
        assert next(data_of(response)) == MP3_START
        clock.advance(61)
        with pytest.raises(ProviderTimeout, match="The deadline passed"):
            list(response)
        resume.set()
    assert [outcome.state for outcome in outcomes] == [JobState.FAILED]


@pytest.mark.parametrize("stream_call", STREAM_CALLS, ids=lambda stream_call: stream_call[0])
def test_early_close_closes_the_provider_connection_and_cancels(
    stream_call: tuple[str, Callable[..., ProviderCall], list[bytes], dict[str, str]], http: httpx.Client
) -> None:
    name, call, chunks, _ = stream_call
    closed: list[bool] = []

    def wait_for_close(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall((MP3_HEAD if name == "speech" else HEAD) + http_chunks(chunks[0]))
        closed.append(connection.socket.recv(1) == b"")

    with (
        server_provider(wait_for_close) as target,
        running_response(http, target, call(stream=True), FakeClock()) as (response, outcomes),
    ):
        assert next(data_of(response)) == chunks[0]
    assert closed == [True]
    assert [(outcome.state, outcome.error) for outcome in outcomes] == [(JobState.CANCELLED, None)]
