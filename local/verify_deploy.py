"""Probes a deployment from outside, over HTTP alone, and prints what it saw: what `make verify-deploy` runs.

Safe on a real account: three calls reach a provider, each with one short message and few tokens to answer. One of them
is large by a member that is no part of its prompt. The bodies at the limits name a provider that nobody has.
Callbacks of its jobs go to the deployment itself.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

MB = 1024 * 1024
CALL_S = 60
JOB_S = 180  # a hosted provider may ask us to wait
CALLBACK_S = 90  # where the stream did not tell, the sweeper does within a minute
NOBODY = "no-such-provider-of-verify-deploy"
MAX_SHOWN_CHARS = 300
SHORT_CHARS = 60  # of what is as expected
# How API Gateway names the kind of its own answers.
SHOWN_HEADERS = ("content-type", "x-amzn-errortype")
ROW = "{:4}  {:37}  {:43}  {}"


@dataclass
class Deployment:
    """What is probed, and the job that one probe leaves for the next."""

    http: httpx.Client
    model: str
    ref_id: str = field(default_factory=lambda: f"verify-{secrets.token_hex(8)}")
    job: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def receiver(self) -> str:
        """Where callbacks go: the deployment itself, which takes a POST there without a key."""
        return f"{str(self.http.base_url).rstrip('/')}/health"

    def queue(self, ref_id: str, **more: object) -> httpx.Response:
        """Queue the short chat under a RefId."""
        headers = {"x-ref-id": ref_id, **({"x-reply-to": self.receiver} if ref_id == self.ref_id else {})}
        return self.http.post("/v1/queue/chat/completions", json=self.chat(**more), headers=headers)

    def chat(self, **more: object) -> dict[str, object]:
        return {"model": self.model, "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 5, **more}

    def large(self, size: float, fill: str = "x") -> httpx.Response:
        """A chat of about `size` MB for a provider that nobody has: nothing is bought, whatever happens to it."""
        padding = fill * (int(size * MB) // len(json.dumps(fill, ensure_ascii=False).encode()[1:-1]))
        body = json.dumps(self.chat(provider=NOBODY, padding=padding), ensure_ascii=False)
        return self.http.post("/v1/chat/completions", content=body.encode())

    def ended(self, ref_id: str) -> Mapping[str, Any]:
        """The job's record when it has ended, or as it stands when our patience has."""
        until = time.monotonic() + JOB_S
        while True:
            told = self.http.get("/api/WaitForOpenAiChat", params={"refId": ref_id}).json()["result"]
            if told["state"] not in ("Queued", "Started") or time.monotonic() > until:
                return told


@dataclass(frozen=True)
class Seen:
    """What a probe saw, in words, and whether that is as it should be."""

    words: str
    ok: bool


@dataclass(frozen=True)
class Probe:
    """One line of the table."""

    name: str
    expected: str
    run: Callable[[Deployment], Seen]


def _health(at: Deployment) -> Seen:
    answer = at.http.get("/health", headers={"authorization": ""})
    return _seen(answer, answer.status_code == 200 and answer.json() == {"status": "ok"})


def _no_key(at: Deployment) -> Seen:
    answer = at.http.get("/v1/models", headers={"authorization": ""})
    return _seen(answer, _is_error(answer, 401))


def _sync(at: Deployment) -> Seen:
    answer = at.http.post("/v1/chat/completions", json=at.chat())
    return _seen(answer, answer.status_code == 200 and bool(answer.json()["choices"]))


def _passed_through(at: Deployment) -> Seen:
    """Requests without what they need: the routes are there, and nothing is bought."""
    answers = [at.http.post(path, json={}) for path in ("/v1/embeddings", "/v1/responses")]
    return _seen(answers[0], all(_is_error(answer, 400) for answer in answers))


def _queued(at: Deployment) -> Seen:
    accepted = at.queue(at.ref_id)
    if accepted.status_code != 202:
        return _seen(accepted, False)
    at.job = at.ended(at.ref_id)
    said = f"{at.job['state']} after {at.job['attempts']} attempt(s) {at.job.get('error', '')}"
    return Seen(said.strip(), at.job["state"] == "Completed")


def _result(at: Deployment) -> Seen:
    status = at.http.get("/api/GetOpenAiChatStatus", params={"refId": at.ref_id})
    result = at.http.get(f"/v1/jobs/{at.job['id']}/result")
    same = result.status_code == 200 and status.json()["result"] == result.json()
    return Seen(f"status {_told(status)}; result {_told(result)}", same) if not same else Seen("the same answer", True)


