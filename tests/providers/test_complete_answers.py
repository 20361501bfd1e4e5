"""A response is complete by its content, whatever its content type, framing or the end of its connection."""

import gzip
import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.limits import MAX_CHOICES, MAX_EVENT_BYTES, MAX_HEADERS_CHARS, MAX_RESPONSE_BYTES
from aiserver.providers.http import create_client
from aiserver.providers.stream import read_first_event
from aiserver.wire import errors as wire_errors
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Authority, Behaviour, Connection
from tests.memory import peak_bytes
from tests.providers.calls import call_provider, dispatcher, make_call, provider, upstream_of
from tests.providers.conformance_profiles import PROFILES, ConformanceProfile, ConstantTokenClock
from tests.providers.streaming import (
    DONE,
    chunk,
    http_chunks,
    open_stream,
    read_stream,
    serve_stream,
    stream_from,
    stream_of,
)

JSON = "content-type: application/json"
CHUNKED = "transfer-encoding: chunked"
RESPONSE = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
EVENTS = chunk("hi") + chunk(finish="stop")


def send_then_reset(*chunks: bytes) -> Behaviour:
    """Send the chunks, wait until the client has read them, and end the connection by RST."""

    def behave(connection: Connection) -> None:
        hostile_servers.send_raw(*chunks)(connection)
        connection.socket.settimeout(0.2)
        try:
            connection.socket.recv(1)
        except TimeoutError:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return behave


def bad_ends(head: Callable[[str], bytes], body: bytes) -> dict[str, Behaviour]:
    """Behaviours of servers that end the connection improperly after the last byte of the body."""
    return {
        "FIN without the last chunk": hostile_servers.send_raw(head(CHUNKED) + http_chunks(body)),
        "RST without the last chunk": send_then_reset(head(CHUNKED) + http_chunks(body)),
        "FIN within the last chunk": hostile_servers.send_raw(head(CHUNKED) + http_chunks(body) + b"0\r"),
        "invalid data after it": hostile_servers.send_raw(head(CHUNKED) + http_chunks(body) + b"garbage\r\n\r\n"),
        "content-length too large": hostile_servers.send_raw(head("content-length: 99999") + body),
        "neither content-length nor chunks": hostile_servers.send_raw(head("x: y") + body),
        "neither content-length nor chunks, then RST": send_then_reset(head("x: y") + body),
    }


RESPONSE_ENDS = bad_ends(lambda line: hostile_servers.head(200, JSON, line), RESPONSE)
STREAM_ENDS = bad_ends(lambda line: hostile_servers.head(200, "content-type: text/event-stream", line), EVENTS)


@pytest.mark.parametrize("end", RESPONSE_ENDS.values(), ids=RESPONSE_ENDS.keys())
def test_complete_json_is_accepted_however_its_connection_ends(end: Behaviour) -> None:
    with hostile_servers.receiver(end) as server:
        assert call_provider(provider(f"http://127.0.0.1:{server.port}/v1")).body == RESPONSE


@pytest.mark.parametrize("end", STREAM_ENDS.values(), ids=STREAM_ENDS.keys())
def test_complete_stream_is_accepted_however_its_connection_ends(end: Behaviour) -> None:
    assert stream_from(end) == (EVENTS, None)


