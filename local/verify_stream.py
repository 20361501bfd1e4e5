"""The probes of `make verify-deploy` that need AWS: whether responses stream, and how long they may take.

Two of them call a provider, limited to 80 tokens and to 5; a third one with LONG_TOKENS if SLOW_MODEL is set.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from local.deployment import (
    JOB_S,
    UNKNOWN_PROVIDER,
    Deployment,
    Probe,
    ProbeResult,
    is_error,
    probe_result,
    response_summary,
)

CHAT = "/v1/chat/completions"
EVENTS = "/v1/jobs/{id}/events"
# The routes that use response streaming in template.yaml, also for requests without `stream`.
STREAMED_ROUTES = (
    *(CHAT, "/api/OpenAiChatCompletion", "/v1/embeddings", "/v1/responses", "/api/SpeechToText", "/api/TextToSpeech"),
    *("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech"),
)
COUNT: dict[str, object] = {
    "messages": [{"role": "user", "content": "Count from one to thirty, in words."}],
    "max_tokens": 80,
}
LONG_TOKENS = 4000  # 50 s at 80 tokens a second, the speed of fast hosted models
LONG_COUNT: dict[str, object] = {
    "messages": [{"role": "user", "content": "Count from one to one thousand, in words, without leaving any out."}],
    "max_tokens": LONG_TOKENS,
}
LONG_S = 900
READ_GAP_S = 0.001  # chunks that are closer together count as one read
MIN_SPREAD = 0.1  # least share of the total time between the first chunk and the last


@dataclass(frozen=True)
class TimedResponse:
    """A response that was read as it arrived; `arrivals_s` has the time of each chunk in seconds after the request."""

    response: httpx.Response
    text: str
    arrivals_s: list[float]

    @property
    def data(self) -> list[str]:
        """The data of its events."""
        return [line[5:].strip() for line in self.text.splitlines() if line.startswith("data:")]

    @property
    def is_stream(self) -> bool:
        content_type = self.response.headers.get("content-type", "")
        return self.response.status_code == 200 and content_type.startswith("text/event-stream")

    @property
    def is_incremental(self) -> bool:
        """Whether it was sent while it was generated. API Gateway adds Content-Length to buffered responses."""
        if not self.arrivals_s or "content-length" in self.response.headers:
            return False
        first, last = self.arrivals_s[0], self.arrivals_s[-1]
        return last - first > MIN_SPREAD * last

    @property
    def times(self) -> str:
        """Number of events and reads, and the times of the first and the last chunk."""
        if not self.arrivals_s:
            return "nothing arrived"
        first, last = self.arrivals_s[0], self.arrivals_s[-1]
        return (
            f"{len(self.data)} events, {self._reads} reads, first after {first:.2f} s, last {last - first:.2f} s later"
        )

    @property
    def _reads(self) -> int:
        gaps = (after - before for before, after in zip(self.arrivals_s, self.arrivals_s[1:], strict=False))
        return sum(gap > READ_GAP_S for gap in gaps) + 1


def read_response(
    deployment: Deployment, method: str, path: str, body: Mapping[str, object] | None = None
) -> TimedResponse:
    """Send a request and read the response for at most JOB_S seconds."""
    started_at = time.monotonic()
    arrivals_s: list[float] = []
    content = bytearray()
    with deployment.http.stream(method, path, json=body, headers={"accept-encoding": "identity"}) as response:
        if response.status_code != 200:
            response.read()
            return TimedResponse(response, response.text, [])
        for chunk in response.iter_bytes():
            arrivals_s.append(time.monotonic() - started_at)
            content += chunk
            if arrivals_s[-1] > JOB_S:
                break
    return TimedResponse(response, content.decode("utf-8", "replace"), arrivals_s)


def probe_empty_requests(deployment: Deployment) -> ProbeResult:
    """Whether each route reaches its function and returns its error with its status; no tokens are consumed."""
    responses = [deployment.http.post(path, json={}) for path in STREAMED_ROUTES]
    failures = [
        f"{path}: {response_summary(response)}"
        for path, response in zip(STREAMED_ROUTES, responses, strict=True)
        if not is_error(response, 400)
    ]
    return ProbeResult("; ".join(failures), False) if failures else probe_result(responses[0], True)


def probe_streamed_chat(deployment: Deployment) -> ProbeResult:
    chat = read_response(deployment, "POST", CHAT, deployment.chat_body(**COUNT, stream=True))
    if chat.response.status_code != 200:
        return probe_result(chat.response, False)
    if not chat.is_stream:
        return ProbeResult(f"200 {chat.response.headers.get('content-type')} {chat.text[:300]}", False)
    if chat.data[-1:] != ["[DONE]"]:
        return ProbeResult(f"the stream ends without [DONE]: {chat.data[-1:]}; {chat.times}", False)
    if not chat.is_incremental:
        return ProbeResult(f"all at once: ResponseMode is BUFFERED, or a proxy buffers; {chat.times}", False)
    return ProbeResult(chat.times, True)


def probe_rejected_stream(deployment: Deployment) -> ProbeResult:
    response = deployment.http.post(CHAT, json=deployment.chat_body(provider=UNKNOWN_PROVIDER, stream=True))
    return probe_result(
        response, is_error(response, 400) and response.headers["content-type"].startswith("application/json")
    )


def probe_long_response(deployment: Deployment) -> ProbeResult:
    """A response that is not streamed and takes longer than API Gateway's timeout of buffered responses."""
    if not deployment.slow_model:
        return ProbeResult(f"not checked: set SLOW_MODEL (up to {LONG_TOKENS} tokens)", None)
    started_at = time.monotonic()
    response = deployment.http.post(
        CHAT, json=deployment.chat_body(**LONG_COUNT, model=deployment.slow_model), timeout=LONG_S
    )
    duration_s = time.monotonic() - started_at
    if response.status_code != 200:
        return ProbeResult(f"after {duration_s:.1f} s: {response_summary(response)}", False)
    if duration_s <= deployment.buffered_s:
        return ProbeResult(f"not checked: finished after {duration_s:.1f} s; set SLOW_MODEL to a slower model", None)
    return ProbeResult(f"200 after {duration_s:.1f} s", True)


def probe_job_events(deployment: Deployment) -> ProbeResult:
    """The events of a queued job until it has ended."""
    accepted = deployment.queue_chat(f"{deployment.ref_id}-watched")
    if accepted.status_code != 202:
        return probe_result(accepted, False)
    events = read_response(deployment, "GET", EVENTS.format(id=accepted.json()["id"]))
    if events.response.status_code != 200:
        return probe_result(events.response, False)
    if not events.is_stream:
        return ProbeResult(events.text[:300], False)
    states = [state for state in map(_job_state, events.data) if state]
    return ProbeResult(", ".join(states) or f"no event with a jobState; {events.times}", states[-1:] == ["Completed"])


def _job_state(data: str) -> str:
    try:
        event: Any = json.loads(data)
        return str(event["jobState"])
    except (ValueError, LookupError, TypeError):  # [DONE], or an event of another type
        return ""


JOB_EVENTS_PROBE = Probe("events of a queued job", "Completed as the last state", probe_job_events)
PROBES = (
    Probe("streaming routes, empty request", "400 in the gateway's error format", probe_empty_requests),
    Probe("streamed chat", "events as they are generated, [DONE]", probe_streamed_chat),
    Probe("rejected streamed chat", "400 in the gateway's error format, JSON", probe_rejected_stream),
    Probe("long response, not streamed", "200 after more than 29 s", probe_long_response),
    JOB_EVENTS_PROBE,
)