def _again(at: Deployment) -> Seen:
    answer = at.queue(at.ref_id)
    return _seen(answer, answer.status_code == 202 and answer.json()["id"] == at.job["id"])


def _other_body(at: Deployment) -> Seen:
    answer = at.queue(at.ref_id, max_tokens=6)
    return _seen(answer, _is_error(answer, 409))


def _through_the_queue(at: Deployment) -> Seen:
    ref_id = f"{at.ref_id}-large"
    accepted = at.queue(ref_id, padding="x" * MB)
    if accepted.status_code != 202:
        return _seen(accepted, False)
    job = at.ended(ref_id)
    kept = httpx.get(job["requestUrl"], timeout=CALL_S, trust_env=False)  # signed: it needs no key, and gets none
    whole = kept.status_code == 200 and len(kept.json()["padding"]) == MB
    refused = job["state"] == "Failed" and job.get("errorCode") == "ProviderRejected"  # it knows no such member
    words = f"{job['state']} {job.get('errorCode', '')}".strip()
    return Seen(
        words if whole else f"{words}; request {_told(kept)}", whole and (refused or job["state"] == "Completed")
    )


def _callback(at: Deployment) -> Seen:
    until = time.monotonic() + CALLBACK_S
    while True:
        told = at.http.get("/api/GetOpenAiChatStatus", params={"refId": at.ref_id}).json()["callback"]
        if told["state"] == "Delivered" or time.monotonic() > until:
            return Seen(json.dumps(told), told["state"] == "Delivered")
        time.sleep(1)


def _sample(at: Deployment) -> Seen:
    answer = at.http.post("/api/TestCallback", json={"replyTo": at.receiver})
    return _seen(answer, answer.status_code == 200 and answer.json()["delivered"])


def _letters(at: Deployment) -> Seen:
    return _read_whole(at.large(4.9))


def _other_letters(at: Deployment) -> Seen:
    return _read_whole(at.large(4.9, "語"))


def _read_whole(answer: httpx.Response) -> Seen:
    return _seen(answer, _is_error(answer, 400) and answer.json()["error"]["param"] == "provider")


def _quotes(at: Deployment) -> Seen:
    answer = at.large(4.9, '"')
    return _seen(answer, _is_error(answer, 413))


def _too_large(at: Deployment) -> Seen:
    answer = at.large(5.1)
    return _seen(answer, _is_error(answer, 413) and "over 5 MB" in answer.json()["error"]["message"])


PROBES = (
    Probe("GET /health", "200, ok", _health),
    Probe("no key", "401 in our error shape", _no_key),
    Probe("a sync chat", "200, choices", _sync),
    Probe("empty embeddings, an empty response", "400 in our error shape", _passed_through),
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
            at = Deployment(http, os.environ.get("MODEL") or models.json()["data"][0]["id"])
        except (ValueError, LookupError):
            print(f"verify-deploy: no model: set MODEL, or see why {url}/v1/models answers {_told(models)}")
            return 1
        print(ROW.format("", "probe", "expected", "seen"))
        failed = sum(not _row(probe, at) for probe in PROBES)
    print(f"\n{len(PROBES) - failed} of {len(PROBES)} as expected, model {at.model}, {url}")
    return 1 if failed else 0


def _row(probe: Probe, at: Deployment) -> bool:
    try:
        seen = probe.run(at)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        seen = Seen(f"{type(error).__name__}: {error}", False)
    words = seen.words[:SHORT_CHARS] if seen.ok else seen.words
    print(ROW.format("ok" if seen.ok else "FAIL", probe.name, probe.expected, " ".join(words.split())), flush=True)
    return seen.ok


def _is_error(answer: httpx.Response, status: int) -> bool:
    """Whether it is an error of that status which both families of clients understand."""
    try:
        told = answer.json()
        both = bool(told["responseStatus"]["errorCode"] and told["error"]["type"] and told["error"]["code"])
        return answer.status_code == status and both and told["error"]["message"] == told["responseStatus"]["message"]
    except (ValueError, LookupError, TypeError):
        return False


def _seen(answer: httpx.Response, ok: bool) -> Seen:
    return Seen(_told(answer), ok)


def _told(answer: httpx.Response) -> str:
    """The answer, exactly, as far as it is short."""
    sent = [answer.headers[name] for name in SHOWN_HEADERS if name in answer.headers]
    return " ".join([str(answer.status_code), *sent, answer.text[:MAX_SHOWN_CHARS]])


if __name__ == "__main__":
    sys.exit(main())
