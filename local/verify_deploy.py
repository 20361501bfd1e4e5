"""Probes a deployment from outside, over HTTP alone, and prints what it saw: what `make verify-deploy` runs.

Safe on a real account: a provider gets short messages with 5 tokens to answer (a sync chat, two or three jobs), with 80
(a streamed chat), and with thousands only where SLOW_MODEL names a model for it. One job is large by a member that is
no part of its prompt. The bodies at the limits name a provider that nobody has. Callbacks go to the deployment itself.
"""

import gzip
import json
import os
import sys
import time

import httpx

from local import verify_stream
from local.deployment import (
    CALL_S,
    MB,
    NOBODY,
    OUR_HEADER,
    Deployment,
    Probe,
    ProbeResult,
    is_error,
    probe_result,
    response_summary,
)

CALLBACK_S = 90  # where the stream did not tell, the sweeper does within a minute
SHORT_CHARS = 60  # of what is as expected
MARKS = {True: "ok", False: "FAIL", None: "--"}
ROW = "{:4}  {:38}  {:43}  {}"


def _health(at: Deployment) -> ProbeResult:
    answer = at.http.get("/health", headers={"authorization": ""})
    return probe_result(answer, answer.status_code == 200 and answer.json() == {"status": "ok"})


def _no_key(at: Deployment) -> ProbeResult:
    answer = at.http.get("/v1/models", headers={"authorization": ""})
    return probe_result(answer, is_error(answer, 401))


def _header_names(at: Deployment) -> ProbeResult:
    """As they arrive over HTTP/1.1: of a function, and of API Gateway itself."""
    answers = [at.http.get("/health"), at.http.patch("/v1/models")]
    names = [name.decode() for answer in answers for name, _ in answer.headers.raw]
    ours = [name for name in names if name.lower() in ("content-type", OUR_HEADER)]
    return ProbeResult(", ".join(dict.fromkeys(names)), sorted(set(ours)) == ["Content-Type", "X-Aiserver-Request-Id"])


def _compressed(at: Deployment) -> ProbeResult:
    body = gzip.compress(json.dumps(at.chat(provider=NOBODY)).encode())
    answer = at.http.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    return probe_result(answer, is_error(answer, 415))


def _latin_1(at: Deployment) -> ProbeResult:
    """Not checked where it came through: API Gateway has then not passed on the Content-Length that was sent."""
    body = json.dumps(at.chat(provider=NOBODY, padding="é"), ensure_ascii=False).encode("latin-1")
    answer = at.http.post("/v1/chat/completions", content=body)
    refused = is_error(answer, 400) and "UTF-8" in answer.json()["error"]["message"]
    return probe_result(answer, True if refused else None)


def _sync(at: Deployment) -> ProbeResult:
    answer = at.http.post("/v1/chat/completions", json=at.chat())
    return probe_result(answer, answer.status_code == 200 and bool(answer.json()["choices"]))


def _queued(at: Deployment) -> ProbeResult:
    accepted = at.queue(at.ref_id)
    if accepted.status_code != 202:
        return probe_result(accepted, False)
    at.job = at.ended(at.ref_id)
    said = f"{at.job['state']} after {at.job['attempts']} attempt(s) {at.job.get('error', '')}"
    return ProbeResult(said.strip(), at.job["state"] == "Completed")


def _result(at: Deployment) -> ProbeResult:
    status = at.http.get("/api/GetOpenAiChatStatus", params={"refId": at.ref_id})
    result = at.http.get(f"/v1/jobs/{at.job['id']}/result")
    same = result.status_code == 200 and status.json()["result"] == result.json()
    return (
        ProbeResult(f"status {response_summary(status)}; result {response_summary(result)}", same)
        if not same
        else ProbeResult("the same answer", True)
    )


def _again(at: Deployment) -> ProbeResult:
    answer = at.queue(at.ref_id)
    return probe_result(answer, answer.status_code == 202 and answer.json()["id"] == at.job["id"])


def _other_body(at: Deployment) -> ProbeResult:
    answer = at.queue(at.ref_id, max_tokens=6)
    return probe_result(answer, is_error(answer, 409))


def _through_the_queue(at: Deployment) -> ProbeResult:
    ref_id = f"{at.ref_id}-large"
    accepted = at.queue(ref_id, padding="x" * MB)
    if accepted.status_code != 202:
        return probe_result(accepted, False)
    job = at.ended(ref_id)
    kept = httpx.get(job["requestUrl"], timeout=CALL_S, trust_env=False)  # signed: it needs no key, and gets none
    whole = kept.status_code == 200 and len(kept.json()["padding"]) == MB
    refused = job["state"] == "Failed" and job.get("errorCode") == "ProviderRejected"  # it knows no such member
    words = f"{job['state']} {job.get('errorCode', '')}".strip()
    return ProbeResult(
        words if whole else f"{words}; request {response_summary(kept)}",
        whole and (refused or job["state"] == "Completed"),
    )


