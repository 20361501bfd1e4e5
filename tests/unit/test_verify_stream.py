"""Results of `make verify-deploy` for simulated deployments that do not stream or truncate streams."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager

import httpx
import pytest

from local.deployment import REQUEST_ID_HEADER, Deployment, ProbeResult
from local.scripted import ScriptedProvider
from local.verify_stream import (
    JOB_EVENTS_PROBE,
    TimedResponse,
    probe_empty_requests,
    probe_long_response,
    probe_rejected_stream,
    probe_streamed_chat,
)

SSE = {"content-type": "text/event-stream; charset=utf-8", REQUEST_ID_HEADER: "r-1"}
API_GATEWAY = {"content-type": "application/json", "x-amzn-requestid": "g-1"}
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
REJECTION = {
    "responseStatus": {"errorCode": "ValidationException", "message": "no"},
    "error": {"message": "no", "type": "invalid_request_error", "code": "invalid_request"},
}


def run_probe(
    probe: Callable[[Deployment], ProbeResult], respond: Callable[[httpx.Request], httpx.Response]
) -> ProbeResult:
    """The result of a probe for a deployment with these responses."""
    with httpx.Client(base_url="https://api.example", transport=httpx.MockTransport(respond)) as http:
        return probe(Deployment(http, "m", slow_model="m", buffered_s=0.2))


@contextmanager
def streaming(*, response_delay_s: float = 0, chunk_delay_s: float = 0) -> Generator[httpx.Client]:
    """A client of a real server that streams with delays, in place of a deployment."""
    with ScriptedProvider(response_delay_s=response_delay_s, chunk_delay_s=chunk_delay_s) as upstream:
        origin = upstream.base_url.removesuffix("/v1")
        with httpx.Client(base_url=origin, trust_env=False) as http:
            yield http


def test_streamed_chat_reports_events_and_times() -> None:
    with streaming(chunk_delay_s=0.01) as http:
        result = probe_streamed_chat(Deployment(http, "m"))
    assert result.ok, result.text
    assert result.text.startswith("20 events, ")


def test_buffered_stream_fails() -> None:
    content = [CHUNK * 30 + DONE]
    result = run_probe(probe_streamed_chat, lambda _: httpx.Response(200, headers=SSE, content=iter(content)))
    assert (result.ok, result.text.partition(":")[0]) == (False, "all at once")
    assert "31 events, 1 reads" in result.text


@pytest.mark.parametrize(
    ("arrivals_s", "headers", "is_incremental"),
    [
        ([0.5, 0.6, 0.7], {}, True),
        ([0.5, 0.6, 0.7], {"content-length": "900"}, False),  # buffered, and then sent over a slow connection
        ([1.0, 3.0], {}, True),
        ([5.0, 5.1], {}, False),
        ([0.5, 0.5004, 0.5008], {}, False),
        ([], {}, False),
    ],
)
def test_stream_is_incremental_if_its_chunks_are_spread_over_time(
    arrivals_s: list[float], headers: dict[str, str], is_incremental: bool
) -> None:
    assert TimedResponse(httpx.Response(200, headers=SSE | headers), "", arrivals_s).is_incremental == is_incremental


def test_truncated_stream_reports_its_last_event() -> None:
    chunks = [CHUNK, b'data: {"error":{"message":"interrupted"}}\n\n']
    result = run_probe(probe_streamed_chat, lambda _: httpx.Response(200, headers=SSE, content=iter(chunks)))
    assert (result.ok, "interrupted" in result.text) == (False, True)


def test_json_response_to_a_streamed_chat_fails() -> None:
    result = run_probe(probe_streamed_chat, lambda _: httpx.Response(200, json={"choices": []}))
    assert (result.ok, result.text) == (False, '200 application/json {"choices":[]}')


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(500, "lambda:InvokeFunction"), (502, "wrapper"), (403, "WAF"), (404, "no such route"), (504, "timeoutInMillis")],
)
@pytest.mark.parametrize(
    "probe",
    [probe_streamed_chat, probe_empty_requests, probe_rejected_stream, probe_long_response, JOB_EVENTS_PROBE.run],
)
def test_api_gateway_errors_are_explained(
    probe: Callable[[Deployment], ProbeResult], status: int, meaning: str
) -> None:
    result = run_probe(
        probe, lambda _: httpx.Response(status, headers=API_GATEWAY, json={"message": "Internal server error"})
    )
    assert (result.ok, meaning in result.text) == (False, True), result.text


def test_function_error_is_not_attributed_to_api_gateway() -> None:
    headers = {**API_GATEWAY, REQUEST_ID_HEADER: "r-1"}
    result = run_probe(probe_streamed_chat, lambda _: httpx.Response(502, headers=headers, json=REJECTION))
    assert (result.ok, "API Gateway" in result.text) == (False, False)


def test_route_that_does_not_reach_its_function_is_named() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/responses":
            return httpx.Response(500, headers=API_GATEWAY, json={"message": None})
        return httpx.Response(400, headers={REQUEST_ID_HEADER: "r-1"}, json=REJECTION)

    result = run_probe(probe_empty_requests, respond)
    assert (result.ok, result.text.partition(":")[0]) == (False, "/v1/responses")


def test_error_sent_as_a_stream_fails() -> None:
    body, json_headers = json.dumps(REJECTION).encode(), {"content-type": "application/json"}
    assert run_probe(probe_rejected_stream, lambda _: httpx.Response(400, headers=json_headers, content=body)).ok
    assert not run_probe(probe_rejected_stream, lambda _: httpx.Response(400, headers=SSE, content=body)).ok
    assert not run_probe(probe_rejected_stream, lambda _: httpx.Response(200, headers=SSE, content=body)).ok


def test_long_response_must_exceed_the_buffered_timeout() -> None:
    with streaming(response_delay_s=0.3) as http:
        assert probe_long_response(Deployment(http, "m", slow_model="m", buffered_s=0.2)).ok
        too_fast = probe_long_response(Deployment(http, "m", slow_model="m"))
        without_model = probe_long_response(Deployment(http, "m"))
    assert (too_fast.ok, "set SLOW_MODEL to a slower model" in too_fast.text) == (None, True)
    assert (without_model.ok, "set SLOW_MODEL (" in without_model.text) == (None, True)


@pytest.mark.parametrize(
    ("states", "ok"), [(["Queued", "Started", "Completed"], True), (["Queued", "Failed"], False), ([], False)]
)
def test_job_events_must_end_with_completed(states: list[str], ok: bool) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json={"id": 7})
        assert request.url.path == "/v1/jobs/7/events"
        events = [b"data: %b\n\n" % json.dumps({"id": 7, "jobState": state}).encode() for state in states]
        return httpx.Response(200, headers=SSE, content=iter([b": ping\n\n", *events, DONE]))

    result = run_probe(JOB_EVENTS_PROBE.run, respond)
    assert result.ok == ok
    assert result.text.startswith(", ".join(states) or "no event with a jobState")
