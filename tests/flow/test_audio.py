"""Audio through the running gateway: real speech and real transcripts, read by the clients that users have."""

import base64
import hashlib
import http.client
import json
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from servicestack import JsonServiceClient, UploadFile, WebServiceException
from standardwebhooks import Webhook

from aiserver.limits import MAX_FORM_BYTES
from local.receiver import Callback, Receiver
from local.scripted import ConnectionCut
from tests import sse_reader
from tests.audio.test_audio_servers import FIXTURE, HELLO, NUMBERS, needs_flite, needs_pocketsphinx
from tests.flow.audio_cloud import (
    BACKUP_UPSTREAM_MODEL,
    BUSY_UPSTREAM_MODEL,
    FAILOVER_MODEL,
    MP3,
    RECOGNIZER_MODEL,
    SCRIPTED_MODEL,
    SCRIPTED_UPSTREAM_MODEL,
    VOICE_MODEL,
    WAV,
    AudioProduct,
    Form,
    FormPart,
    parts_at_provider,
    running_audio_product,
)
from tests.flow.audio_dtos import (
    GetArtifactGenerationStatus,
    GetTextGenerationStatus,
    QueryTextToSpeechVoices,
    QueueSpeechToText,
    QueueTextToSpeech,
    SpeechToText,
    TextToSpeech,
)
from tests.flow.test_npm_clients import NODE, needs_node
from tests.flow.test_wire import error_of

CALLBACK_S, EVENT_S = 30, 20
PATIENCE_S = 1  # of a caller that gives up and repeats its request
TRANSCRIPT = b'{"text":"recorded"}'
CHAT = b'{"id":"1","object":"chat.completion","choices":[{"message":{"role":"assistant","content":"Hi"}}]}'
MP3_START, MP3_END = b"ID3\x04\x00\x00" + bytes(range(256)), b"\xff\xfb\x90\x00" * 64


@pytest.fixture(scope="module")
def running_audio() -> Iterator[AudioProduct]:
    with running_audio_product() as product:
        yield product


@pytest.fixture
def audio(running_audio: AudioProduct) -> AudioProduct:
    for server in (running_audio.speech, running_audio.transcription, running_audio.upstream):
        server.requests.clear()
    return running_audio


@pytest.fixture
def sdk(audio: AudioProduct) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{audio.url}/v1", api_key=audio.key, max_retries=0) as client:
        yield client


@pytest.fixture
def service(audio: AudioProduct) -> Any:
    client: Any = JsonServiceClient(audio.url)
    client.set_bearer_token(audio.key)
    return client


@pytest.fixture
def keep_circuit_closed(audio: AudioProduct) -> Iterator[None]:
    """Make successful calls before and after the test, so that its failures do not open the provider's circuit."""
    request = {"model": SCRIPTED_MODEL, "input": "Hello"}
    assert audio.http.post("/v1/audio/speech", json=request).status_code == 200
    audio.upstream.requests.clear()
    yield
    assert audio.http.post("/v1/audio/speech", json=request).status_code == 200


def transcribe(sdk: openai.OpenAI, wav: bytes, **options: Any) -> Any:
    return sdk.audio.transcriptions.create(model=RECOGNIZER_MODEL, file=("speech.wav", wav, "audio/wav"), **options)


def download(url: str) -> httpx.Response:
    """The file at an artifact's URL, without a key."""
    return httpx.get(url, follow_redirects=True, trust_env=False)


def verify(callback: Callback, product: AudioProduct) -> None:
    """Raises: WebhookVerificationError, when the signature is not valid."""
    Webhook(product.cloud.keys.webhook_secret).verify(callback.body, callback.headers, json_parse=False)


def hello_upload() -> UploadFile:
    return UploadFile("audio", "speech.wav", "audio/wav", BytesIO(FIXTURE.read_bytes()))


# Real speech, real transcripts


@needs_flite
@needs_pocketsphinx
def test_artifact_of_speech_is_transcribed_as_the_same_text(audio: AudioProduct, sdk: openai.OpenAI) -> None:
    ref_id = uuid.uuid4().hex
    speech = sdk.audio.speech.create(
        model=VOICE_MODEL, voice="alloy", input=NUMBERS, extra_headers={"X-Ref-Id": ref_id}
    )
    assert speech.response.headers["content-type"] == "audio/wav"
    status = audio.http.get("/api/GetArtifactGenerationStatus", params={"refId": ref_id}).json()
    artifact = download(status["results"][0]["url"])
    assert (artifact.headers["content-type"], artifact.content) == ("audio/wav", speech.content)
    assert transcribe(sdk, artifact.content).text == NUMBERS