def test_complete_response_is_accepted_without_tls_close_notify(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority()
    authority.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/ca.pem")
    with hostile_servers.receiver(*RESPONSE_ENDS.values(), tls=authority.tls_for("localhost")) as server:
        for _ in RESPONSE_ENDS:
            assert call_provider(provider(f"https://localhost:{server.port}/v1")).body == RESPONSE


@pytest.mark.parametrize("length", [1, 20, len(RESPONSE) - 1])
def test_json_truncated_at_the_connection_end_is_a_timeout_error(length: int) -> None:
    truncated = hostile_servers.send_raw(hostile_servers.head(200, JSON, CHUNKED) + http_chunks(RESPONSE[:length]))
    with hostile_servers.receiver(truncated) as server, pytest.raises(ProviderTimeout):
        call_provider(provider(f"http://127.0.0.1:{server.port}/v1"))


def test_complete_json_before_the_deadline_is_accepted() -> None:
    behaviour = hostile_servers.send_then_hang(hostile_servers.head(200, JSON, "content-length: 99999") + RESPONSE)
    with hostile_servers.receiver(behaviour) as server:
        assert call_provider(provider(f"http://127.0.0.1:{server.port}/v1"), timeout_s=0.5).body == RESPONSE


def test_error_status_is_kept_however_its_connection_ends() -> None:
    head = hostile_servers.head(429, JSON, CHUNKED)
    with (
        hostile_servers.receiver(hostile_servers.send_raw(head + http_chunks(b'{"error":{"mess'))) as server,
        pytest.raises(ProviderError) as failed,
    ):
        call_provider(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert (failed.value.status, failed.value.may_be_billed) == (429, False)


TRUNCATED_TAILS = [b"", b'data: {"choices":[],"usa', b": pi", b"data: [DO", b"data:", b"\n"]


@pytest.mark.parametrize("tail", TRUNCATED_TAILS)
@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
def test_partial_event_after_a_complete_stream_is_ignored(tail: bytes, end: bytes) -> None:
    assert stream_from(serve_stream(EVENTS, tail, end=end)) == (EVENTS, None)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_stream_of_any_provider_is_complete_without_its_last_chunk(profile: ConformanceProfile, end: str) -> None:
    events, expected = profile.stream
    output = hostile_servers.head(200, f"content-type: {profile.stream_type}", CHUNKED) + http_chunks(events)
    behaviour = hostile_servers.send_raw(output) if end == "FIN" else send_then_reset(output)
    with (
        hostile_servers.receiver(behaviour) as server,
        open_stream(
            profile.provider(f"http://127.0.0.1:{server.port}"),
            body=profile.exchanges[0].request_body,
            api_key="abcd-1234-key",
            total_timeout_s=5,
            clock=ConstantTokenClock(),
        ) as stream,
    ):
        assert read_stream(stream.events) == (expected, None)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_response_of_any_provider_is_complete_without_its_last_chunk(profile: ConformanceProfile) -> None:
    for exchange in profile.exchanges:
        behaviour = hostile_servers.send_raw(
            hostile_servers.head(200, JSON, CHUNKED) + http_chunks(exchange.upstream_response)
        )
        with hostile_servers.receiver(behaviour) as server, create_client() as http:
            response = dispatcher(http, ConstantTokenClock()).send(
                upstream_of(profile.provider(f"http://127.0.0.1:{server.port}"), api_key="abcd-1234-key"),
                make_call(exchange.operation, exchange.request_body),
            )
        assert response.body == exchange.response_body


def test_last_event_without_blank_line_is_accepted() -> None:
    assert stream_from(serve_stream(EVENTS[:-2], end=b"")) == (EVENTS, None)


@pytest.mark.parametrize("last", ["completed", "incomplete", "failed"])
def test_responses_stream_is_complete_after_its_last_event(last: str) -> None:
    events = b"".join(
        b"event: response.%b\ndata: " % name + json.dumps({"type": f"response.{name.decode()}"}).encode() + b"\n\n"
        for name in (b"created", b"in_progress", last.encode())
    )
    assert stream_from(serve_stream(events, end=b""), operation="responses") == (events, None)


def test_stream_with_an_unfinished_choice_is_a_timeout_error() -> None:
    received, error = stream_from(
        serve_stream(chunk("hi"), chunk(finish="stop"), chunk("b").replace(b'"index": 0', b'"index": 1'))
    )
    assert received.endswith(b"\n\n")
    assert type(error) is ProviderTimeout


# --- content types ---


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "text/html", "application/problem+json", ""]
)
@pytest.mark.parametrize("start", [b"", b"\n\n", b"\xef\xbb\xbf", b": wait\n\n", b"event: x\n", b"id:7\n"])
def test_events_are_relayed_whatever_their_content_type_is(content_type: str, start: bytes) -> None:
    head = hostile_servers.head(200, f"content-type: {content_type}" if content_type else "x: y", CHUNKED)
    body = start + EVENTS + DONE
    chunks = http_chunks(*[bytes([byte]) for byte in body[:9]], body[9:])
    received, error = stream_from(hostile_servers.send_raw(head + chunks + b"0\r\n\r\n"))
    assert (received.lstrip(), error) == (body.lstrip(), None)  # white space before the first event is dropped


MESSAGE = "quota used up"


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/html"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false,"message":"quota used up"}',
        b'{"status":"435","msg":"quota used up"}',
        b' {\n\n"choices":[],\n\n"detail":"quota used up"}',
        b"<html><body>quota used up</body></html>\n\n<p>",
        b"sorry, quota used up",
    ],
)
def test_message_of_a_body_that_is_not_a_stream_is_the_error_message(content_type: str, body: bytes) -> None:
    received, error = stream_from(hostile_servers.respond(200, f"content-type: {content_type}", body=body))
    assert received == b""
    assert error is not None
    assert (error.status, error.may_be_billed) == (502, True)
    assert MESSAGE in error.message


