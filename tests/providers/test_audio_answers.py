"""Complete responses to audio requests, as real servers send them: transcripts as JSON or text, and speech as bytes."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import (
    InvalidRequest,
    ProviderAuth,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.operations import OPERATIONS
from aiserver.providers.adapters.openai.audio import FORMATS
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.catalogue import AUDIO_OPERATIONS, AUDIO_TO_TEXT, CATALOGUE
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.wire import errors as wire_errors
from aiserver.wire import forms
from aiserver.wire.forms import Part
from local.scripted import RecordedRequest, ScriptedProvider
from tests import hostile_servers
from tests.examples import examples
from tests.providers.audio_calls import (
    BOUNDARY,
    FILE,
    FILE_SECONDS,
    FORM,
    SPEECH,
    SPEECH_BODY,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    audio_call,
    boundary_of,
    fail_over_audio,
    form_body,
    form_field,
    form_file,
    send_audio,
    speech_call,
    transcription_call,
    usage_of,
)
from tests.providers.calls import dispatcher, provider, upstream_of
from tests.providers.fake_provider import FakeProvider, FakeResponse, run_fake_provider

KEY = "sk-of-the-gateway-itself"
UPSTREAM_MODEL = "org/a model"
AUDIO_PRESETS = [name for name, preset in CATALOGUE.items() if set(preset.operations) & set(AUDIO_OPERATIONS)]
TRANSCRIPTION_PRESETS = [name for name in AUDIO_PRESETS if set(CATALOGUE[name].operations) & set(AUDIO_TO_TEXT)]

JSON, PLAIN, VTT, HTML = "application/json", "text/plain", "text/vtt", "text/html; charset=utf-8"
UTF_8_PLAIN = "text/plain; charset=utf-8"
SRT_BODY = "1\n00:00:00,000 --> 00:00:01,500\nHello, Zoë.\n\n".encode()
VTT_BODY = "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello, Zoë.\n\n".encode()
TEXT_BODY = "Hello, Zoë.\n".encode()
MP3 = b"ID3\x04\x00\x00" + bytes(range(256))
FILE_USAGE = {"type": "duration", "seconds": FILE_SECONDS}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with create_client() as client:
        yield client


@pytest.fixture
def target(upstream: ScriptedProvider) -> Provider:
    """The scripted provider, without a preset."""
    return provider(upstream.base_url, operations=AUDIO_OPERATIONS)


# --- requests to the presets of the catalogue ---


@dataclass
class Subject:
    """A preset's provider, the dispatcher that calls it, and the fake server."""

    server: FakeProvider
    provider: Provider
    credential: tuple[str, str]
    dispatcher: Dispatcher

    @property
    def audio_operations(self) -> list[str]:
        return [name for name in self.provider.operations if name in AUDIO_OPERATIONS]

    def send(self, call: ProviderCall, **fields: Any) -> RecordedRequest:
        """Return the request that the server receives; it responds with a transcript or a file."""
        is_speech = call.operation.name == SPEECH
        response = FakeResponse(200, MP3, {"content-type": "audio/mpeg"}) if is_speech else FakeResponse(200, b"")
        self.server.responses.append(response if is_speech else FakeResponse(200, b'{"text":"Hi"}'))
        upstream = Upstream(self.provider, fields.pop("model", UPSTREAM_MODEL), True, KEY, **fields)
        self.dispatcher.send(upstream, call)
        return self.server.requests[-1]


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, http: httpx.Client) -> Iterator[Subject]:
    preset = CATALOGUE[request.param]
    root = urlsplit(preset.base_url.replace("{port}", "1")).path
    header = preset.auth_header
    credential = header, f"Bearer {KEY}" if header == "authorization" else KEY
    paths = {root + preset.paths.get(name, OPERATIONS[name].path) for name in AUDIO_OPERATIONS}
    with run_fake_provider(paths, credential, FakeResponse(401, b'{"error":{"message":"no"}}')) as server:
        target = provider(server.origin + root, preset=request.param)
        yield Subject(server, target, credential, dispatcher(http))


every_preset = pytest.mark.parametrize("subject", AUDIO_PRESETS, indirect=True)
every_transcription_preset = pytest.mark.parametrize("subject", TRANSCRIPTION_PRESETS, indirect=True)