@needs_flite
@pytest.mark.parametrize(
    ("fields", "upstream_voice"), [({"voice": "alloy"}, "alloy"), ({}, "slt")], ids=["request", "provider"]
)
def test_configured_voice_applies_to_speech_without_a_voice(
    fields: dict[str, str], upstream_voice: str, audio: AudioProduct
) -> None:
    request = {"model": VOICE_MODEL, "input": HELLO, **fields}
    assert audio.http.post("/v1/audio/speech", json=request).status_code == 200
    (upstream_request,) = audio.speech.requests
    assert json.loads(upstream_request.body) == {"model": "flite", "input": HELLO, "voice": upstream_voice}


@needs_pocketsphinx
@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_sdk_reads_the_transcript_as_an_object(response_format: str, sdk: openai.OpenAI) -> None:
    transcript = transcribe(sdk, FIXTURE.read_bytes(), response_format=response_format)
    assert transcript.text == HELLO
    if response_format == "verbose_json":
        assert [segment.text for segment in transcript.segments] == [HELLO]
        assert transcript.language == "english"


@needs_pocketsphinx
@pytest.mark.parametrize(
    ("response_format", "pattern"),
    [
        ("text", rf"{HELLO}\n"),
        ("srt", rf"1\n00:00:00,\d+ --> 00:00:01,\d+\n{HELLO}\n\n"),
        ("vtt", rf"WEBVTT\n\n00:00:00\.\d+ --> 00:00:01\.\d+\n{HELLO}\n\n"),
    ],
)
def test_sdk_reads_the_transcript_as_text(response_format: str, pattern: str, sdk: openai.OpenAI) -> None:
    transcript = transcribe(sdk, FIXTURE.read_bytes(), response_format=response_format)
    assert re.fullmatch(pattern, transcript)


