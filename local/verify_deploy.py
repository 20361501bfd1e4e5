"""`make verify-deploy`: probes a deployment over HTTP and prints expected and observed behavior.

Safe on a real account. The provider receives short prompts limited to 5 tokens (a synchronous chat, two or three jobs)
and to 80 (a streamed chat); thousands of tokens only if SLOW_MODEL names a model. One job is large because of a field
outside its prompt. Bodies at the size limits name an unknown provider. Callbacks go to the deployment itself. Audio is
generated only if SPEECH_MODEL names a model.
"""

import gzip
import json
import os
import sys
import time

import httpx

from local import verify_audio, verify_stream
from local.deployment import (
    CALL_S,
    MB,
    REQUEST_ID_HEADER,
    UNKNOWN_PROVIDER,
    Deployment,
    Probe,
    ProbeResult,
    is_error,
    probe_result,
    response_summary,
)

CALLBACK_S = 90  # if the table's stream does not trigger the delivery, the sweeper does within a minute
SHORT_CHARS = 60  # shown of a result that is as expected
MARKS = {True: "ok", False: "FAIL", None: "--"}
ROW = "{:4}  {:38}  {:43}  {}"


def _health(deployment: Deployment) -> ProbeResult:
    response = deployment.http.get("/health", headers={"authorization": ""})
    return probe_result(response, response.status_code == 200 and response.json() == {"status": "ok"})


def _no_key(deployment: Deployment) -> ProbeResult:
    response = deployment.http.get("/v1/models", headers={"authorization": ""})
    return probe_result(response, is_error(response, 401))


def _header_names(deployment: Deployment) -> ProbeResult:
    """Header names over HTTP/1.1, of a function's response and of API Gateway's."""
    responses = [deployment.http.get("/health"), deployment.http.patch("/v1/models")]
    names = [name.decode() for response in responses for name, _ in response.headers.raw]
    common = {name for name in names if name.lower() in ("content-type", REQUEST_ID_HEADER)}
    return ProbeResult(", ".join(dict.fromkeys(names)), sorted(common) == ["Content-Type", "X-Aiserver-Request-Id"])


def _gzip_body(deployment: Deployment) -> ProbeResult:
    body = gzip.compress(json.dumps(deployment.chat_body(provider=UNKNOWN_PROVIDER)).encode())
    response = deployment.http.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    return probe_result(response, is_error(response, 415))


def _latin_1(deployment: Deployment) -> ProbeResult:
    """Not checked if the body is accepted: API Gateway then did not forward the Content-Length of the request."""
    body = json.dumps(deployment.chat_body(provider=UNKNOWN_PROVIDER, padding="é"), ensure_ascii=False).encode(
        "latin-1"
    )
    response = deployment.http.post("/v1/chat/completions", content=body)
    is_rejected = is_error(response, 400) and "UTF-8" in response.json()["error"]["message"]
    return probe_result(response, True if is_rejected else None)


def _synchronous_chat(deployment: Deployment) -> ProbeResult:
    response = deployment.http.post("/v1/chat/completions", json=deployment.chat_body())
    return probe_result(response, response.status_code == 200 and bool(response.json()["choices"]))


def _queue_job(deployment: Deployment) -> ProbeResult:
    accepted = deployment.queue_chat(deployment.ref_id)
    if accepted.status_code != 202:
        return probe_result(accepted, False)
    deployment.job = deployment.wait_for_job(deployment.ref_id)
    job = deployment.job
    summary = f"{job['state']} after {job['attempts']} attempt(s) {job.get('error', '')}"
    return ProbeResult(summary.strip(), job["state"] == "Completed")


def _status_and_result(deployment: Deployment) -> ProbeResult:
    status = deployment.http.get("/api/GetOpenAiChatStatus", params={"refId": deployment.ref_id})
    result = deployment.http.get(f"/v1/jobs/{deployment.job['id']}/result")
    if result.status_code == 200 and status.json()["result"] == result.json():
        return ProbeResult("the same result", True)
    return ProbeResult(f"status {response_summary(status)}; result {response_summary(result)}", False)


def _same_ref_id(deployment: Deployment) -> ProbeResult:
    response = deployment.queue_chat(deployment.ref_id)
    return probe_result(response, response.status_code == 202 and response.json()["id"] == deployment.job["id"])


def _ref_id_conflict(deployment: Deployment) -> ProbeResult:
    response = deployment.queue_chat(deployment.ref_id, max_tokens=6)
    return probe_result(response, is_error(response, 409))


def _large_job(deployment: Deployment) -> ProbeResult:
    ref_id = f"{deployment.ref_id}-large"
    accepted = deployment.queue_chat(ref_id, padding="x" * MB)
    if accepted.status_code != 202:
        return probe_result(accepted, False)
    job = deployment.wait_for_job(ref_id)
    stored = httpx.get(job["requestUrl"], timeout=CALL_S, trust_env=False)  # a presigned URL: no API key is sent
    is_complete = stored.status_code == 200 and len(stored.json()["padding"]) == MB
    is_rejected = job["state"] == "Failed" and job.get("errorCode") == "ProviderRejected"  # for the unknown field
    summary = f"{job['state']} {job.get('errorCode', '')}".strip()
    return ProbeResult(
        summary if is_complete else f"{summary}; request {response_summary(stored)}",
        is_complete and (is_rejected or job["state"] == "Completed"),
    )


