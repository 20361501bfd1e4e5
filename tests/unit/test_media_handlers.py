"""The real handlers in this process, for audio: headers, redirects to files, and files that cannot be stored."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aiserver import bootstrap, cors
from aiserver.artifacts import artifact_owner, file_name
from aiserver.aws import artifacts as aws_artifacts
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.operations import OPERATIONS
from aiserver.providers.provider import Provider
from aiserver.wire import sse
from aiserver.wire.forms import Part, encode_form
from local.scripted import MODELS, ScriptedProvider
from tests.answers import is_error, json_body
from tests.moto_stack import MotoStack, client, event
from tests.providers.audio_calls import silence

ORIGIN = "https://app.example.com"
OWNER = "example00000"
WAV = silence(0.5)
MP3 = b"ID3\x04" + bytes(range(256))
HTML = b"<html><script>alert(1)</script></html>"
AUDIO = Part("audio", WAV, "hello.wav", "audio/wav")
REPLY_TO = "http://127.0.0.1:9000/hook"


@pytest.fixture
def audio(stack: MotoStack, upstream: ScriptedProvider) -> MotoStack:
    """The stack with a provider of all operations."""
    config = {"name": "scripted", "base_url": upstream.base_url, "models": dict.fromkeys(MODELS, "")}
    stack.set_providers(Provider.model_validate({**config, "operations": list(OPERATIONS)}))
    return stack


def request_event(path: str, body: bytes, content_type: str, **headers: str) -> dict[str, Any]:
    """The event of a request to the media function, or of one to the queue function for a name of its catch-all."""
    request = event("media.speech") | {"resource": path, "path": path, "isBase64Encoded": True}
    request["body"] = base64.b64encode(body).decode()
    request["headers"] |= {"Content-Type": content_type} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request["requestContext"]["path"] = f"/prod{path}"
    if path.startswith("/api/Queue"):
        request |= {"resource": "/api/{proxy+}", "pathParameters": {"proxy": path.removeprefix("/api/")}}
    return request


def json_event(path: str, members: dict[str, Any], **headers: str) -> dict[str, Any]:
    return request_event(path, json.dumps(members).encode(), "application/json", **headers)


def form_event(path: str, parts: list[Part], **headers: str) -> dict[str, Any]:
    return request_event(path, *encode_form(parts), **headers)


def status_event(resource: str, parameters: dict[str, str], query: dict[str, Any] | None = None) -> dict[str, Any]:
    path = resource.replace("{proxy+}", parameters.get("proxy", "")).replace("{id}", parameters.get("id", ""))
    request = event("status") | {"resource": resource, "path": path, "pathParameters": parameters}
    return request | {"queryStringParameters": query}


def stored_job(audio: MotoStack) -> Job:
    (job,) = audio.jobs().list_page(OWNER, take=9).jobs
    return job


def stored_files(audio: MotoStack) -> dict[str, bytes]:
    """The contents of the files in the bucket, by key."""
    bucket, s3 = audio.names["BodiesBucket"], client("s3")
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def run_queued_job(audio: MotoStack) -> Job:
    (message,) = audio.messages("HostedQueue")
    batch = event("worker")
    batch["Records"][0]["body"] = json.dumps(message)
    assert audio.invoke("worker", batch) == {"batchItemFailures": []}
    job = audio.jobs().get(message["id"])
    assert job is not None
    return job


def link_query(response: dict[str, Any]) -> dict[str, str]:
    """The parameters of a redirect to a presigned URL."""
    assert (response["statusCode"], response["body"], response["isBase64Encoded"]) == (302, "", False)
    return {name: texts[0] for name, texts in parse_qs(urlsplit(response["headers"]["location"]).query).items()}


# --- x-ignored ---


@pytest.mark.parametrize("path", ["/api/TextToSpeech", "/api/QueueTextToSpeech"])
@pytest.mark.parametrize("seed", [{"seed": 7}, {"Seed": "7"}, {}, {"seed": None}], ids=json.dumps)
def test_ignored_member_of_text_to_speech_is_named_in_a_header(path: str, seed: Any, audio: MotoStack) -> None:
    function = "queue" if "Queue" in path else "media"
    response = audio.invoke(function, json_event(path, {"input": "Hello", **seed}))
    assert response["statusCode"] == 200
    is_ignored = any(seed.values())
    assert response["headers"].get("x-ignored") == ("seed" if is_ignored else None)
    if function == "queue":
        assert stored_job(audio).ignored == ("seed" if is_ignored else None)
        status = audio.invoke(
            "status",
            status_event(
                "/api/{proxy+}",
                {"proxy": "GetArtifactGenerationStatus"},
                {
                    "refId": stored_job(audio).ref_id,
                },
            ),
        )
        assert json_body(status).get("ignored") == (["seed"] if is_ignored else None)


@pytest.mark.parametrize("path", ["/api/TextToSpeech", "/api/QueueTextToSpeech"])
def test_page_of_an_allowed_origin_may_read_the_ignored_members(path: str, audio: MotoStack) -> None:
    audio.parameters["CorsOrigins"] = ORIGIN
    function = "queue" if "Queue" in path else "media"
    response = audio.invoke(function, json_event(path, {"input": "Hello", "seed": 1}, Origin=ORIGIN))
    headers = response["headers"]
    assert (headers["x-ignored"], headers["access-control-allow-origin"]) == ("seed", ORIGIN)
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"x-ignored", "x-replayed", "x-provider", "location"} <= set(exposed)
    assert "x-ignored" in cors.EXPOSED_HEADERS


def test_text_to_speech_returns_a_url_and_the_headers_of_its_call(audio: MotoStack) -> None:
    members = {"input": "Hello", "seed": 1}
    first = audio.invoke("media", json_event("/api/TextToSpeech", members, X_Ref_Id="r"))
    repeat = audio.invoke_again("media", json_event("/api/TextToSpeech", members, X_Ref_Id="r"))
    assert "x-replayed" not in first["headers"]
    for response in (first, repeat):
        headers, document = response["headers"], json_body(response)
        assert (headers["content-type"], headers["x-provider"]) == ("application/json; charset=utf-8", "scripted")
        assert (headers["x-attempts"], headers["x-ignored"]) == ("1", "seed")
        assert document["results"] == document["outputs"]
        assert document["outputs"][0]["fileName"].endswith(".wav")
    assert repeat["headers"]["x-replayed"] == "true"


# --- options in headers ---


@pytest.mark.parametrize("query", [None, {"refId": "other", "Tag": "other", "replyTo": "http://127.0.0.1:1/other"}])
def test_headers_set_the_options_of_queue_speech_to_text(query: dict[str, str] | None, audio: MotoStack) -> None:
    """Issue: X-Ref-Id and X-Tag had no effect on AI Server's requests; headers override members."""
    audio.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    options = {"X_Ref_Id": "r 1", "X_Tag": "t", "X_Reply_To": REPLY_TO, "X_Deadline": "60", "X_Provider": "scripted"}
    request = form_event("/api/QueueSpeechToText", [AUDIO], **options) | {"queryStringParameters": query}
    response = audio.invoke("queue", request)
    document, job = json_body(response), stored_job(audio)
    assert (response["statusCode"], document["refId"], document["jobId"]) == (200, "r 1", job.id)
    assert (document["jobState"], document["status"]) == ("Queued", "Queued")
    assert document["statusUrl"].endswith("/api/GetTextGenerationStatus?refId=r%201")
    assert (job.ref_id, job.tag, job.reply_to, job.provider) == ("r 1", "t", REPLY_TO, "scripted")
    assert (job.request_name, job.operation) == ("QueueSpeechToText", "audio.transcriptions")
    assert job.deadline - job.created_at == 60_000
    assert run_queued_job(audio).callback == CallbackState.PENDING