@every_preset
def test_preset_request_has_its_path_key_and_unchanged_body(subject: Subject) -> None:
    """Only the model and the boundary of a form differ from the caller's request."""
    for name in subject.audio_operations:
        if name != "audio.speech":
            parts = [form_field("language", "de"), FILE, form_field("timestamp_granularities[]", "word")]
            models = form_field("model", "m"), form_field("model", UPSTREAM_MODEL)
            body = form_body(*parts[:2], models[0], parts[2])
            request = subject.send(audio_call(name, body, FORM, idempotency_key="i"))
            boundary = boundary_of(request.headers["content-type"])
            assert boundary != BOUNDARY
            expected = form_body(*parts[:2], models[1], parts[2], boundary=boundary)
        else:
            request = subject.send(speech_call(idempotency_key="i"))
            assert request.headers["content-type"] == JSON
            expected = SPEECH_BODY.replace(b'"m"', json.dumps(UPSTREAM_MODEL).encode())
        assert request.body == expected
        path = subject.provider.catalogue_preset.paths.get(name, OPERATIONS[name].path)
        assert (request.method, request.path) == ("POST", urlsplit(subject.provider.base_url).path + path)
        assert {key: value for key, value in request.headers.items() if KEY in value} == dict([subject.credential])
        assert (request.headers["accept"], request.headers["idempotency-key"]) == ("*/*", "i")


@every_preset
def test_settings_of_a_model_are_added_where_the_caller_gives_none(subject: Subject) -> None:
    if TRANSCRIPTIONS in subject.audio_operations:
        parts = [form_field("model", "m"), form_field("language", "de"), FILE]
        call = audio_call(TRANSCRIPTIONS, form_body(*parts), FORM)
        request = subject.send(call, model="m", settings={"language": "en", "diarize": True, "temperature": 0.5})
        added = form_field("diarize", "true"), form_field("temperature", "0.5")
        assert request.body == form_body(*parts, *added, boundary=boundary_of(request.headers["content-type"]))
    if SPEECH in subject.audio_operations:
        request = subject.send(speech_call(), model="m", settings={"voice": "b", "speed": 1.25})
        assert json.loads(request.body) == {"model": "m", "input": "Hello", "voice": "a", "speed": 1.25}


@every_transcription_preset
def test_segments_are_requested_where_a_preset_is_known_to_support_them(subject: Subject) -> None:
    preset = subject.provider.catalogue_preset
    for model in ["m", *(row.model_prefix for row in preset.transcript_formats)]:
        for requested in (None, "json"):
            request = subject.send(transcription_call(requested, is_aiserver=True), model=model)
            parts = forms.parse_form(request.body, request.headers["content-type"])
            is_added = requested is None and preset.has_format(model, "verbose_json")
            assert forms.text_value(parts, "response_format") == ("verbose_json" if is_added else requested)


@every_transcription_preset
def test_format_that_a_preset_does_not_support_is_rejected_before_a_call(subject: Subject) -> None:
    for row in [*subject.provider.catalogue_preset.transcript_formats, None]:
        model = row.model_prefix + "-x" if row else "any-other"
        supported = subject.provider.catalogue_preset.formats_of(model) or FORMATS
        upstream = Upstream(subject.provider, model, True, KEY)
        for requested in (*FORMATS, "lrc"):
            call = transcription_call(requested)
            if requested in supported or requested == "lrc":
                subject.dispatcher.check(upstream, call)
                continue
            with pytest.raises(InvalidRequest) as raised:
                subject.dispatcher.check(upstream, call)
            assert (raised.value.status, raised.value.param) == (400, "response_format")
            expected = f"'{requested}' is not supported by provider p: use {', '.join(supported)}"
            assert raised.value.message == f"response_format {expected}"


# --- transcripts ---


@dataclass(frozen=True)
class Answer:
    """A provider's response, and what the caller gets: by default the same body, and the usage that the file shows."""

    response_format: str | None
    content_type: str
    body: bytes
    caller_type: str = ""
    caller_body: bytes | None = None
    usage: dict[str, Any] | None = field(default_factory=lambda: FILE_USAGE)
    operation: str = TRANSCRIPTIONS


def transcript(**members: object) -> bytes:
    return json.dumps({"text": "Hello, Zoë.", **members}, ensure_ascii=False).encode()


