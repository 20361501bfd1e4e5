"""What makes an answer complete is what came of it: not its label, its framing, or how its connection ended."""

import gzip
import json
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.limits import MAX_ANSWER_BYTES, MAX_CHOICES, MAX_EVENT_BYTES, MAX_HEADERS_CHARS
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.openai_stream import OpenAiEvents
from aiserver.providers.stream import ProviderStream
from aiserver.wire import errors as wire_errors
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Authority, Behaviour, Connection
from tests.memory import peak_bytes
from tests.providers.calls import ask, provider
from tests.providers.conformance_profiles import MANNERS, Manner
from tests.providers.streaming import DONE, QUESTION, chunk, framed, heard, said, streams

JSON = "content-type: application/json"
CHUNKED = "transfer-encoding: chunked"
ANSWER = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
EVENTS = chunk("hi") + chunk(finish="stop")


def resetting(*pieces: bytes) -> Behaviour:
    """Says that, waits until it has been read, and ends the connection by RST."""

    def behave(connection: Connection) -> None:
        hostile_servers.says(*pieces)(connection)
        connection.socket.settimeout(0.2)
        try:
            connection.socket.recv(1)
        except TimeoutError:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return behave


def ends(head: Callable[[str], bytes], body: bytes) -> dict[str, Behaviour]:
    """The ways in which a body can end badly after its last byte."""
    return {
        "FIN without the last chunk": hostile_servers.says(head(CHUNKED) + framed(body)),
        "RST without the last chunk": resetting(head(CHUNKED) + framed(body)),
        "FIN within the last chunk": hostile_servers.says(head(CHUNKED) + framed(body) + b"0\r"),
        "no HTTP behind it": hostile_servers.says(head(CHUNKED) + framed(body) + b"garbage\r\n\r\n"),
        "a content-length that is too large": hostile_servers.says(head("content-length: 99999") + body),
        "neither length nor chunks": hostile_servers.says(head("x: y") + body),
        "neither, and RST": resetting(head("x: y") + body),
    }


WHOLE_ENDS = ends(lambda line: hostile_servers.head(200, JSON, line), ANSWER)
STREAM_ENDS = ends(lambda line: hostile_servers.head(200, "content-type: text/event-stream", line), EVENTS)


@pytest.mark.parametrize("end", WHOLE_ENDS.values(), ids=WHOLE_ENDS.keys())
def test_a_whole_json_answer_is_complete_however_its_connection_ends(end: Behaviour) -> None:
    with hostile_servers.receiver(end) as server:
        assert ask(provider(f"http://127.0.0.1:{server.port}/v1")).body == ANSWER


@pytest.mark.parametrize("end", STREAM_ENDS.values(), ids=STREAM_ENDS.keys())
def test_a_complete_stream_ends_well_however_its_connection_ends(end: Behaviour) -> None:
    assert said(end) == (EVENTS, None)


def test_a_complete_answer_ends_well_without_close_notify_of_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority()
    authority.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/ca.pem")
    with hostile_servers.receiver(*WHOLE_ENDS.values(), tls=authority.tls_for("localhost")) as server:
        for _ in WHOLE_ENDS:
            assert ask(provider(f"https://localhost:{server.port}/v1")).body == ANSWER


@pytest.mark.parametrize("at", [1, 20, len(ANSWER) - 1])
def test_an_answer_that_is_cut_within_its_json_is_an_error(at: int) -> None:
    cut = hostile_servers.says(hostile_servers.head(200, JSON, CHUNKED) + framed(ANSWER[:at]))
    with hostile_servers.receiver(cut) as server, pytest.raises(ProviderTimeout):
        ask(provider(f"http://127.0.0.1:{server.port}/v1"))


def test_an_answer_that_came_whole_before_the_deadline_is_an_answer() -> None:
    late = hostile_servers.then_hangs(hostile_servers.head(200, JSON, "content-length: 99999") + ANSWER)
    with hostile_servers.receiver(late) as server:
        assert ask(provider(f"http://127.0.0.1:{server.port}/v1"), deadline_s=0.5).body == ANSWER