@needs_pocketsphinx
def test_sdk_reads_a_streamed_transcript(sdk: openai.OpenAI) -> None:
    events = list(transcribe(sdk, FIXTURE.read_bytes(), stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == len(HELLO.split())
    assert "".join(deltas) == HELLO == events[-1].text
    assert events[-1].type == "transcript.text.done"


@needs_pocketsphinx
def test_sdk_reads_a_translation(sdk: openai.OpenAI) -> None:
    file = ("speech.wav", FIXTURE.read_bytes(), "audio/wav")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        translation = sdk.audio.translations.create(model=RECOGNIZER_MODEL, file=file)
    assert translation.text == HELLO


@needs_flite
def test_speech_as_events_contains_the_same_audio(audio: AudioProduct) -> None:
    request = {"model": VOICE_MODEL, "voice": "alloy", "input": HELLO}
    speech = audio.http.post("/v1/audio/speech", json=request).content
    response = audio.http.post("/v1/audio/speech", json={**request, "stream_format": "sse"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [event.document for event in sse_reader.read(response.content)]
    deltas = [event["audio"] for event in events if event["type"] == "speech.audio.delta"]
    assert b"".join(map(base64.b64decode, deltas)) == speech
    assert events[-1]["type"] == "speech.audio.done"


@needs_node
@needs_flite
@needs_pocketsphinx
def test_npm_client_uploads_a_stream_and_reads_every_format(audio: AudioProduct) -> None:
    arguments = [audio.url, audio.key, audio.transcription.base_url, str(FIXTURE), HELLO]
    command = ["node", "audio.mjs", *arguments]
    completed = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
    output = json.loads(completed.stdout)
    assert output["json"] == output["direct"] == output["done"] == "".join(output["deltas"]) == HELLO
    assert output["text"] == f"{HELLO}\n"
    assert output["srt"].startswith("1\n00:00:00,")
    assert HELLO in output["srt"]
    assert output["words"] == HELLO.split()
    speech = audio.http.post("/v1/audio/speech", json={"model": VOICE_MODEL, "voice": "slt", "input": HELLO}).content
    assert output["speech"] == {"contentType": "audio/wav", "sha256": hashlib.sha256(speech).hexdigest()}
    *gateway_requests, direct_request = audio.transcription.requests
    assert direct_request.headers["transfer-encoding"] == "chunked"  # and to the gateway, too
    assert parts_at_provider(gateway_requests[0])[0].content == FIXTURE.read_bytes()


# Queued


@needs_pocketsphinx
@pytest.mark.parametrize(
    ("response_format", "content_type"),
    [("json", "application/json"), ("srt", "text/plain; charset=utf-8")],
)
def test_callback_of_a_queued_transcription_is_its_transcript(
    response_format: str, content_type: str, audio: AudioProduct, hook: Receiver
) -> None:
    fields = {"model": RECOGNIZER_MODEL, "response_format": response_format, "replyTo": hook.url, "tag": "été/1"}
    file = ("speech.wav", FIXTURE.read_bytes(), "audio/wav")
    response = audio.http.post("/v1/queue/audio/transcriptions", data=fields, files={"file": file})
    assert response.status_code == 202, response.text
    callback = hook.next(CALLBACK_S)
    verify(callback, audio)
    assert callback.headers["content-type"].startswith(content_type)
    assert (callback.headers["x-job-id"], callback.headers["x-tag"]) == (
        str(response.json()["id"]),
        "%C3%A9t%C3%A9%2F1",
    )
    assert HELLO in callback.body.decode()
    result = audio.http.get(f"/v1/jobs/{response.json()['id']}/result", follow_redirects=True)
    assert result.headers["content-type"].startswith(content_type)
    assert result.content == callback.body
    status = audio.http.get(response.json()["statusUrl"]).json()
    assert status["jobState"] == "Completed"
    assert status["result"] == (result.json() if response_format == "json" else result.text)


@needs_flite
def test_callback_of_queued_speech_is_the_audio_file(audio: AudioProduct, hook: Receiver) -> None:
    request = {"model": VOICE_MODEL, "voice": "alloy", "input": HELLO, "stream_format": "sse"}
    headers = {"X-Reply-To": hook.url, "X-Ref-Id": uuid.uuid4().hex}
    response = audio.http.post("/v1/queue/audio/speech", json=request, headers=headers)
    assert (response.status_code, response.json()["refId"]) == (202, headers["X-Ref-Id"])
    callback = hook.next(CALLBACK_S)
    assert callback.is_signed_by(audio.cloud.keys.webhook_secret)  # standardwebhooks verifies texts only
    assert callback.headers["content-type"] == "audio/wav"
    speech = audio.http.post("/v1/audio/speech", json={"model": VOICE_MODEL, "voice": "alloy", "input": HELLO}).content
    assert callback.body == speech
    status = audio.http.get(response.json()["statusUrl"]).json()
    assert "result" not in status
    assert download(status["results"][0]["url"]).content == speech
    assert audio.http.get(status["resultUrl"], follow_redirects=True).content == speech


# AI Server's typed client


@needs_pocketsphinx
def test_typed_client_uploads_audio_and_receives_its_text(service: Any) -> None:
    response = service.post_file_with_request(SpeechToText(), hello_upload())
    assert [output.text for output in response.results] == [HELLO]
    assert response.duration.startswith("PT")


@needs_flite
def test_typed_client_receives_a_url_that_works_without_a_key(audio: AudioProduct, service: Any) -> None:
    response = service.send(TextToSpeech(input=HELLO, seed=1))
    (output,) = response.results
    assert output.provider == "flite"
    assert output.file_name.endswith(".wav")
    speech = audio.http.post("/v1/audio/speech", json={"model": VOICE_MODEL, "input": HELLO}).content
    assert download(output.url).content == speech


@needs_flite
@needs_pocketsphinx
def test_typed_client_queues_audio_and_reads_either_status(audio: AudioProduct, hook: Receiver, service: Any) -> None:
    options = {"reply_to": hook.url, "tag": "audio", "state": "été/1"}
    text_ref_id, speech_ref_id = uuid.uuid4().hex, uuid.uuid4().hex
    text_job = service.post_file_with_request(QueueSpeechToText(ref_id=text_ref_id, **options), hello_upload())
    speech_job = service.send(QueueTextToSpeech(text=NUMBERS, model=VOICE_MODEL, ref_id=speech_ref_id, **options))
    assert (text_job.ref_id, speech_job.ref_id) == (text_ref_id, speech_ref_id)
    assert {text_job.job_state, speech_job.job_state} == {"Queued"}
    bodies: dict[str, dict[str, Any]] = {}
    for _ in range(2):
        callback = hook.next(CALLBACK_S)
        verify(callback, audio)
        assert callback.headers["x-tag"] == "audio"
        bodies[json.loads(callback.body)["refId"]] = json.loads(callback.body)
    assert bodies[text_ref_id] == {"state": "été/1", "refId": text_ref_id, "textOutputs": [{"text": HELLO}]}
    assert bodies[speech_ref_id].keys() == {"state", "refId", "outputs"}
    (output,) = bodies[speech_ref_id]["outputs"]
    speech = download(output["url"]).content
    assert output["fileName"] == f"{hashlib.sha256(speech).hexdigest()}.wav"
    for job in (text_job, speech_job):
        for request in (GetTextGenerationStatus(job_id=job.job_id), GetArtifactGenerationStatus(ref_id=job.ref_id)):
            status = service.get(request)
            assert (status.job_id, status.ref_id, status.job_state) == (job.job_id, job.ref_id, "Completed")
            assert len(status.results) == 1
    assert service.get(GetTextGenerationStatus(job_id=text_job.job_id)).results[0].text == HELLO
    (artifact,) = service.get(GetArtifactGenerationStatus(job_id=speech_job.job_id)).results
    assert (artifact.file_name, download(artifact.url).content) == (output["fileName"], speech)


def test_callback_of_a_failed_generation_has_its_error(audio: AudioProduct, hook: Receiver, service: Any) -> None:
    audio.upstream.respond_with(400, b'{"error":{"message":"The voice is not available"}}')
    service.send(QueueTextToSpeech(text="x", model=SCRIPTED_MODEL, ref_id="failed-1", reply_to=hook.url, state="s"))
    callback = hook.next(CALLBACK_S)
    verify(callback, audio)
    body = json.loads(callback.body)
    assert (body["state"], body["refId"]) == ("s", "failed-1")
    assert "The voice is not available" in body["responseStatus"]["message"]
    assert body.keys() == {"state", "refId", "responseStatus"}


def test_typed_client_lists_the_voices(service: Any) -> None:
    voices = service.get(QueryTextToSpeechVoices())
    assert {(voice.id, voice.model) for voice in voices.results} == {("slt", VOICE_MODEL), ("slt", "text-to-speech")}
    assert voices.total == 2


def test_typed_client_raises_for_a_request_without_a_file(audio: AudioProduct, service: Any) -> None:
    with pytest.raises(WebServiceException) as missing:
        service.send(SpeechToText())
    assert missing.value.status_code == 400
    assert missing.value.response_status.errors[0].field_name == "Audio"
    assert audio.request_counts() == (0, 0, 0)


# Access to artifacts


@pytest.fixture(scope="module")
def artifact_url(running_audio: AudioProduct) -> str:
    running_audio.upstream.respond_with(200, MP3_START, MP3)
    response = running_audio.http.post("/api/TextToSpeech", json={"Input": "Hello", "Model": SCRIPTED_MODEL})
    return response.json()["results"][0]["url"]


def forged_urls(url: str) -> list[str]:
    """The URL with another signature, expiry, name or owner."""
    path, _, query = url.partition("?")
    expiry, _, signature = query.partition("&s=")
    other_digit = "0" if signature[-1] != "0" else "1"
    folder, _, name = path.rpartition("/")
    return [
        *(path, f"{path}?{expiry}", f"{path}?s={signature}", f"{path}?{expiry}&s="),
        f"{path}?{expiry}&s={signature[:-1]}{other_digit}",
        f"{path}?{expiry}0&s={signature}",
        f"{path}?e=1&s={signature}",
        f"{folder}/{name.replace(name[:1], other_digit, 1)}?{query}",
        f"{folder}x/{name}?{query}",
    ]


def test_signed_url_serves_the_artifact_and_its_head(artifact_url: str) -> None:
    response = download(artifact_url)
    assert (response.status_code, response.headers["content-type"]) == (200, "audio/mpeg")
    assert response.content == MP3_START
    head = httpx.head(artifact_url, follow_redirects=True, trust_env=False)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(MP3_START))


def test_owner_s_key_opens_the_artifact_without_a_signature(audio: AudioProduct, artifact_url: str) -> None:
    response = audio.http.get(artifact_url.partition("?")[0], follow_redirects=True)
    assert (response.status_code, response.content) == (200, MP3_START)


@pytest.mark.parametrize("key_name", ["none", "other", "unknown"])
def test_forged_url_is_a_404_without_the_owner_s_key(key_name: str, audio: AudioProduct, artifact_url: str) -> None:
    keys = {"none": None, "other": audio.cloud.keys.other_api_key, "unknown": "ak-junk"}
    headers = {"authorization": f"Bearer {keys[key_name]}"} if keys[key_name] else {}
    for url in forged_urls(artifact_url):
        response = httpx.get(url, headers=headers, trust_env=False)
        assert (response.status_code, response.json()["error"]["message"]) == (404, "Artifact not found"), url


def test_path_that_is_not_canonical_is_a_404_for_the_owner(audio: AudioProduct, artifact_url: str) -> None:
    url = urlsplit(artifact_url)
    folder, _, name = url.path.rpartition("/")
    paths = [
        *(f"{folder}%2F{name}", f"{folder}//{name}", f"/artifacts//{url.path[len('/artifacts/') :]}"),
        *(f"{folder}/x/../{name}", f"{folder}/%2e%2e/{name}", f"/artifacts/../artifacts{folder[10:]}/{name}"),
        *(f"{url.path}%00", f"{url.path}%2F", url.path.replace("a", "%61", 1), f"{url.path}.html"),
        f"{folder}/{name}".replace("/artifacts/", "/artifacts/jobs/", 1),
    ]
    connection = http.client.HTTPConnection("127.0.0.1", audio.cloud.port, timeout=EVENT_S)
    statuses: dict[str, int] = {}
    for path in paths:  # httpx would change them
        connection.request("GET", f"{path}?{url.query}", headers={"authorization": f"Bearer {audio.key}"})
        response = connection.getresponse()
        response.read()
        statuses[path] = response.status
    connection.close()
    assert {path: status for path, status in statuses.items() if status != 404} == {}


# RefId


def transcription_request(content: bytes = MP3_START) -> dict[str, Any]:
    file = ("speech.mp3", content, "audio/mpeg")
    return {"url": "/v1/audio/transcriptions", "data": {"model": SCRIPTED_MODEL}, "files": {"file": file}}


def speech_request(text: str = "Hello") -> dict[str, Any]:
    return {"url": "/v1/audio/speech", "json": {"model": SCRIPTED_MODEL, "input": text}}


def chat_request(text: str = "Hello") -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"url": "/v1/chat/completions", "json": {"model": SCRIPTED_MODEL, "messages": messages}}


REPEATABLE_REQUESTS = [
    pytest.param(transcription_request(), TRANSCRIPT, {"content-type": "application/json"}, id="transcription"),
    pytest.param(speech_request(), MP3_START, MP3, id="speech"),
    pytest.param(chat_request(), CHAT, {"content-type": "application/json"}, id="chat"),
]


@pytest.mark.parametrize(("request_", "body", "upstream_headers"), REPEATABLE_REQUESTS)
def test_repeats_during_and_after_the_call_get_its_response(
    request_: dict[str, Any], body: bytes, upstream_headers: dict[str, str], audio: AudioProduct
) -> None:
    caller_has_left = threading.Event()
    audio.upstream.respond_with(200, body, upstream_headers, hold=caller_has_left)
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    for _ in range(2):  # the second one waits for the call of the first one
        with pytest.raises(httpx.ReadTimeout):
            audio.http.post(**request_, headers=headers, timeout=PATIENCE_S)
    caller_has_left.set()
    for _ in range(2):
        response = audio.http.post(**request_, headers=headers)
        assert (response.status_code, response.content) == (200, body)
        assert response.headers["content-type"].startswith(upstream_headers["content-type"])
        assert response.headers["x-replayed"] == "true"
    assert len(audio.upstream.requests) == 1


@needs_flite
def test_repeat_during_slow_speech_gets_the_same_file(audio: AudioProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.speech, "chunk_delay_s", 0.3)
    request = {"model": VOICE_MODEL, "input": HELLO}
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    with audio.http.stream("POST", "/v1/audio/speech", json=request, headers=headers) as response:
        chunks = response.iter_raw()
        start = next(chunks)
        repeated_response = audio.http.post("/v1/audio/speech", json=request, headers=headers)
        speech = start + b"".join(chunks)
    assert repeated_response.headers["x-replayed"] == "true"
    assert repeated_response.content == speech
    assert len(audio.speech.requests) == 1


def test_repeat_by_a_caller_that_left_mid_file_gets_the_file(audio: AudioProduct) -> None:
    caller_has_left = threading.Event()

    def upstream_chunks() -> Iterator[bytes]:
        yield MP3_START
        caller_has_left.wait(EVENT_S)
        yield MP3_END

    audio.upstream.stream_with(upstream_chunks(), MP3)
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    with audio.http.stream("POST", **speech_request(), headers=headers) as response:
        assert next(response.iter_raw()) == MP3_START
    caller_has_left.set()
    repeated_response = audio.http.post(**speech_request(), headers=headers)
    assert (repeated_response.status_code, repeated_response.content) == (200, MP3_START + MP3_END)
    assert repeated_response.headers["x-replayed"] == "true"
    assert len(audio.upstream.requests) == 1


@pytest.mark.parametrize(
    ("first_request", "other_request"),
    [
        pytest.param(transcription_request(), transcription_request(MP3_START + b"x"), id="transcription"),
        pytest.param(speech_request(), speech_request("Bye"), id="speech"),
        pytest.param(chat_request(), chat_request("Bye"), id="chat"),
        pytest.param(speech_request(), chat_request(), id="operation"),
    ],
)
def test_ref_id_of_another_request_is_a_conflict(
    first_request: dict[str, Any], other_request: dict[str, Any], audio: AudioProduct
) -> None:
    bodies = {"/v1/audio/transcriptions": TRANSCRIPT, "/v1/chat/completions": CHAT}
    if body := bodies.get(first_request["url"]):
        audio.upstream.respond_with(200, body)
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    assert audio.http.post(**first_request, headers=headers).status_code == 200
    response = audio.http.post(**other_request, headers=headers)
    assert (response.status_code, response.json()["error"]["param"]) == (409, "refId")
    assert len(audio.upstream.requests) == 1


@pytest.mark.parametrize(
    "request_",
    [transcription_request(), speech_request(), chat_request()],
    ids=["transcription", "speech", "chat"],
)
def test_idempotency_key_is_the_ref_id(request_: dict[str, Any], audio: AudioProduct) -> None:
    if "files" in request_:
        audio.upstream.respond_with(200, TRANSCRIPT)
    ref_id = uuid.uuid4().hex
    member = "data" if "data" in request_ else "json"
    by_key = audio.http.post(**request_, headers={"Idempotency-Key": ref_id})
    repeats = [
        audio.http.post(**request_, headers={"Idempotency-Key": ref_id}),
        audio.http.post(**request_, headers={"X-Ref-Id": ref_id}),
        audio.http.post(**{**request_, member: {**request_[member], "refId": ref_id}}),
    ]
    assert (by_key.status_code, "x-replayed" in by_key.headers) == (200, False)
    assert {(repeat.headers["x-replayed"], repeat.content) for repeat in repeats} == {("true", by_key.content)}
    assert len(audio.upstream.requests) == 1


# Forms at the provider


PARTS = (
    FormPart("timestamp_granularities[]", b"word"),
    FormPart("prompt", "Grüße,\r\n--no boundary".encode()),
    FormPart(
        "file", bytes(range(256)) * 400 + b"\r\n----", "Recording-06.09.2026 23:21.webm", "audio/webm;codecs=opus"
    ),
    FormPart("known_speaker_references[]", b"data:audio/wav;base64,UklGRg=="),
    FormPart("chunking_strategy[type]", b"server_vad"),
    FormPart("timestamp_granularities[]", b"segment"),
    FormPart("temperature", b"0.50"),
    FormPart("x-unknown", b"", "empty", None),
)


def form_with_model(model: str, position: int) -> Form:
    return Form((*PARTS[:position], FormPart("model", model.encode()), *PARTS[position:]))


@pytest.mark.parametrize("position", [0, len(PARTS)], ids=["model first", "model last"])
def test_form_reaches_each_provider_with_all_parts_in_order(position: int, audio: AudioProduct) -> None:
    audio.upstream.respond_with(503, b"{}")
    audio.upstream.respond_with(200, TRANSCRIPT)
    form = form_with_model(FAILOVER_MODEL, position)
    response = audio.http.post("/v1/audio/transcriptions", content=form.body, headers=form.headers)
    assert (response.content, response.headers["x-provider"]) == (TRANSCRIPT, "backup")
    for request, model in zip(audio.upstream.requests, (BUSY_UPSTREAM_MODEL, BACKUP_UPSTREAM_MODEL), strict=True):
        assert parts_at_provider(request) == list(form_with_model(model, position).parts)


def test_queued_form_reaches_the_provider_unchanged(audio: AudioProduct) -> None:
    audio.upstream.respond_with(503, b"{}")
    audio.upstream.respond_with(200, TRANSCRIPT)
    form = form_with_model(FAILOVER_MODEL, 3)
    ref_id = uuid.uuid4().hex
    options = (FormPart("RefId", ref_id.encode()), FormPart("tag", b"form"), FormPart("stream", b"true"))
    queued_form = Form((*options, *form.parts))
    queued = audio.http.post("/v1/queue/audio/transcriptions", content=queued_form.body, headers=queued_form.headers)
    assert (queued.status_code, queued.json()["refId"]) == (202, ref_id)
    assert audio.wait_for_job(ref_id)["state"] == "Completed"
    for request, model in zip(audio.upstream.requests, (BUSY_UPSTREAM_MODEL, BACKUP_UPSTREAM_MODEL), strict=True):
        assert parts_at_provider(request) == list(form_with_model(model, 3).parts)


@pytest.mark.parametrize("content_type", ["application/octet-stream", "audio/x-wav", None])
def test_content_type_of_a_file_is_relayed_as_it_is(content_type: str | None, audio: AudioProduct) -> None:
    audio.upstream.respond_with(200, TRANSCRIPT)
    file = FormPart("file", MP3_START, 'a "b" Việt.mp3'.replace('"', "%22"), content_type)
    form = Form((file, FormPart("model", SCRIPTED_MODEL.encode())))
    assert audio.http.post("/v1/audio/transcriptions", content=form.body, headers=form.headers).status_code == 200
    (request,) = audio.upstream.requests
    received_file, model = parts_at_provider(request)
    assert received_file == replace(file, file_name='a "b" Việt.mp3')
    assert model.content == SCRIPTED_UPSTREAM_MODEL.encode()


def form_of_size(size: int) -> Form:
    """A form of exactly `size` bytes."""
    file, model = FormPart("file", b"", "long.webm", "audio/webm"), FormPart("model", SCRIPTED_MODEL.encode())
    file_size = size - len(Form((file, model)).body)
    content = (b"\xff\x00\r\n-" * (file_size // 5 + 1))[:file_size]
    return Form((replace(file, content=content), model))


@pytest.mark.parametrize("is_queued", [False, True], ids=["sync", "queued"])
def test_form_of_the_maximum_size_reaches_the_provider(is_queued: bool, audio: AudioProduct) -> None:
    audio.upstream.respond_with(200, TRANSCRIPT)
    form = form_of_size(MAX_FORM_BYTES)
    assert len(form.body) == 4_500_000
    path = "/v1/queue/audio/transcriptions" if is_queued else "/v1/audio/transcriptions"
    response = audio.http.post(path, content=form.body, headers=form.headers)
    assert response.status_code == (202 if is_queued else 200), response.text
    if is_queued:
        assert audio.wait_for_job(response.json()["refId"])["state"] == "Completed"
    (request,) = audio.upstream.requests
    assert parts_at_provider(request)[0] == form.parts[0]


@pytest.mark.parametrize(
    "path",
    ["/v1/audio/transcriptions", "/v1/queue/audio/transcriptions", "/api/SpeechToText", "/api/QueueSpeechToText"],
)
def test_form_over_the_maximum_size_is_a_413_with_advice(path: str, audio: AudioProduct) -> None:
    form = form_of_size(MAX_FORM_BYTES + 1)
    response = audio.http.post(path, content=form.body, headers=form.headers)
    assert error_of(response) == (413, "PayloadTooLarge", "invalid_request_error", "request_too_large")
    assert "4,500,000 bytes" in response.json()["error"]["message"]
    assert "split the file" in response.json()["error"]["message"]
    assert audio.upstream.requests == []


# Speech while it arrives, and providers that fail


def test_first_byte_of_speech_arrives_before_the_last_is_sent(audio: AudioProduct) -> None:
    start_received = threading.Event()

    def upstream_chunks() -> Iterator[bytes]:
        yield MP3_START
        if not start_received.wait(EVENT_S):
            raise ConnectionCut
        yield MP3_END

    audio.upstream.stream_with(upstream_chunks(), MP3)
    with audio.http.stream("POST", **speech_request()) as response:
        chunks = response.iter_raw()
        start = next(chunks)
        start_received.set()
        end = b"".join(chunks)
    assert (start, end) == (MP3_START, MP3_END)
    assert response.headers["content-type"] == "audio/mpeg"


@pytest.mark.usefixtures("keep_circuit_closed")
def test_speech_that_breaks_off_is_an_error_without_added_bytes(audio: AudioProduct) -> None:
    start_received = threading.Event()

    def upstream_chunks() -> Iterator[bytes]:
        yield MP3_START
        start_received.wait(EVENT_S)
        raise ConnectionCut

    audio.upstream.stream_with(upstream_chunks(), MP3)
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    body = bytearray()

    def read(response: httpx.Response) -> None:
        for chunk in response.iter_raw():
            body.extend(chunk)
            start_received.set()

    with (
        audio.http.stream("POST", **speech_request(), headers=headers) as response,
        pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
    ):
        read(response)
    assert bytes(body) == MP3_START
    status = audio.http.get("/api/GetArtifactGenerationStatus", params={"refId": headers["X-Ref-Id"]}).json()
    assert (status["jobState"], "results" in status) == ("Failed", False)


@pytest.mark.usefixtures("keep_circuit_closed")
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "audio/mpeg"),
        (b'{"detail":"The voice is not loaded"}', "application/json"),
        (b"<html>Log in</html>", "text/html"),
    ],
    ids=["empty", "JSON", "HTML"],
)
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/api/TextToSpeech"])
def test_response_that_is_not_audio_is_a_502(
    path: str, is_chunked: bool, body: bytes, content_type: str, audio: AudioProduct
) -> None:
    if is_chunked:
        audio.upstream.stream_with([body] if body else [], {"content-type": content_type})
    else:
        audio.upstream.respond_with(200, body, {"content-type": content_type})
    response = audio.http.post(path, json=speech_request()["json"])
    assert response.status_code == 502, response.text
    assert response.headers["x-should-retry"] == "false"
    assert len(audio.upstream.requests) == 1


def test_speech_without_a_content_type_is_octet_stream(audio: AudioProduct, hook: Receiver) -> None:
    no_type = {"x-request-id": "1"}
    audio.upstream.respond_with(200, MP3_START, no_type)
    response = audio.http.post(**speech_request())
    assert (response.headers["content-type"], response.content) == ("application/octet-stream", MP3_START)
    audio.upstream.respond_with(200, MP3_START, no_type)
    request = speech_request()["json"] | {"replyTo": hook.url}
    assert audio.http.post("/v1/queue/audio/speech", json=request).status_code == 202
    callback = hook.next(CALLBACK_S)
    assert (callback.headers["content-type"], callback.body) == ("application/octet-stream", MP3_START)


def test_record_of_a_transcript_that_is_not_utf_8_is_readable(audio: AudioProduct) -> None:
    audio.upstream.respond_with(200, "café".encode("latin-1"), {"content-type": "text/plain"})
    request = transcription_request()
    request["data"] = request["data"] | {"response_format": "text"}
    queued = audio.http.post(**{**request, "url": "/v1/queue/audio/transcriptions"}).json()
    record = audio.wait_for_job(queued["refId"])
    assert (record["state"], record["responseBody"]) == ("Completed", "caf\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_bytes_instead_of_requested_events_are_relayed_as_bytes(is_chunked: bool, audio: AudioProduct) -> None:
    wav = FIXTURE.read_bytes()
    if is_chunked:
        audio.upstream.stream_with([wav[:10_000], wav[10_000:]], WAV)
    else:
        audio.upstream.respond_with(200, wav, WAV)
    request = {"model": SCRIPTED_MODEL, "input": "Hello", "stream_format": "sse"}
    response = audio.http.post("/v1/audio/speech", json=request)
    assert (response.headers["content-type"], response.content) == ("audio/wav", wav)
    assert json.loads(audio.upstream.requests[0].body)["stream_format"] == "sse"
