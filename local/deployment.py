"""A deployment as the probes of `make verify-deploy` see it: over HTTP, with one key."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

MB = 1024 * 1024
CALL_S = 60
JOB_S = 180  # a hosted provider may ask us to wait
BUFFERED_S = 29  # an answer that is not streamed ends then, in an account whose quota nobody raised
NOBODY = "no-such-provider-of-verify-deploy"
MAX_SHOWN_CHARS = 300
# How API Gateway names the kind of its own answers.
SHOWN_HEADERS = ("content-type", "x-amzn-errortype")
OUR_HEADER = "x-aiserver-request-id"  # on every answer that the functions gave
# What it means when API Gateway answers itself, by status. A 413 is a probe's own matter.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
OWN_ANSWERS = {
    403: "API Gateway lets this caller do nothing: a WAF, a resource policy, or an address that is not the stage's",
    404: "API Gateway has no such route: the stage is an older deployment's, or the address lacks the stage",
    500: "API Gateway may not call the function (lambda:InvokeFunction), or the integration's URI is wrong",
    502: "API Gateway got no head that it understands: the function, or its wrapper, did not start; its log says why",
    504: "API Gateway gave up waiting: timeoutInMillis, or nothing came for its idle time",
}


@dataclass
class Deployment:
    """What is probed, and the job that one probe leaves for the next.

    `slow_model` takes longer than `buffered_s`, in seconds, for a long answer; empty: nobody asks it.
    """

    http: httpx.Client
    model: str
    slow_model: str = ""
    buffered_s: float = BUFFERED_S
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
class ProbeResult:
    """What a probe saw, in words, and whether that is as it should be; None where it was not checked."""

    words: str
    ok: bool | None


@dataclass(frozen=True)
class Probe:
    """One line of the table."""

    name: str
    expected: str
    run: Callable[[Deployment], ProbeResult]


def is_error(answer: httpx.Response, status: int) -> bool:
    """Whether it is an error of that status which both families of clients understand."""
    try:
        shown = answer.json()
        both = bool(shown["responseStatus"]["errorCode"] and shown["error"]["type"] and shown["error"]["code"])
        return answer.status_code == status and both and shown["error"]["message"] == shown["responseStatus"]["message"]
    except (ValueError, LookupError, TypeError):
        return False


def probe_result(answer: httpx.Response, ok: bool | None) -> ProbeResult:
    return ProbeResult(response_summary(answer), ok)


def response_summary(answer: httpx.Response) -> str:
    """The answer, exactly, as far as it is short; and what it means, where API Gateway gave it."""
    sent = [answer.headers[name] for name in SHOWN_HEADERS if name in answer.headers]
    words = " ".join([str(answer.status_code), *sent, answer.text[:MAX_SHOWN_CHARS]])
    is_its_own = "x-amzn-requestid" in answer.headers and OUR_HEADER not in answer.headers
    meaning = OWN_ANSWERS.get(answer.status_code) if is_its_own else None
    return f"{words} ({meaning})" if meaning else words