def _callback(at: Deployment) -> ProbeResult:
    until = time.monotonic() + CALLBACK_S
    while True:
        callback = at.http.get("/api/GetOpenAiChatStatus", params={"refId": at.ref_id}).json()["callback"]
        if callback["state"] == "Delivered" or time.monotonic() > until:
            return ProbeResult(json.dumps(callback), callback["state"] == "Delivered")
        time.sleep(1)


def _sample(at: Deployment) -> ProbeResult:
    answer = at.http.post("/api/TestCallback", json={"replyTo": at.receiver})
    return probe_result(answer, answer.status_code == 200 and answer.json()["delivered"])


def _letters(at: Deployment) -> ProbeResult:
    return _read_whole(at.large(4.9))


def _other_letters(at: Deployment) -> ProbeResult:
    return _read_whole(at.large(4.9, "語"))


def _read_whole(answer: httpx.Response) -> ProbeResult:
    return probe_result(answer, is_error(answer, 400) and answer.json()["error"]["param"] == "provider")


def _quotes(at: Deployment) -> ProbeResult:
    answer = at.large(4.9, '"')
    return probe_result(answer, is_error(answer, 413))


def _too_large(at: Deployment) -> ProbeResult:
    answer = at.large(5.1)
    return probe_result(answer, is_error(answer, 413) and "over 5 MB" in answer.json()["error"]["message"])


PROBES = (
    Probe("GET /health", "200, ok", _health),
    Probe("no key", "401 in our error shape", _no_key),
    Probe("header names over HTTP/1.1", "Content-Type, X-Aiserver-Request-Id", _header_names),
    Probe("a gzip request body", "415 in our error shape", _compressed),
    Probe("a Latin-1 request body", "400 that names UTF-8", _latin_1),
    Probe("a sync chat", "200, choices", _sync),
    *verify_stream.PROBES,
    Probe("a queued job", "Completed", _queued),
    Probe("its status and its result", "the same answer", _result),
    Probe("its callback, to its own POST /health", "Delivered", _callback),
    Probe("a sample callback to there", "200, delivered", _sample),
    Probe("its RefId and body again", "202, the same id", _again),
    Probe("its RefId, another body", "409 in our error shape", _other_body),
    Probe("1 MB through the queue", "kept whole; Completed, or refused by provider", _through_the_queue),
    Probe("4.9 MB of letters", "400 for its provider: it came through", _letters),
    Probe("4.9 MB of letters of three bytes", "400 for its provider: it came through", _other_letters),
    Probe("4.9 MB of quotes, more when escaped", "413 in our error shape", _quotes),
    Probe("5.1 MB", "413 in our words", _too_large),
)


def main() -> int:
    url, key = os.environ.get("URL", "").rstrip("/"), os.environ.get("KEY", "")
    if not url or not key:
        print("verify-deploy: give the base URL and a key: make verify-deploy URL=https://… KEY=ak-…", file=sys.stderr)
        return 2
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=CALL_S, trust_env=False) as http:
        try:
            models = http.get("/v1/models")
        except httpx.HTTPError as error:
            print(f"verify-deploy: {url} cannot be reached: {error!r}")
            return 1
        try:
            model = os.environ.get("MODEL") or models.json()["data"][0]["id"]
        except (ValueError, LookupError):
            print(f"verify-deploy: no model: set MODEL, or see why {url}/v1/models answers {response_summary(models)}")
            return 1
        at = Deployment(http, model, os.environ.get("SLOW_MODEL", ""))
        print(ROW.format("", "probe", "expected", "seen"))
        marks = [_row(probe, at) for probe in PROBES]
    unchecked = f", {marks.count(None)} not checked" if None in marks else ""
    print(f"\n{marks.count(True)} of {len(PROBES)} as expected{unchecked}, model {at.model}, {url}")
    return 1 if False in marks else 0


def _row(probe: Probe, at: Deployment) -> bool | None:
    try:
        seen = probe.run(at)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        seen = ProbeResult(f"{type(error).__name__}: {error}", False)
    words = seen.words[:SHORT_CHARS] if seen.ok else seen.words
    print(ROW.format(MARKS[seen.ok], probe.name, probe.expected, " ".join(words.split())), flush=True)
    return seen.ok


if __name__ == "__main__":
    sys.exit(main())