def _callback(deployment: Deployment) -> ProbeResult:
    deadline = time.monotonic() + CALLBACK_S
    while True:
        callback = deployment.http.get("/api/GetOpenAiChatStatus", params={"refId": deployment.ref_id}).json()[
            "callback"
        ]
        if callback["state"] == "Delivered" or time.monotonic() > deadline:
            return ProbeResult(json.dumps(callback), callback["state"] == "Delivered")
        time.sleep(1)


def _test_callback(deployment: Deployment) -> ProbeResult:
    response = deployment.http.post("/api/TestCallback", json={"replyTo": deployment.callback_url})
    return probe_result(response, response.status_code == 200 and response.json()["delivered"])


def _ascii_letters(deployment: Deployment) -> ProbeResult:
    return _rejects_provider(deployment.post_large_chat(4.9))


def _three_byte_letters(deployment: Deployment) -> ProbeResult:
    return _rejects_provider(deployment.post_large_chat(4.9, "語"))


def _rejects_provider(response: httpx.Response) -> ProbeResult:
    """Whether the complete body was read: the response is a 400 for its provider, not for its size."""
    return probe_result(response, is_error(response, 400) and response.json()["error"]["param"] == "provider")


def _quotes(deployment: Deployment) -> ProbeResult:
    response = deployment.post_large_chat(4.9, '"')
    return probe_result(response, is_error(response, 413))


def _too_large(deployment: Deployment) -> ProbeResult:
    response = deployment.post_large_chat(5.1)
    return probe_result(response, is_error(response, 413) and "5 MB" in response.json()["error"]["message"])


PROBES = (
    Probe("GET /health", "200, ok", _health),
    Probe("no API key", "401 in the gateway's error format", _no_key),
    Probe("header names over HTTP/1.1", "Content-Type, X-Aiserver-Request-Id", _header_names),
    Probe("gzip request body", "415 in the gateway's error format", _gzip_body),
    Probe("Latin-1 request body", "400 that names UTF-8", _latin_1),
    Probe("synchronous chat", "200, choices", _synchronous_chat),
    *verify_stream.PROBES,
    Probe("queued job", "Completed", _queue_job),
    Probe("the job's status and result", "the same result", _status_and_result),
    Probe("the job's callback to POST /health", "Delivered", _callback),
    Probe("test callback to POST /health", "200, delivered", _test_callback),
    Probe("same RefId, same body", "202, the same id", _same_ref_id),
    Probe("same RefId, different body", "409 in the gateway's error format", _ref_id_conflict),
    Probe("1 MB job", "stored; Completed or ProviderRejected", _large_job),
    Probe("4.9 MB of ASCII letters", "400 for the provider, not for the size", _ascii_letters),
    Probe("4.9 MB of three-byte letters", "400 for the provider, not for the size", _three_byte_letters),
    Probe("4.9 MB of quotes, longer when escaped", "413 in the gateway's error format", _quotes),
    Probe("5.1 MB", "413 that names the limit of 5 MB", _too_large),
    *verify_audio.PROBES,
)


def main() -> int:
    url, key = os.environ.get("URL", "").rstrip("/"), os.environ.get("KEY", "")
    if not url or not key:
        print("verify-deploy: URL and KEY are required: make verify-deploy URL=https://… KEY=ak-…", file=sys.stderr)
        return 2
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=CALL_S, trust_env=False) as http:
        try:
            models = http.get("/v1/models")
        except httpx.HTTPError as error:
            print(f"verify-deploy: cannot connect to {url}: {error!r}")
            return 1
        try:
            model = os.environ.get("MODEL") or models.json()["data"][0]["id"]
        except (ValueError, LookupError):
            print(f"verify-deploy: no model: set MODEL; {url}/v1/models returned {response_summary(models)}")
            return 1
        deployment = Deployment(
            http,
            model,
            slow_model=os.environ.get("SLOW_MODEL", ""),
            speech_model=os.environ.get("SPEECH_MODEL", ""),
            voice=os.environ.get("VOICE") or "alloy",
            transcription_model=os.environ.get("TRANSCRIPTION_MODEL", ""),
        )
        print(ROW.format("", "probe", "expected", "observed"))
        marks = [_run_probe(probe, deployment) for probe in PROBES]
    unchecked = f", {marks.count(None)} not checked" if None in marks else ""
    print(f"\n{marks.count(True)} of {len(PROBES)} as expected{unchecked}, model {deployment.model}, {url}")
    return 1 if False in marks else 0


def _run_probe(probe: Probe, deployment: Deployment) -> bool | None:
    """Run a probe and print its row; `ok` of its result."""
    try:
        observed = probe.run(deployment)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        observed = ProbeResult(f"{type(error).__name__}: {error}", False)
    text = observed.text[:SHORT_CHARS] if observed.ok else observed.text
    print(ROW.format(MARKS[observed.ok], probe.name, probe.expected, " ".join(text.split())), flush=True)
    return observed.ok


if __name__ == "__main__":
    sys.exit(main())
