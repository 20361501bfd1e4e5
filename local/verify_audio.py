"""The probes of `make verify-deploy` for forms, binary responses and artifacts.

Two of them call a provider if SPEECH_MODEL names a model, with a sentence of 20 characters; one queues a transcription
of the result if TRANSCRIPTION_MODEL names one.
"""

import hashlib
import json
from collections.abc import Iterator

import httpx

from aiserver.limits import MAX_FORM_BYTES
from local.deployment import CALL_S, Deployment, Probe, ProbeResult, is_error, probe_result, response_summary

SENTENCE = "Hello, how are you?"
ALL_BYTES = bytes(range(256)) * 64
BOUNDARY = "verify-deploy"
NOT_CHECKED = "not checked: set {}"


def _form(deployment: Deployment) -> ProbeResult:
    """Not billed: the form lacks `model`, which the function finds out after parsing all parts."""
    response = deployment.http.post("/v1/audio/transcriptions", files={"file": ("a.wav", ALL_BYTES, "audio/wav")})
    return probe_result(response, _rejects_model(response))


def _chunked_form(deployment: Deployment) -> ProbeResult:
    """The same form without Content-Length, as Node's SDK sends streams."""

    def chunks() -> Iterator[bytes]:
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
        yield ALL_BYTES
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    response = deployment.http.post("/v1/audio/transcriptions", content=chunks(), headers=headers)
    return probe_result(response, _rejects_model(response))


def _large_form(deployment: Deployment) -> ProbeResult:
    content = bytes(MAX_FORM_BYTES)  # with its headers the form exceeds the limit
    response = deployment.http.post("/v1/audio/transcriptions", files={"file": ("a.wav", content, "audio/wav")})
    return probe_result(
        response, is_error(response, 413) and f"{MAX_FORM_BYTES:,}" in response.json()["error"]["message"]
    )


def _rejects_model(response: httpx.Response) -> bool:
    return is_error(response, 400) and response.json()["error"]["param"] == "model"


def _speech(deployment: Deployment) -> ProbeResult:
    """A binary response: bytes, and not text in base64."""
    if not deployment.speech_model:
        return ProbeResult(NOT_CHECKED.format("SPEECH_MODEL"), None)
    body = {"model": deployment.speech_model, "input": SENTENCE, "voice": deployment.voice}
    response = deployment.http.post("/v1/audio/speech", json=body, follow_redirects=True)
    if response.status_code != 200:
        return probe_result(response, False)
    deployment.audio = response.content
    kind = response.headers["content-type"]
    return ProbeResult(
        f"{len(response.content)} bytes of {kind}", kind.startswith("audio/") and not _is_base64(response)
    )


def _is_base64(response: httpx.Response) -> bool:
    return response.content[:64].isalnum()


def _artifact(deployment: Deployment) -> ProbeResult:
    """Its URL without an API key, for GET and HEAD; a changed signature is a 404."""
    if not deployment.speech_model:
        return ProbeResult(NOT_CHECKED.format("SPEECH_MODEL"), None)
    body = {"model": f"{deployment.speech_model}:{deployment.voice}", "input": SENTENCE}
    response = deployment.http.post("/api/TextToSpeech", json=body)
    if response.status_code != 200:
        return probe_result(response, False)
    url = response.json()["results"][0]["url"]
    with httpx.Client(timeout=CALL_S, trust_env=False, follow_redirects=True) as anonymous:
        file, head, forged = anonymous.get(url), anonymous.head(url), anonymous.get(f"{url}0")
    statuses = (file.status_code, head.status_code, forged.status_code)
    return ProbeResult(f"GET {statuses[0]}, HEAD {statuses[1]}, forged {statuses[2]}", statuses == (200, 200, 404))


def _stored_form(deployment: Deployment) -> ProbeResult:
    """A queued form: the job's record contains the hash of the file that arrived."""
    if not deployment.transcription_model or not deployment.audio:
        return ProbeResult(NOT_CHECKED.format("SPEECH_MODEL and TRANSCRIPTION_MODEL"), None)
    ref_id = f"{deployment.ref_id}-audio"
    form = {"model": deployment.transcription_model, "refId": ref_id}
    files = {"file": ("hello.mp3", deployment.audio, "audio/mpeg")}
    accepted = deployment.http.post("/v1/queue/audio/transcriptions", data=form, files=files)
    if accepted.status_code != 202:
        return ProbeResult(response_summary(accepted), False)
    job = deployment.wait_for_job(ref_id)
    parts = {part["name"]: part for part in json.loads(job["requestBody"])}
    is_intact = parts["file"]["sha256"] == hashlib.sha256(deployment.audio).hexdigest()
    return ProbeResult(f"{job['state']}, the file is {'intact' if is_intact else 'damaged'}", is_intact)


PROBES = (
    Probe("form with a binary file", "400 for the missing model", _form),
    Probe("chunked form", "400 for the missing model", _chunked_form),
    Probe("form over the limit", "413 that names the limit", _large_form),
    Probe("speech", "bytes of audio", _speech),
    Probe("artifact, without an API key", "GET 200, HEAD 200, forged 404", _artifact),
    Probe("queued form", "the file is intact", _stored_form),
)