@pytest.mark.parametrize("operation", ["chat.completions", "responses"])
@pytest.mark.parametrize("end", [DONE, b""])
@pytest.mark.parametrize(
    "body", [b'{"success":false,"message":"quota used up"}', b'{"status":435,"msg":"quota used up","choices":null}']
)
def test_stream_without_content_is_a_502_with_the_provider_message(body: bytes, end: bytes, operation: str) -> None:
    event = b"data: " + body + b"\n\n"
    received, error = stream_from(serve_stream(event, event, end), operation=operation)
    assert received == b""
    assert error is not None
    assert (error.status >= 500, error.may_be_billed) == (True, True)
    assert MESSAGE in error.message


@pytest.mark.parametrize("first_event", [b"", b'data: {"choices":[],"usage":{"total_tokens":1}}\n\n', b": wait\n\n"])
def test_stream_with_only_done_is_a_502(first_event: bytes) -> None:
    received, error = stream_from(serve_stream(first_event, DONE))
    assert received == b""
    assert error is not None
    assert error.status == 502


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain; charset=latin-1", "application/x-json", "image/png"]
)
def test_json_is_relayed_as_json_whatever_its_content_type_is(content_type: str) -> None:
    with hostile_servers.receiver(
        hostile_servers.respond(200, f"content-type: {content_type}", body=RESPONSE)
    ) as server:
        response = call_provider(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert (response.body, response.headers["content-type"]) == (RESPONSE, "application/json")


# --- usage requested by the gateway ---

USAGE = '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
USAGE_EVENTS = [
    f"{{{USAGE}}}",
    f'{{"choices":null,{USAGE}}}',
    f'{{"choices":[],{USAGE}}}',
    f'{{ {USAGE} , "choices" : [\t ] , "object":"chat.completion.chunk"}}',
    f'{{"choices":[],"usage":{{"total_tokens":3,"details":"{"x" * 5000}"}}}}',
    f'[{{"choices":[],{USAGE}}}]',
]


@pytest.mark.parametrize("event", USAGE_EVENTS)
def test_usage_event_requested_only_by_the_gateway_is_hidden(event: str) -> None:
    usage = f"data: {event}\n\n".encode()
    unfiltered, filtered = (
        stream_from(serve_stream(EVENTS, usage, usage, DONE)),
        stream_from(serve_stream(EVENTS, usage, usage, DONE), preset="vllm"),
    )
    assert filtered == (EVENTS + DONE, None)
    assert unfiltered == (EVENTS + usage + usage + DONE, None)


def test_usage_in_a_content_event_is_relayed_unchanged() -> None:
    events = chunk("hi", usage={"total_tokens": 1}) + chunk(finish="stop", usage=None)
    assert stream_from(serve_stream(events, DONE), preset="vllm") == (events + DONE, None)


@pytest.mark.parametrize("member", ["usage", "error", "object", "type", "response", "id", "service_tier"])
def test_null_member_in_an_event_is_accepted(member: str) -> None:
    events = chunk("hi", **{member: None}) + chunk(finish="stop", **{member: None})
    assert stream_from(serve_stream(events, DONE), preset="vllm") == (events + DONE, None)


NULLS = [
    b'{"choices":null}',
    b'{"choices":[{"index":null,"delta":null,"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":null,"role":null,"tool_calls":null},"logprobs":null}],"usage":null}',
]


@pytest.mark.parametrize("null", NULLS)
def test_null_event_is_relayed(null: bytes) -> None:
    event = b"data: " + null + b"\n\n"
    assert stream_from(serve_stream(event, EVENTS, event, DONE)) == (event + EVENTS + event + DONE, None)


# --- limits ---


def test_too_many_choices_are_an_error() -> None:
    events = [chunk("a").replace(b'"index": 0', b'"index": %d' % index) for index in range(MAX_CHOICES + 1)]
    _, error = read_stream(stream_of(*events))
    assert error is not None
    assert "too many choices" in error.message


def test_json_split_over_events_is_collected_in_linear_time() -> None:
    event = b'{"a":"%b"}\n\n' % (b"x" * 100)
    chunks = [event * 500] * (MAX_EVENT_BYTES // len(event * 500) + 1)
    received, error = read_stream(stream_of(*chunks))
    assert received == b""
    assert error is not None
    assert "too large" in error.message


def test_endless_comments_before_the_first_event_are_an_error() -> None:
    stream = stream_of(*[b": " + b"x" * 1_000_000 + b"\n\n"] * (MAX_EVENT_BYTES // 1_000_000 + 1))
    with pytest.raises(ProviderError, match="comments"):
        read_first_event(stream, FakeClock(), 60_000, "p")


def test_relayed_headers_are_limited_in_total() -> None:
    lines = [f"x-ratelimit-{n}: {'v' * 900}" for n in range(60)] + ["x-request-id: r", "retry-after: 1"]
    with hostile_servers.receiver(hostile_servers.respond(200, JSON, *lines, body=RESPONSE)) as server:
        headers = call_provider(provider(f"http://127.0.0.1:{server.port}/v1")).headers
    assert sum(len(name) + len(value) for name, value in headers.items()) <= MAX_HEADERS_CHARS
    assert (headers["x-request-id"], headers["retry-after"], "x-ratelimit-0" in headers) == ("r", "1", True)


@pytest.mark.parametrize(
    ("status", "client_status"),
    [(400, 400), (499, 499), (500, 500), (599, 599), (600, 502), (999, 502), (304, 502), (302, 502)],
)
@pytest.mark.parametrize("body", [b'{"error":{"message":"m"}}', b"text"])
def test_only_http_error_statuses_are_relayed(status: int, client_status: int, body: bytes) -> None:
    body = b"" if status == 304 else body
    with (
        hostile_servers.receiver(hostile_servers.respond(status, JSON, body=body)) as server,
        pytest.raises(ProviderError) as failed,
    ):
        call_provider(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert failed.value.status == (client_status if body != b"text" or client_status < 500 else 502)
    assert json.loads(wire_errors.render_error(failed.value))["error"]["message"]


@pytest.mark.parametrize("status", [201, 206, 299])
def test_success_status_is_returned_as_200(status: int) -> None:
    with hostile_servers.receiver(hostile_servers.respond(status, JSON, body=RESPONSE)) as server:
        assert call_provider(provider(f"http://127.0.0.1:{server.port}/v1")).status == 200


# --- invalid first events ---


@pytest.mark.parametrize("message", ["Internal error", '"quota used up"'])
def test_text_instead_of_json_is_an_error_with_that_text(message: str) -> None:
    received, error = read_stream(stream_of(f"data: {message}\n\n".encode(), DONE))
    assert received == b""
    assert error is not None
    assert message.strip('"') in error.message


@pytest.mark.parametrize("choice", [{"finish_reason": "error"}, {"finish_reason": None}, {"delta": {"content": ""}}])
def test_error_within_a_choice_is_a_provider_error(choice: dict[str, object]) -> None:
    body = {"choices": [{"index": 0, **choice, "error": {"message": "Upstream died", "code": 502}}]}
    _, error = read_stream(stream_of(chunk("a"), f"data: {json.dumps(body)}\n\n".encode(), DONE))
    assert error is not None
    assert (error.message, error.may_be_billed) == ("Upstream died", True)


def test_bare_error_within_a_stream_keeps_its_message() -> None:
    received, error = read_stream(stream_of(chunk("a"), b'{"error":{"code":503,"message":"raw words"}}'))
    assert received == chunk("a")
    assert error is not None
    assert "raw words" in error.message


def test_event_with_too_many_choices_is_rejected_before_decoding() -> None:
    event = b'data: {"choices":[%b]}\n\n' % b",".join([b"{}"] * 1_000_000)
    assert peak_bytes(lambda: read_stream(stream_of(event))) < 30_000_000
    _, error = read_stream(stream_of(event))
    assert error is not None
    assert "too many choices" in error.message


# --- bodies other than streams ---


def test_endless_white_space_before_a_stream_is_not_buffered(upstream: ScriptedProvider) -> None:
    compressed = gzip.compress(b" " * (MAX_RESPONSE_BYTES + 1))
    upstream.respond_with(200, compressed, {"content-type": "application/json", "content-encoding": "gzip"})

    def stream() -> None:
        with (
            pytest.raises(ProviderError, match="too large"),
            open_stream(provider(upstream.base_url), head_timeout_s=30, total_timeout_s=30),
        ):
            pass

    assert peak_bytes(stream) < 10_000_000


# --- complete responses ---


@pytest.mark.parametrize("choice", [{"finish_reason": "error"}, {"message": {"role": "assistant", "content": ""}}])
def test_error_within_a_choice_of_a_response_is_a_provider_error(
    choice: dict[str, object], upstream: ScriptedProvider
) -> None:
    body = {"choices": [{"index": 0, **choice, "error": {"message": "Upstream died", "code": 502}}]}
    upstream.respond_with(200, json.dumps(body).encode())
    with pytest.raises(ProviderError, match="Upstream died"):
        call_provider(provider(upstream.base_url))


def test_large_response_without_content_is_not_relayed(upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, b'{"choices":[],"junk":"%b"}' % (b"a" * 8_000_000))
    with pytest.raises(ProviderError) as failed:
        call_provider(provider(upstream.base_url))
    assert len(wire_errors.render_error(failed.value)) < 10_000


def test_response_with_many_choices_is_not_decoded_to_find_an_error(upstream: ScriptedProvider) -> None:
    body = b'{"choices":[%b],"x":{"error":1}}' % b",".join([b"{}"] * 2_000_000)
    upstream.respond_with(200, body)
    assert peak_bytes(lambda: call_provider(provider(upstream.base_url))) < 8 * len(body)
