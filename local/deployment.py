"""A deployment under test by the probes of `make verify-deploy`: accessed over HTTP with one API key."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

MB = 1024 * 1024
CALL_S = 60
JOB_S = 180  # a hosted provider may request a wait
BUFFERED_S = 29  # API Gateway's timeout of buffered responses, unless the account's quota is raised
UNKNOWN_PROVIDER = "no-such-provider-of-verify-deploy"
MAX_SHOWN_CHARS = 300
# API Gateway names the type of its errors in the second one.
SHOWN_HEADERS = ("content-type", "x-amzn-errortype")
REQUEST_ID_HEADER = "x-aiserver-request-id"  # on every response of the functions
# Likely causes of API Gateway's error responses, by status. Single probes check 413.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
GATEWAY_ERRORS = {
    403: "API Gateway denied access: a WAF, a resource policy, or a URL without the stage",
    404: "API Gateway has no such route: the stage has an older deployment, or the URL lacks the stage",
    500: "API Gateway is not allowed to call the function (lambda:InvokeFunction), or the integration URI is wrong",
    502: "API Gateway received an invalid response head: the function or its wrapper did not start; see its log",
    504: "API Gateway timed out: timeoutInMillis or its idle timeout passed",
}


@dataclass
class Deployment:
    """The deployment under test, and the job and the audio file that one probe leaves for the next.

    `slow_model` needs more than `buffered_s` seconds for a long response; a model whose name is empty is not called.
    """

    http: httpx.Client
    model: str
    slow_model: str = ""
    speech_model: str = ""
    voice: str = "alloy"
    transcription_model: str = ""
    buffered_s: float = BUFFERED_S
    ref_id: str = field(default_factory=lambda: f"verify-{secrets.token_hex(8)}")
    job: Mapping[str, Any] = field(default_factory=dict[str, Any])
    audio: bytes = b""

    @property
    def callback_url(self) -> str:
        """The deployment's own `POST /health`, which needs no API key."""
        return f"{str(self.http.base_url).rstrip('/')}/health"

    def queue_chat(self, ref_id: str, **fields: object) -> httpx.Response:
        """Queue the short chat under a RefId; with a callback for the deployment's first job."""
        headers = {"x-ref-id": ref_id, **({"x-reply-to": self.callback_url} if ref_id == self.ref_id else {})}
        return self.http.post("/v1/queue/chat/completions", json=self.chat_body(**fields), headers=headers)

    def chat_body(self, **fields: object) -> dict[str, object]:
        """The body of a short chat, with additional or replaced `fields`."""
        return {"model": self.model, "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 5, **fields}

    def post_large_chat(self, size_mb: float, fill: str = "x") -> httpx.Response:
        """Send a chat of about `size_mb` MB to an unknown provider: no tokens are consumed, whatever the response."""
        padding = fill * (int(size_mb * MB) // len(json.dumps(fill, ensure_ascii=False).encode()[1:-1]))
        body = json.dumps(self.chat_body(provider=UNKNOWN_PROVIDER, padding=padding), ensure_ascii=False)
        return self.http.post("/v1/chat/completions", content=body.encode())

    def wait_for_job(self, ref_id: str) -> Mapping[str, Any]:
        """The job's record once it has ended, or its current one after JOB_S seconds."""
        deadline = time.monotonic() + JOB_S
        while True:
            job = self.http.get("/api/WaitForOpenAiChat", params={"refId": ref_id}).json()["result"]
            if job["state"] not in ("Queued", "Started") or time.monotonic() > deadline:
                return job


@dataclass(frozen=True)
class ProbeResult:
    """A description of what a probe observed, and whether it is as expected; None when it was not checked."""

    text: str
    ok: bool | None


@dataclass(frozen=True)
class Probe:
    """One row of the printed table."""

    name: str
    expected: str
    run: Callable[[Deployment], ProbeResult]


def is_error(response: httpx.Response, status: int) -> bool:
    """Whether the response has that status and an error body for both OpenAI and ServiceStack clients."""
    try:
        body = response.json()
        error, response_status = body["error"], body["responseStatus"]
        has_codes = bool(response_status["errorCode"] and error["type"] and error["code"])
        return response.status_code == status and has_codes and error["message"] == response_status["message"]
    except (ValueError, LookupError, TypeError):
        return False


def probe_result(response: httpx.Response, ok: bool | None) -> ProbeResult:
    return ProbeResult(response_summary(response), ok)


def response_summary(response: httpx.Response) -> str:
    """Status, SHOWN_HEADERS and the start of the body; with the likely cause when API Gateway sent the response."""
    header_values = [response.headers[name] for name in SHOWN_HEADERS if name in response.headers]
    summary = " ".join([str(response.status_code), *header_values, response.text[:MAX_SHOWN_CHARS]])
    is_from_gateway = "x-amzn-requestid" in response.headers and REQUEST_ID_HEADER not in response.headers
    cause = GATEWAY_ERRORS.get(response.status_code) if is_from_gateway else None
    return f"{summary} ({cause})" if cause else summary