TOKENS = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
SECONDS = {"type": "duration", "seconds": 9}
VERBOSE = {"task": "transcribe", "language": "english", "segments": []}
MISTRAL_USAGE = {"prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264, "prompt_audio_seconds": 203}
ANSWERS = {
    "OpenAI json, seconds": Answer(None, JSON, transcript(usage=SECONDS), usage=SECONDS),
    "OpenAI json, tokens": Answer("json", JSON, transcript(usage=TOKENS), usage=TOKENS | {"seconds": FILE_SECONDS}),
    "OpenAI verbose_json": Answer(
        "verbose_json", JSON, transcript(**VERBOSE, duration=8.47, usage=SECONDS), usage=SECONDS
    ),
    "OpenAI diarized_json": Answer(
        "diarized_json", JSON, transcript(duration=42.7, usage=TOKENS), usage=TOKENS | {"seconds": 42.7}
    ),
    "OpenAI text": Answer("text", UTF_8_PLAIN, TEXT_BODY),
    "OpenAI srt": Answer("srt", UTF_8_PLAIN, SRT_BODY),
    "OpenAI vtt": Answer("vtt", UTF_8_PLAIN, VTT_BODY),
    "OpenAI text in quotes": Answer("text", UTF_8_PLAIN, b'"Hello," he said.\n'),
    "OpenAI text that is JSON": Answer("text", UTF_8_PLAIN, b'{"usage":1}'),
    "Groq json": Answer("json", JSON, transcript(x_groq={"id": "req_1"})),
    "Groq verbose_json": Answer(
        "verbose_json", JSON, transcript(**VERBOSE, duration=8.47), usage={"type": "duration", "seconds": 8.47}
    ),
    "Mistral": Answer(
        None,
        JSON,
        transcript(model="voxtral", language=None, segments=[], usage=MISTRAL_USAGE),
        usage=MISTRAL_USAGE | {"type": "duration", "seconds": 203.0},
    ),
    "Mistral, seconds of null": Answer(
        None,
        JSON,
        transcript(usage=MISTRAL_USAGE | {"prompt_audio_seconds": None}),
        usage=MISTRAL_USAGE | {"prompt_audio_seconds": None} | FILE_USAGE,
    ),
    "vLLM json": Answer("json", JSON, transcript(usage=SECONDS), usage=SECONDS),
    "vLLM text": Answer("text", JSON, transcript(usage=SECONDS), UTF_8_PLAIN, "Hello, Zoë.".encode(), SECONDS),
    "vLLM text with escapes": Answer(
        "text", f"{JSON}; charset=utf-8", rb'{"text":"a\n\u00eb\ud83d\ude00"}', UTF_8_PLAIN, "a\në😀".encode()
    ),
    "vLLM verbose_json": Answer(
        "verbose_json", JSON, transcript(**VERBOSE, duration="8.47"), usage={"type": "duration", "seconds": 8.47}
    ),
    "vLLM translation": Answer(None, JSON, transcript(), operation=TRANSLATIONS),
    "vLLM translation as text": Answer(
        "text", JSON, transcript(), UTF_8_PLAIN, "Hello, Zoë.".encode(), operation=TRANSLATIONS
    ),
    "speaches text": Answer("text", PLAIN, TEXT_BODY),
    "speaches srt": Answer("srt", PLAIN, SRT_BODY),
    "speaches vtt": Answer("vtt", VTT, VTT_BODY),
    "LocalAI without a format": Answer(
        None, f"{JSON}; charset=UTF-8", transcript(**VERBOSE, duration=0), usage={"type": "duration", "seconds": 0.0}
    ),
    "LocalAI lrc": Answer("lrc", UTF_8_PLAIN, transcript(), JSON),
    "whisper.cpp json": Answer("json", JSON, transcript()),
    "whisper.cpp text": Answer("text", HTML, TEXT_BODY, UTF_8_PLAIN),
    "whisper.cpp srt": Answer("srt", "application/x-subrip", SRT_BODY, UTF_8_PLAIN),
    "whisper.cpp vtt": Answer("vtt", VTT, VTT_BODY),
    "json with the label of text": Answer("json", HTML, transcript(), JSON),
    "duration that is no number": Answer("verbose_json", JSON, transcript(duration="unknown", usage=None)),
    "usage that is no object": Answer(None, JSON, transcript(usage=[1], duration=None)),
    "silence, json": Answer("json", JSON, b'{"text":""}'),
    "silence, Mistral": Answer(None, JSON, b'{"model":"voxtral","text":"","language":null}'),
    "silence, vLLM text": Answer("text", JSON, b'{"text":"","usage":null}', UTF_8_PLAIN, b""),
    "silence, speaches text": Answer("text", PLAIN, b""),
    "silence, speaches srt": Answer("srt", PLAIN, b""),
    "silence, speaches vtt": Answer("vtt", VTT, b""),
    "silence, whisper.cpp text": Answer("text", HTML, b"", UTF_8_PLAIN),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_transcript_has_its_body_type_and_usage(
    answer: Answer, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(200, answer.body, {"content-type": answer.content_type, "x-request-id": "r"})
    call = transcription_call(answer.response_format, operation=answer.operation)
    response = send_audio(http, target, call)
    expected_body = answer.body if answer.caller_body is None else answer.caller_body
    expected_headers = {"content-type": answer.caller_type or answer.content_type, "x-request-id": "r"}
    assert (response.status, response.headers, response.body) == (200, expected_headers, expected_body)
    assert usage_of(response.usage) == answer.usage


@pytest.mark.parametrize("name", ["OpenAI json, seconds", "vLLM text", "whisper.cpp srt"])
def test_compressed_transcript_is_decompressed_without_its_coding(
    name: str, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    answer = ANSWERS[name]
    headers = {"content-type": answer.content_type, "content-encoding": "gzip"}
    upstream.respond_with(200, gzip.compress(answer.body), headers)
    response = send_audio(http, target, transcription_call(answer.response_format))
    assert response.headers == {"content-type": answer.caller_type or answer.content_type}
    assert response.body == (answer.caller_body or answer.body)


@pytest.mark.parametrize("file", [b"", b"RIFF", b"\x1aE\xdf\xa3webm", b'{"duration":7}', b"ID3\x04abc", b"x" * 5000])
@pytest.mark.parametrize("response_format", ["json", "text"])
def test_file_without_a_known_duration_has_no_usage(
    response_format: str, file: bytes, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    is_text = response_format == "text"
    upstream.respond_with(200, TEXT_BODY if is_text else transcript(), {"content-type": PLAIN if is_text else JSON})
    response = send_audio(http, target, transcription_call(response_format, file=form_file(file)))
    assert response.usage is None


@given(st.binary(max_size=400))
@settings(max_examples=examples(100))
def test_random_file_reaches_the_provider_and_the_usage_is_valid(
    scripted_provider: ScriptedProvider, http: httpx.Client, file: bytes
) -> None:
    scripted_provider.respond_with(200, transcript())
    target = provider(scripted_provider.base_url)
    call = audio_call(TRANSCRIPTIONS, *forms.encode_form([Part("model", b"m"), Part("file", file, "a.mp3")]))
    response = send_audio(http, target, call)
    request = scripted_provider.requests[-1]
    assert forms.parse_form(request.body, request.headers["content-type"])[1].content == file
    usage = usage_of(response.usage)
    assert usage is None or usage.keys() == {"type", "seconds"}


PART_NAMES = st.sampled_from(["file", "model", "language", "timestamp_granularities[]", "", 'a"b', "語"]) | st.text(
    "ab[]. ", max_size=5
)
PARTS = st.builds(
    Part,
    PART_NAMES,
    st.binary(max_size=60) | st.sampled_from([b"\r\n--", b"\r\n--" + BOUNDARY.encode() + b"--\r\n", b"\r\n\r\n"]),
    st.none() | st.sampled_from(["a.wav", "Recording-06.09.2026 23:21.webm", "Việt.flac", "x"]),
    st.none() | st.sampled_from(["audio/wav", "audio/webm;codecs=opus", "application/octet-stream", "text/plain"]),
)


@given(st.lists(PARTS.filter(lambda part: part.name != "response_format"), max_size=6))
@settings(max_examples=examples(250))
def test_form_parts_arrive_equal_and_in_order_except_for_the_model(
    scripted_provider: ScriptedProvider, http: httpx.Client, parts: list[Part]
) -> None:
    scripted_provider.respond_with(200, transcript())
    target = provider(scripted_provider.base_url)
    call = audio_call(TRANSCRIPTIONS, *forms.encode_form(parts))
    send_audio(http, target, call, Upstream(target, UPSTREAM_MODEL, True, "k"))
    request = scripted_provider.requests[-1]
    model_parts = [part for part in parts if part.name == "model" and not part.is_file]
    content = UPSTREAM_MODEL.encode()
    expected = [
        Part(part.name, content, None, part.content_type) if any(part is model for model in model_parts) else part
        for part in parts
    ]
    expected += [] if model_parts else [Part("model", content)]
    assert forms.parse_form(request.body, request.headers["content-type"]) == expected


# --- speech ---


@pytest.mark.parametrize(
    "content_type",
    [
        *("audio/mpeg", "audio/ogg", "audio/opus", "audio/ogg;codec=opus", "audio/x-flac", "audio/aac", "audio/wav"),
        *("audio/pcm;rate=22050", "audio/pcm", "application/octet-stream"),
    ],
)
def test_speech_has_the_bytes_and_the_content_type_of_the_provider(
    content_type: str, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    disposition = {"content-disposition": "attachment; filename=speech.mp3"}  # as Kokoro-FastAPI sends it
    upstream.respond_with(200, MP3, {"content-type": content_type, "x-request-id": "r"} | disposition)
    response = send_audio(http, target, speech_call())
    assert (response.status, response.body) == (200, MP3)
    assert response.headers == {"content-type": content_type, "x-request-id": "r"}
    assert usage_of(response.usage) == {"characters": 5}


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ('"Grüße 😀"', {"characters": 7}),
        (r'"\ud83d\ude00\n"', {"characters": 2}),
        ('""', {"characters": 0}),
        ('["Hello"]', None),
        ("null", None),
    ],
)
def test_usage_of_speech_counts_the_characters_of_its_input(
    text: str, usage: dict[str, int] | None, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(200, MP3, {"content-type": "audio/mpeg"})
    response = send_audio(http, target, speech_call(f'{{"model":"m","input":{text}}}'.encode()))
    assert usage_of(response.usage) == usage


# --- responses with status 200 that are no result ---


@pytest.mark.parametrize(
    ("call", "content_type", "body", "message"),
    [
        (speech_call(), JSON, b'{"error":{"message":"The voice is not loaded"}}', "The voice is not loaded"),
        (speech_call(), JSON, b'{"detail":"The voice is not loaded"}', "The voice is not loaded"),
        (speech_call(), f"{JSON}; charset=utf-8", b'{"error":"no voice"}', "no voice"),
        (speech_call(), JSON, b'{"audio_data":"SUQz"}', "Provider p: status 200 without a result"),
        (speech_call(), "audio/mpeg", b"", "Provider p: status 200 without audio"),
        (transcription_call(), HTML, b"<html><h1>Bad gateway</h1></html>", "not valid JSON: Bad gateway"),
        (transcription_call(), PLAIN, b"", "Provider p: the response is not valid JSON"),
        (transcription_call(), JSON, b"[]", "Provider p: the response is not valid JSON"),
        (transcription_call(), JSON, b'{"error":"failed to read audio"}', "failed to read audio"),
        (transcription_call("verbose_json"), JSON, b'{"detail":"out of memory"}', "out of memory"),
        (transcription_call(), JSON, b'{"text":null}', "Provider p: status 200 without a result"),
        (transcription_call("text"), JSON, b'{"error":{"message":"out of memory"}}', "out of memory"),
        (transcription_call("text"), JSON, b'{"text":null}', "Provider p: status 200 without a result"),
        (transcription_call("srt"), JSON, b'{"text":"Hello"}', "Provider p: status 200 without a result"),
        (transcription_call("vtt"), JSON, b'{"detail":"not a subtitle"}', "not a subtitle"),
        (transcription_call(operation=TRANSLATIONS), JSON, b'{"error":"no"}', "no"),
    ],
)
def test_success_without_a_result_is_an_error_that_may_be_billed(
    call: ProviderCall,
    content_type: str,
    body: bytes,
    message: str,
    upstream: ScriptedProvider,
    target: Provider,
    http: httpx.Client,
) -> None:
    upstream.respond_with(200, body, {"content-type": content_type})
    with pytest.raises(ProviderError) as raised:
        send_audio(http, target, call)
    error = raised.value
    assert (type(error), error.status, error.may_be_billed) == (ProviderError, 502, True)
    assert message in error.message
    assert error.message in json.loads(wire_errors.render_error(error))["error"]["message"]
    assert wire_errors.error_headers(error)["x-should-retry"] == "false"


@pytest.mark.parametrize("call", [transcription_call("text"), speech_call()], ids=["text", "speech"])
def test_truncated_text_or_speech_is_a_timeout_that_may_be_billed(call: ProviderCall, http: httpx.Client) -> None:
    head = hostile_servers.head(200, "content-type: audio/mpeg", "content-length: 9")
    with hostile_servers.receiver(hostile_servers.send_raw(head + b"half")) as server:
        target = provider(f"http://127.0.0.1:{server.port}/v1")
        with pytest.raises(ProviderTimeout) as raised:
            send_audio(http, target, call)
    assert raised.value.may_be_billed


# --- errors by status ---


@dataclass(frozen=True)
class ErrorAnswer:
    """A provider's error, and the message and error code that the caller gets."""

    status: int
    body: bytes
    message: str
    code: str = "invalid_request"
    content_type: str = JSON


OPENAI_ERROR = {
    "message": "response_format 'srt' is not compatible with model 'gpt-4o-transcribe'. Use 'json' or 'text' instead.",
    "type": "invalid_request_error",
    "param": "response_format",
    "code": "unsupported_value",
}
FASTAPI_DETAIL = {"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": None}
REJECTIONS = {
    "OpenAI": ErrorAnswer(
        400, json.dumps({"error": OPENAI_ERROR}).encode(), OPENAI_ERROR["message"], "unsupported_value"
    ),
    "FastAPI, a string": ErrorAnswer(
        404, b'{"detail":"Model \'m\' is not installed locally."}', "Model 'm' is not installed locally."
    ),
    "FastAPI, a list": ErrorAnswer(422, json.dumps({"detail": [FASTAPI_DETAIL]}).encode(), "body.file: Field required"),
    "whisper.cpp": ErrorAnswer(400, b'{"error":"no \'file\' field in the request"}', "no 'file' field in the request"),
    "openedai-speech": ErrorAnswer(
        400,
        b'{"message":"Missing parameter: input","code":"400","type":"BadRequestError","param":"input"}',
        "Missing parameter: input",
    ),
    "LocalAI": ErrorAnswer(
        413, b'{"error":{"code":413,"message":"Request Entity Too Large","type":""}}', "Request Entity Too Large"
    ),
    "nginx": ErrorAnswer(
        413,
        b"<html><head><title>413</title></head><body><h1>Request Entity Too Large</h1></body></html>",
        "Provider p: status 413: 413 Request Entity Too Large",
        content_type="text/html",
    ),
    "text": ErrorAnswer(415, b"Unsupported Media Type", "Provider p: status 415: Unsupported Media Type", "", PLAIN),
}
REJECTION_CALLS = {
    "json": transcription_call(),
    "text": transcription_call("text"),
    "translation": transcription_call(operation=TRANSLATIONS),
    "speech": speech_call(),
}


@pytest.mark.parametrize("call", REJECTION_CALLS.values(), ids=REJECTION_CALLS.keys())
@pytest.mark.parametrize("answer", REJECTIONS.values(), ids=REJECTIONS.keys())
def test_rejection_has_the_status_and_the_message_of_the_provider(
    answer: ErrorAnswer, call: ProviderCall, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(answer.status, answer.body, {"content-type": answer.content_type})
    with pytest.raises(ProviderRejected) as raised:
        send_audio(http, target, call, upstream_of(target, model_is_configured=False))
    error = raised.value
    assert (error.status, error.retryable, error.may_be_billed) == (answer.status, False, False)
    assert error.message == answer.message
    rendered = json.loads(wire_errors.render_error(error))
    assert rendered["error"]["message"] == rendered["responseStatus"]["message"] == answer.message
    assert error.code == (answer.code or error.code)


@pytest.mark.parametrize("call", REJECTION_CALLS.values(), ids=REJECTION_CALLS.keys())
def test_configured_model_that_is_not_downloaded_is_a_hidden_error(
    call: ProviderCall, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(404, b'{"detail":"Model \'m\' is not installed locally."}')
    with pytest.raises(ProviderAuth) as raised:
        send_audio(http, target, call)
    assert (raised.value.status, raised.value.may_be_billed) == (502, False)
    assert b"installed" not in wire_errors.render_error(raised.value)


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (400, b'{"error":{"message":"requires terms acceptance","code":"model_terms_required"}}', ProviderAuth),
        (401, b'{"detail":"Invalid authorization"}', ProviderAuth),
        (500, b"Internal Server Error", ProviderError),
        (501, b'{"error":{"message":"The model does not support Transcriptions API"}}', ProviderError),
        (503, b'{"detail":"busy"}', ProviderUnavailable),
        (504, b"<html>upstream timed out</html>", ProviderTimeout),
    ],
)
@pytest.mark.parametrize("call", REJECTION_CALLS.values(), ids=REJECTION_CALLS.keys())
def test_other_error_statuses_have_their_class(
    call: ProviderCall,
    status: int,
    body: bytes,
    error_class: type[ProviderError],
    upstream: ScriptedProvider,
    target: Provider,
    http: httpx.Client,
) -> None:
    upstream.respond_with(status, body, {"content-type": PLAIN if body[:1] in b"I<" else JSON})
    with pytest.raises(ProviderError) as raised:
        send_audio(http, target, call)
    assert type(raised.value) is error_class
    assert raised.value.may_be_billed == (error_class is ProviderTimeout)


# --- failover ---


def test_unsupported_format_fails_over_to_a_provider_that_supports_it(
    upstream: ScriptedProvider, http: httpx.Client
) -> None:
    upstream.respond_with(200, SRT_BODY, {"content-type": PLAIN})
    with hostile_servers.receiver(hostile_servers.hang) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        targets = [
            provider(url, name="first", preset="together", priority=2),
            provider(url, name="second", preset="vllm", priority=1),
            provider(upstream.base_url, name="third", preset="speaches"),
        ]
        result = fail_over_audio(http, transcription_call("srt"), targets)
        connections = server.connections
    assert (result.provider, result.attempts, connections) == ("third", 1, 0)
    assert result.response is not None
    assert result.response.body == SRT_BODY


def test_format_without_a_supporting_provider_is_an_invalid_request(
    upstream: ScriptedProvider, http: httpx.Client
) -> None:
    targets = [
        provider(upstream.base_url, name=name, preset=name, priority=-index)
        for index, name in enumerate(["together", "groq", "vllm"])
    ]
    for is_streamed in (False, True):
        result = fail_over_audio(http, transcription_call("vtt", stream=is_streamed), targets)
        assert (result.attempts, result.can_retry, upstream.requests) == (0, False, [])
        assert isinstance(result.error, InvalidRequest)
        assert "by provider together: use json, verbose_json" in result.error.message


@pytest.mark.parametrize("fault", [500, 503, 429, 401])
def test_second_provider_receives_the_same_parts(fault: int, upstream: ScriptedProvider, http: httpx.Client) -> None:
    upstream.respond_with(fault, b'{"error":{"message":"no"}}')
    upstream.respond_with(200, transcript())
    targets = [
        provider(upstream.base_url, name="first", priority=1, models={"m": "a"}),
        provider(upstream.base_url, name="second", models={"m": "another-model"}),
    ]
    call = transcription_call("json")
    result = fail_over_audio(http, call, targets)
    assert (result.provider, result.attempts, result.unknown_outcomes) == ("second", 2, 0)
    for request, model in zip(upstream.requests, ["a", "another-model"], strict=True):
        parts = [form_field("model", model), FILE, form_field("response_format", "json")]
        assert request.body == form_body(*parts, boundary=boundary_of(request.headers["content-type"]))


@pytest.mark.parametrize(("queue", "attempts"), [("hosted", 1), ("gpu", 2)])
@pytest.mark.parametrize("call", [transcription_call("srt"), speech_call()], ids=["srt", "speech"])
def test_json_instead_of_text_or_speech_fails_over_from_a_gpu_only(
    call: ProviderCall, queue: str, attempts: int, upstream: ScriptedProvider, http: httpx.Client
) -> None:
    upstream.respond_with(200, b'{"detail":"no voice"}')
    if attempts == 2:
        upstream.respond_with(200, MP3, {"content-type": "audio/mpeg"})
    targets = [
        provider(upstream.base_url, name="first", priority=1, queue=queue),
        provider(upstream.base_url, name="second"),
    ]
    result = fail_over_audio(http, call, targets)
    assert (len(upstream.requests), result.attempts, result.unknown_outcomes) == (attempts, attempts, 1)
    assert (result.response is None) == (attempts == 1)