def test_an_error_status_outranks_how_its_connection_ends() -> None:
    head = hostile_servers.head(429, JSON, CHUNKED)
    with (
        hostile_servers.receiver(hostile_servers.says(head + framed(b'{"error":{"mess'))) as server,
        pytest.raises(ProviderError) as failed,
    ):
        ask(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert (failed.value.status, failed.value.may_be_billed) == (429, False)


CUT_TAILS = [b"", b'data: {"choices":[],"usa', b": pi", b"data: [DO", b"data:", b"\n"]


@pytest.mark.parametrize("tail", CUT_TAILS)
@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
def test_half_an_event_behind_a_complete_answer_does_not_matter(tail: bytes, end: bytes) -> None:
    assert said(streams(EVENTS, tail, end=end)) == (EVENTS, None)


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_complete_stream_without_its_last_chunk_is_a_success(manner: Manner, end: str) -> None:
    events, shown = manner.stream
    sent = hostile_servers.head(200, f"content-type: {manner.stream_type}", CHUNKED) + framed(events)
    behaviour = hostile_servers.says(sent) if end == "FIN" else resetting(sent)
    with hostile_servers.receiver(behaviour) as server, create_client() as http:
        stream = manner.caller(http).stream(
            manner.provider(f"http://127.0.0.1:{server.port}"),
            "chat.completions",
            manner.exchanges[0].asked,
            api_key="abcd-1234-key",
            model_is_configured=True,
            head_timeout_s=5,
            total_timeout_s=5,
        )
        with closing(stream):
            assert heard(stream) == (shown, None)


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
def test_a_whole_answer_of_any_provider_is_complete_without_its_last_chunk(manner: Manner) -> None:
    for exchange in manner.exchanges:
        end = hostile_servers.says(hostile_servers.head(200, JSON, CHUNKED) + framed(exchange.said))
        with hostile_servers.receiver(end) as server, create_client() as http:
            answer = manner.caller(http).call(
                manner.provider(f"http://127.0.0.1:{server.port}"),
                exchange.operation,
                exchange.asked,
                api_key="abcd-1234-key",
                idempotency_key=None,
                model_is_configured=True,
                timeout_s=5,
            )
        assert answer.body == exchange.answered


def test_a_last_event_that_lacks_its_blank_line_counts() -> None:
    assert said(streams(EVENTS[:-2], end=b"")) == (EVENTS, None)


@pytest.mark.parametrize("last", ["completed", "incomplete", "failed"])
def test_a_response_is_complete_once_its_last_event_has_come(last: str) -> None:
    events = b"".join(
        b"event: response.%b\ndata: " % name + json.dumps({"type": f"response.{name.decode()}"}).encode() + b"\n\n"
        for name in (b"created", b"in_progress", last.encode())
    )
    assert said(streams(events, end=b""), operation="responses") == (events, None)


def test_a_stream_of_which_a_choice_has_not_finished_is_cut() -> None:
    came, error = said(streams(chunk("hi"), chunk(finish="stop"), chunk("b").replace(b'"index": 0', b'"index": 1')))
    assert came.endswith(b"\n\n")
    assert type(error) is ProviderTimeout


# --- labels ---


@pytest.mark.parametrize(
    "label", ["application/json", "application/json; charset=utf-8", "text/html", "application/problem+json", ""]
)
@pytest.mark.parametrize("start", [b"", b"\n\n", b"\xef\xbb\xbf", b": wait\n\n", b"event: x\n", b"id:7\n"])
def test_events_are_relayed_whatever_their_content_type_is(label: str, start: bytes) -> None:
    head = hostile_servers.head(200, f"content-type: {label}" if label else "x: y", CHUNKED)
    body = start + EVENTS + DONE
    pieces = framed(*[bytes([byte]) for byte in body[:9]], body[9:])
    came, error = said(hostile_servers.says(head + pieces + b"0\r\n\r\n"))
    assert (came.lstrip(), error) == (body.lstrip(), None)  # white space before the first event is no part of it


WORDS = "quota used up"


@pytest.mark.parametrize("label", ["application/json", "text/event-stream", "text/html"])
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
def test_the_words_of_a_body_that_is_no_stream_are_told(label: str, body: bytes) -> None:
    came, error = said(hostile_servers.answers(200, f"content-type: {label}", body=body))
    assert came == b""
    assert error is not None
    assert (error.status, error.may_be_billed) == (502, True)
    assert WORDS in error.message


@pytest.mark.parametrize("operation", ["chat.completions", "responses"])
@pytest.mark.parametrize("end", [DONE, b""])
@pytest.mark.parametrize(
    "body", [b'{"success":false,"message":"quota used up"}', b'{"status":435,"msg":"quota used up","choices":null}']
)
def test_a_stream_without_an_answer_is_a_502_with_the_provider_s_words(body: bytes, end: bytes, operation: str) -> None:
    event = b"data: " + body + b"\n\n"
    came, error = said(streams(event, event, end), operation=operation)
    assert came == b""
    assert error is not None
    assert (error.status >= 500, error.may_be_billed) == (True, True)
    assert WORDS in error.message


@pytest.mark.parametrize("before", [b"", b'data: {"choices":[],"usage":{"total_tokens":1}}\n\n', b": wait\n\n"])
def test_a_stream_that_only_says_done_is_no_answer(before: bytes) -> None:
    came, error = said(streams(before, DONE))
    assert came == b""
    assert error is not None
    assert error.status == 502


@pytest.mark.parametrize("label", ["text/html", "text/plain; charset=latin-1", "application/x-json", "image/png"])
def test_json_is_relayed_as_json_whatever_its_label_was(label: str) -> None:
    with hostile_servers.receiver(hostile_servers.answers(200, f"content-type: {label}", body=ANSWER)) as server:
        answer = ask(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert (answer.body, answer.headers["content-type"]) == (ANSWER, "application/json")


# --- usage that the gateway asked for ---

USAGE = '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
HIDDEN = [
    f"{{{USAGE}}}",
    f'{{"choices":null,{USAGE}}}',
    f'{{"choices":[],{USAGE}}}',
    f'{{ {USAGE} , "choices" : [\t ] , "object":"chat.completion.chunk"}}',
    f'{{"choices":[],"usage":{{"total_tokens":3,"details":"{"x" * 5000}"}}}}',
    f'[{{"choices":[],{USAGE}}}]',
]


@pytest.mark.parametrize("event", HIDDEN)
def test_the_usage_event_that_only_the_gateway_asked_for_is_hidden(event: str) -> None:
    usage = f"data: {event}\n\n".encode()
    shown, hidden = said(streams(EVENTS, usage, usage, DONE)), said(streams(EVENTS, usage, usage, DONE), preset="vllm")
    assert hidden == (EVENTS + DONE, None)
    assert shown == (EVENTS + usage + usage + DONE, None)


def test_usage_beside_a_piece_of_the_answer_passes_as_it_came() -> None:
    events = chunk("hi", usage={"total_tokens": 1}) + chunk(finish="stop", usage=None)
    assert said(streams(events, DONE), preset="vllm") == (events + DONE, None)


@pytest.mark.parametrize("member", ["usage", "error", "object", "type", "response", "id", "service_tier"])
def test_a_null_breaks_no_stream(member: str) -> None:
    events = chunk("hi", **{member: None}) + chunk(finish="stop", **{member: None})
    assert said(streams(events, DONE), preset="vllm") == (events + DONE, None)


NULLS = [
    b'{"choices":null}',
    b'{"choices":[{"index":null,"delta":null,"finish_reason":null}]}',
    b'{"choices":[{"index":0,"delta":{"content":null,"role":null,"tool_calls":null},"logprobs":null}],"usage":null}',
]


@pytest.mark.parametrize("null", NULLS)
def test_a_null_in_an_event_of_a_stream_is_nothing(null: bytes) -> None:
    event = b"data: " + null + b"\n\n"
    assert said(streams(event, EVENTS, event, DONE)) == (event + EVENTS + event + DONE, None)


# --- limits ---


def fed(*pieces: bytes) -> ProviderStream:
    events = OpenAiEvents(provider("http://x/v1"), "chat.completions", hides_usage=False, model_is_configured=True)
    return ProviderStream("p", {}, ([piece] for piece in pieces), events)


def test_choices_without_end_are_an_error() -> None:
    events = [chunk("a").replace(b'"index": 0', b'"index": %d' % index) for index in range(MAX_CHOICES + 1)]
    _, error = heard(fed(*events))
    assert error is not None
    assert "too many choices" in error.message


def test_json_that_arrives_as_events_is_collected_in_linear_time() -> None:
    event = b'{"a":"%b"}\n\n' % (b"x" * 100)
    pieces = [event * 500] * (MAX_EVENT_BYTES // len(event * 500) + 1)
    came, error = heard(fed(*pieces))
    assert came == b""
    assert error is not None
    assert "too large" in error.message


def test_comments_without_end_before_a_stream_begins_are_an_error() -> None:
    stream = fed(*[b": " + b"x" * 1_000_000 + b"\n\n"] * (MAX_EVENT_BYTES // 1_000_000 + 1))
    with pytest.raises(ProviderError, match="comments"):
        stream.await_first_event(FakeClock(), 60_000)


def test_relayed_headers_are_bounded_together_and_cost_no_answer() -> None:
    lines = [f"x-ratelimit-{n}: {'v' * 900}" for n in range(60)] + ["x-request-id: r", "retry-after: 1"]
    with hostile_servers.receiver(hostile_servers.answers(200, JSON, *lines, body=ANSWER)) as server:
        headers = ask(provider(f"http://127.0.0.1:{server.port}/v1")).headers
    assert sum(len(name) + len(value) for name, value in headers.items()) <= MAX_HEADERS_CHARS
    assert (headers["x-request-id"], headers["retry-after"], "x-ratelimit-0" in headers) == ("r", "1", True)


@pytest.mark.parametrize(
    ("status", "shown"),
    [(400, 400), (499, 499), (500, 500), (599, 599), (600, 502), (999, 502), (304, 502), (302, 502)],
)
@pytest.mark.parametrize("body", [b'{"error":{"message":"m"}}', b"text"])
def test_only_an_error_status_of_http_is_relayed(status: int, shown: int, body: bytes) -> None:
    body = b"" if status == 304 else body
    with (
        hostile_servers.receiver(hostile_servers.answers(status, JSON, body=body)) as server,
        pytest.raises(ProviderError) as failed,
    ):
        ask(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert failed.value.status == (shown if body != b"text" or shown < 500 else 502)
    assert json.loads(wire_errors.render_error(failed.value))["error"]["message"]


@pytest.mark.parametrize("status", [201, 206, 299])
def test_an_answer_has_status_200(status: int) -> None:
    with hostile_servers.receiver(hostile_servers.answers(status, JSON, body=ANSWER)) as server:
        assert ask(provider(f"http://127.0.0.1:{server.port}/v1")).status == 200


# --- what begins no answer ---


@pytest.mark.parametrize("words", ["Internal error", '"quota used up"'])
def test_text_instead_of_an_answer_is_an_error_with_that_reason(words: str) -> None:
    came, error = heard(fed(f"data: {words}\n\n".encode(), DONE))
    assert came == b""
    assert error is not None
    assert words.strip('"') in error.message


@pytest.mark.parametrize("choice", [{"finish_reason": "error"}, {"finish_reason": None}, {"delta": {"content": ""}}])
def test_an_error_within_a_choice_is_the_provider_s_error(choice: dict[str, object]) -> None:
    body = {"choices": [{"index": 0, **choice, "error": {"message": "Upstream died", "code": 502}}]}
    _, error = heard(fed(chunk("a"), f"data: {json.dumps(body)}\n\n".encode(), DONE))
    assert error is not None
    assert (error.message, error.may_be_billed) == ("Upstream died", True)


def test_an_error_written_bare_into_a_stream_is_told_in_its_own_words() -> None:
    came, error = heard(fed(chunk("a"), b'{"error":{"code":503,"message":"raw words"}}'))
    assert came == chunk("a")
    assert error is not None
    assert "raw words" in error.message


def test_one_event_of_choices_without_end_is_refused_before_they_are_built() -> None:
    event = b'data: {"choices":[%b]}\n\n' % b",".join([b"{}"] * 1_000_000)
    assert peak_bytes(lambda: heard(fed(event))) < 30_000_000
    _, error = heard(fed(event))
    assert error is not None
    assert "too many choices" in error.message


# --- what is no stream ---


def test_white_space_without_end_is_not_kept_for_a_stream_to_begin(upstream: ScriptedProvider) -> None:
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))
    upstream.answer_with(200, bomb, {"content-type": "application/json", "content-encoding": "gzip"})

    def stream() -> None:
        with pytest.raises(ProviderError, match="too large"), create_client() as http:
            OpenAiClient(http, FakeClock()).stream(
                provider(upstream.base_url),
                "chat.completions",
                QUESTION,
                api_key="k",
                model_is_configured=True,
                head_timeout_s=30,
                total_timeout_s=30,
            )

    assert peak_bytes(stream) < 10_000_000


# --- whole ---


@pytest.mark.parametrize("choice", [{"finish_reason": "error"}, {"message": {"role": "assistant", "content": ""}}])
def test_a_whole_answer_whose_choice_failed_is_the_provider_s_error(
    choice: dict[str, object], upstream: ScriptedProvider
) -> None:
    body = {"choices": [{"index": 0, **choice, "error": {"message": "Upstream died", "code": 502}}]}
    upstream.answer_with(200, json.dumps(body).encode())
    with pytest.raises(ProviderError, match="Upstream died"):
        ask(provider(upstream.base_url))


def test_a_large_response_without_an_answer_is_not_relayed(upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, b'{"choices":[],"junk":"%b"}' % (b"a" * 8_000_000))
    with pytest.raises(ProviderError) as failed:
        ask(provider(upstream.base_url))
    assert len(wire_errors.render_error(failed.value)) < 10_000


def test_a_response_of_very_many_choices_is_not_built_to_look_for_an_error(upstream: ScriptedProvider) -> None:
    body = b'{"choices":[%b],"x":{"error":1}}' % b",".join([b"{}"] * 2_000_000)
    upstream.answer_with(200, body)
    assert peak_bytes(lambda: ask(provider(upstream.base_url))) < 8 * len(body)