@pytest.mark.parametrize("header", ["X_Ref_Id", "Idempotency_Key"])
@pytest.mark.parametrize(
    "path",
    ["/api/SpeechToText", "/v1/audio/transcriptions", "/api/QueueSpeechToText", "/v1/queue/audio/transcriptions"],
)
def test_ref_id_header_is_the_ref_id_of_every_transcription(header: str, path: str, audio: MotoStack) -> None:
    is_queued = "ueue" in path
    parts = [AUDIO] if "/api/" in path else [Part("model", b"whisper-1"), Part("file", WAV, "a.wav", "audio/wav")]
    function, request = "queue" if is_queued else "media", form_event(path, parts, **{header: "r"}, X_Tag="t")
    responses = [audio.invoke(function, request), audio.invoke_again(function, request)]
    assert [response["statusCode"] // 100 for response in responses] == [2, 2]
    job = stored_job(audio)
    assert (job.ref_id, job.tag) == ("r", "t")
    assert job.state == (JobState.QUEUED if is_queued else JobState.COMPLETED)


def test_loopback_reply_to_in_a_header_is_rejected(audio: MotoStack) -> None:
    response = audio.invoke("queue", form_event("/api/QueueSpeechToText", [AUDIO], X_Reply_To=REPLY_TO))
    assert is_error(response, 400, "ValidationException")
    assert json_body(response)["error"]["param"] == "replyTo"


# --- BUFFERED ---


@pytest.mark.parametrize("options", [{}, {"X_Ref_Id": "r"}, {"X_Tag": "t"}], ids=["none", "RefId", "Tag"])
@pytest.mark.parametrize(
    ("content", "media_type", "disposition"),
    [(MP3, "audio/mpeg", "inline"), (WAV, "audio/wav", "inline"), (HTML, "application/octet-stream", "attachment")],
    ids=["MP3", "WAV", "HTML"],
)
def test_buffered_speech_is_a_redirect_to_its_file(
    options: dict[str, str],
    content: bytes,
    media_type: str,
    disposition: str,
    audio: MotoStack,
    upstream: ScriptedProvider,
) -> None:
    audio.parameters["ResponseMode"] = "BUFFERED"
    upstream.respond_with(200, content, {"content-type": "audio/mpeg", "x-request-id": "up-1"})
    members = {"model": "tts-1", "input": "Hello", "voice": "alloy"}
    responses = [audio.invoke("media", json_event("/v1/audio/speech", members, **options))]
    if "X_Ref_Id" in options:
        responses.append(audio.invoke_again("media", json_event("/v1/audio/speech", members, **options)))
        assert responses[1]["headers"]["x-replayed"] == "true"
    (key,) = stored_files(audio)
    for response in responses:
        query = link_query(response)
        assert urlsplit(response["headers"]["location"]).path.endswith(key)
        assert query["response-content-type"] == media_type
        assert query["response-content-disposition"] == f'{disposition}; filename="{file_name(key)}"'
        assert response["headers"]["x-provider"] == "scripted"
    assert responses[0]["headers"]["x-request-id"] == "up-1"
    assert (artifact_owner(key), stored_files(audio)[key], len(upstream.requests)) == (OWNER, content, 1)


def test_buffered_events_of_speech_are_text(audio: MotoStack, upstream: ScriptedProvider) -> None:
    audio.parameters["ResponseMode"] = "BUFFERED"
    events = [
        sse.format_event(b'{"type":"speech.audio.delta","audio":"SUQz"}'),
        sse.format_event(b'{"type":"speech.audio.done","usage":{"total_tokens":3}}'),
    ]
    upstream.stream_with(events)
    members = {"model": "tts-1", "input": "Hello", "stream_format": "sse"}
    response = audio.invoke("media", json_event("/v1/audio/speech", members))
    assert (response["statusCode"], response["body"]) == (200, b"".join(events).decode())
    assert stored_files(audio) == {}


@pytest.mark.parametrize("response_format", ["json", "text"])
def test_buffered_transcript_is_returned_at_once(response_format: str, audio: MotoStack) -> None:
    audio.parameters["ResponseMode"] = "BUFFERED"
    fields = {"model": "whisper-1", "response_format": response_format}
    parts = [*(Part(name, text.encode()) for name, text in fields.items()), Part("file", WAV, "a.wav", "audio/wav")]
    response = audio.invoke("media", form_event("/v1/audio/transcriptions", parts))
    assert response["statusCode"] == 200
    assert "This is a scripted transcript" in response["body"]
    assert stored_files(audio) == {}


# --- files that cannot be stored ---


def put_fails(*_: object, **__: object) -> str:
    raise RuntimeError("the bucket is unavailable")


@pytest.mark.parametrize("options", [{}, {"X_Ref_Id": "r"}, {"X_Tag": "t"}], ids=["none", "RefId", "Tag"])
@pytest.mark.parametrize(
    ("path", "members", "mode"),
    [
        ("/v1/audio/speech", {"model": "tts-1", "input": "Hello"}, "BUFFERED"),
        ("/api/TextToSpeech", {"input": "Hello"}, "BUFFERED"),
        ("/api/TextToSpeech", {"input": "Hello"}, "STREAM"),
    ],
)
def test_file_that_cannot_be_stored_is_an_error_that_is_not_retried(
    path: str,
    members: dict[str, str],
    mode: str,
    options: dict[str, str],
    audio: MotoStack,
    upstream: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The call has been paid for: another one would be paid for again."""
    audio.parameters["ResponseMode"] = mode
    monkeypatch.setattr(aws_artifacts, "put_artifact", put_fails)
    response = audio.invoke("media", json_event(path, members, **options))
    assert is_error(response, 502, "ProviderError")
    assert json_body(response)["error"]["message"] == "The provider's file could not be stored"
    assert response["headers"]["x-should-retry"] == "false"
    assert len(upstream.requests) == 1
    if "X_Ref_Id" in options:
        job = stored_job(audio)
        assert (job.state, job.call_queue) == (JobState.STARTED, "hosted")  # the sweeper ends it as Failed
        assert job.due_at
        assert job.due_at > bootstrap.CLOCK.now_ms()


def test_file_that_disappears_is_an_error_that_is_not_retried(
    audio: MotoStack, monkeypatch: pytest.MonkeyPatch, upstream: ScriptedProvider
) -> None:
    audio.parameters["ResponseMode"] = "BUFFERED"
    monkeypatch.setattr(aws_artifacts.S3Artifacts, "link", lambda *_, **__: None)
    response = audio.invoke("media", json_event("/v1/audio/speech", {"model": "tts-1", "input": "Hello"}))
    assert is_error(response, 502, "ProviderError")
    assert (response["headers"]["x-should-retry"], len(upstream.requests)) == ("false", 1)


# --- results of jobs ---


@pytest.mark.parametrize(
    ("content", "label", "extension", "media_type", "disposition"),
    [
        (MP3, "audio/mpeg", "mp3", "audio/mpeg", "inline"),
        (MP3, "application/octet-stream", "mp3", "audio/mpeg", "inline"),
        (WAV, "audio/x-wav", "wav", "audio/wav", "inline"),
        (b"OggS\x00" + bytes(9), "audio/ogg;codec=opus", "ogg", "audio/ogg", "inline"),
        (bytes(9), "audio/pcm;rate=22050", "pcm", "audio/pcm", "attachment"),
        (HTML, "audio/mpeg", "bin", "application/octet-stream", "attachment"),
        (b"<svg onload='alert(1)'/>", "image/svg+xml", "bin", "application/octet-stream", "attachment"),
    ],
)
def test_result_of_a_file_is_a_redirect_with_the_type_of_its_content(
    content: bytes,
    label: str,
    extension: str,
    media_type: str,
    disposition: str,
    audio: MotoStack,
    upstream: ScriptedProvider,
) -> None:
    """Issue: a browser would run a script in a file with the type that a provider names."""
    upstream.respond_with(200, content, {"content-type": label})
    assert audio.invoke("queue", json_event("/api/QueueTextToSpeech", {"text": "Hello"}))["statusCode"] == 200
    job = run_queued_job(audio)
    assert (job.state, job.has_file, job.result_type) == (JobState.COMPLETED, True, label)
    response = audio.invoke("status", status_event("/v1/jobs/{id}/result", {"id": str(job.id)}))
    query = link_query(response)
    assert query["response-content-type"] == media_type
    assert query["response-content-disposition"].startswith(f'{disposition}; filename="')
    assert query["response-content-disposition"].endswith(f'.{extension}"')
    assert urlsplit(response["headers"]["location"]).path.endswith(str(job.result_location))
    assert stored_files(audio)[str(job.result_location)] == content


@pytest.fixture
def latin_1_job(audio: MotoStack, upstream: ScriptedProvider) -> Job:
    """A completed job whose result is a text that is not UTF-8."""
    upstream.respond_with(200, b"caf\xe9 \xff\n", {"content-type": "text/plain"})
    fields = {"model": "whisper-1", "response_format": "text", "prompt": "é"}
    parts = [*(Part(name, text.encode()) for name, text in fields.items()), Part("file", WAV, "a.wav", "audio/wav")]
    response = audio.invoke("queue", form_event("/v1/queue/audio/transcriptions", parts))
    assert response["statusCode"] == 202
    job = run_queued_job(audio)
    assert (job.state, audio.jobs().read_result(job)) == (JobState.COMPLETED, b"caf\xe9 \xff\n")
    return job


LATIN_1_TEXT = "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}\n"


@pytest.mark.parametrize("name", ["GetOpenAiChat", "WaitForOpenAiChat"])
def test_record_of_a_text_that_is_not_utf_8_is_valid(name: str, audio: MotoStack, latin_1_job: Job) -> None:
    """Issue: the record of such a job was a 500."""
    response = audio.invoke("status", status_event("/api/{proxy+}", {"proxy": name}, {"id": str(latin_1_job.id)}))
    assert response["statusCode"] == 200
    record = json_body(response)["result"]
    assert (record["state"], record["responseBody"]) == ("Completed", LATIN_1_TEXT)
    parts = {part["name"]: part for part in json.loads(record["requestBody"])}
    assert (parts["prompt"]["value"], parts["file"]["bytes"]) == ("é", len(WAV))


@pytest.mark.parametrize("name", ["GetOpenAiChatStatus", "GetTextGenerationStatus"])
def test_status_of_a_text_that_is_not_utf_8_is_valid(name: str, audio: MotoStack, latin_1_job: Job) -> None:
    response = audio.invoke("status", status_event("/api/{proxy+}", {"proxy": name}, {"jobId": str(latin_1_job.id)}))
    document = json_body(response)
    assert (response["statusCode"], document["jobState"], document["result"]) == (200, "Completed", LATIN_1_TEXT)
    assert document["results"] == document["textOutputs"] == [{"text": LATIN_1_TEXT}]


def test_result_of_a_text_that_is_not_utf_8_is_text(audio: MotoStack, latin_1_job: Job) -> None:
    response = audio.invoke("status", status_event("/v1/jobs/{id}/result", {"id": str(latin_1_job.id)}))
    assert (response["statusCode"], response["body"]) == (200, LATIN_1_TEXT)
    assert (response["headers"]["content-type"], response["isBase64Encoded"]) == ("text/plain", False)
