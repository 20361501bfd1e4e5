"""Provider streams: relayed byte for byte in complete events, and a truncated stream is never taken as complete."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.clock import Deadline, SystemClock
from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers import dispatch
from aiserver.providers import stream as stream_module
from aiserver.providers.http import create_client
from aiserver.providers.stream import FIRST_EVENT_TIMEOUT_MS, map_events, read_first_event, split_events
from aiserver.routing.failover import OpenStream
from aiserver.usecases.stream_response import stream_response
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse
from tests import hostile_servers
from tests.examples import examples
from tests.fakes import FakeClock
from tests.providers.calls import provider
from tests.providers.streaming import (
    DONE,
    HEAD,
    REQUEST_BODY,
    chunk,
    http_chunks,
    open_stream,
    openai_mapper,
    read_stream,
    serve_stream,
    stream_from,
    stream_of,
)

CONTENT_EVENTS = [chunk("Grüße "), chunk("語"), chunk("😀"), chunk(finish="stop")]
COMPLETE = b"".join(CONTENT_EVENTS) + DONE
UNUSUAL = (
    b": a comment\r\n\r\n"
    b'event: chunk\r\nid: 7\r\ndata: {"choices":[{"delta":\r\ndata: {"content":"a"}}]}\r\n\r\n'
    b'data:{"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n'
    b"retry: 5\n\n" + DONE
)


# --- relayed events ---


@pytest.mark.parametrize("body", [COMPLETE, UNUSUAL, COMPLETE.replace(b"\n", b"\r\n"), COMPLETE.replace(b"\n", b"\r")])
def test_every_event_is_relayed_byte_for_byte(body: bytes) -> None:
    assert stream_from(serve_stream(body)) == (body, None)


def test_stream_is_relayed_byte_for_byte_wherever_it_is_split() -> None:
    for body in (COMPLETE, UNUSUAL):
        for cut in range(len(body) + 1):
            assert read_stream(stream_of(body[:cut], body[cut:])) == (body, None), cut


@given(st.lists(st.integers(0, len(COMPLETE)), max_size=6), st.integers(0, len(COMPLETE) - 1))
@settings(max_examples=examples(200))
def test_truncated_stream_is_an_error_after_complete_events_only(cuts: list[int], end: int) -> None:
    offsets = sorted({0, *(cut for cut in cuts if cut < end), end})
    chunks = [COMPLETE[start:stop] for start, stop in itertools.pairwise(offsets)]
    received, error = read_stream(stream_of(*chunks))
    whole_events = COMPLETE[: COMPLETE.rfind(b"\n\n", 0, end) + 2] if b"\n\n" in COMPLETE[:end] else b""
    lacks_only_line_ends = COMPLETE[:end].rstrip(b"\n").endswith(b"[DONE]") and end >= len(COMPLETE) - 2
    if lacks_only_line_ends:
        assert (received.rstrip(b"\n"), error) == (COMPLETE.rstrip(b"\n"), None)
    elif end >= len(COMPLETE) - len(DONE) - 2:  # complete, although [DONE] is missing
        assert (received, error) == (b"".join(CONTENT_EVENTS), None)
    else:
        assert received == whole_events
        assert isinstance(error, ProviderTimeout)
        assert error.may_be_billed


@pytest.mark.parametrize(
    "at",
    [
        1,
        len(CONTENT_EVENTS[0]) - 1,
        len(CONTENT_EVENTS[0]),
        len(CONTENT_EVENTS[0]) + 90,
        len(b"".join(CONTENT_EVENTS[:3])),
    ],
)
def test_connection_closed_before_the_end_is_a_timeout_error(at: int) -> None:
    received, error = stream_from(serve_stream(COMPLETE[:at], end=b""))
    assert received == COMPLETE[: COMPLETE.rfind(b"\n\n", 0, at) + 2 if b"\n\n" in COMPLETE[:at] else 0]
    assert type(error) is ProviderTimeout


def test_connection_closed_after_done_is_a_success() -> None:
    assert stream_from(serve_stream(COMPLETE, end=b"")) == (COMPLETE, None)


def test_data_after_done_is_ignored() -> None:
    assert stream_from(serve_stream(COMPLETE, chunk("more"))) == (COMPLETE, None)


def test_one_megabyte_event_is_relayed() -> None:
    large = chunk("x" * 1024 * 1024)
    assert stream_from(serve_stream(large[:1000], large[1000:], chunk(finish="stop"), DONE))[0].startswith(large)


def test_event_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", 100)
    assert type(read_stream(stream_of(b"data: " + b"x" * 94))[1]) is ProviderTimeout
    assert type(read_stream(stream_of(b"data: " + b"x" * 95))[1]) is ProviderError


def test_partial_json_after_an_event_is_a_timeout_error() -> None:
    received, error = stream_from(serve_stream(CONTENT_EVENTS[0], b'{"choices":'))
    assert received == CONTENT_EVENTS[0]
    assert type(error) is ProviderTimeout


def test_endless_event_is_not_buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", 100_000)
    received, error = stream_from(
        hostile_servers.flood(HEAD + http_chunks(CONTENT_EVENTS[0]), http_chunks(b"data: " + b"x" * 1000))
    )
    assert received == CONTENT_EVENTS[0]
    assert error is not None
    assert "too large" in error.message


@pytest.mark.parametrize(
    "type_", ["content-type: text/event-stream; charset=utf-8", "content-type: text/plain", "x: y"]
)
def test_stream_is_accepted_with_other_content_types(type_: str) -> None:
    body = http_chunks(COMPLETE) + b"0\r\n\r\n"
    assert stream_from(
        hostile_servers.send_raw(hostile_servers.head(200, type_, "transfer-encoding: chunked") + body)
    ) == (
        COMPLETE,
        None,
    )


def test_connection_is_reused_after_a_complete_stream() -> None:
    served_requests: list[int] = []

    def serve_twice(connection: hostile_servers.Connection) -> None:
        for _ in range(2):
            connection.take_request()
            connection.socket.sendall(HEAD + http_chunks(COMPLETE) + b"0\r\n\r\n")
            served_requests.append(1)

    with hostile_servers.receiver(serve_twice) as server:
        target = provider(f"http://127.0.0.1:{server.port}/v1")
        with create_client() as http:
            for _ in range(2):
                with open_stream(target, total_timeout_s=5, http=http) as stream:
                    assert read_stream(stream.events) == (COMPLETE, None)
        assert server.connections == 1


# --- errors before the first event ---


def error_event(**error: object) -> bytes:
    return f"data: {json.dumps({'error': {'message': 'no', **error}})}\n\n".encode()


@pytest.mark.parametrize(
    ("behaviour", "error_class", "status"),
    [
        (
            hostile_servers.respond(429, "content-type: application/json", body=b'{"error":{"message":"slow"}}'),
            ProviderRateLimited,
            429,
        ),
        (
            hostile_servers.respond(401, "content-type: application/json", body=b'{"error":{"message":"sk-1"}}'),
            ProviderAuth,
            502,
        ),
        (hostile_servers.respond(503, "content-type: text/html", body=b"<html>"), ProviderUnavailable, 503),
        (
            hostile_servers.respond(400, "content-type: application/json", body=b'{"error":{"message":"bad"}}'),
            ProviderRejected,
            400,
        ),
        (hostile_servers.respond(200, "content-type: application/json", body=b'{"choices":[{}]}'), ProviderError, 502),
        (
            hostile_servers.respond(200, "content-type: application/json", body=b'{"error":{"message":"late"}}'),
            ProviderError,
            502,
        ),
        (serve_stream(error_event()), ProviderError, 502),
        (serve_stream(error_event(code=429)), ProviderRateLimited, 429),
        (serve_stream(error_event(code=400)), ProviderRejected, 400),
        (serve_stream(error_event(code=401)), ProviderAuth, 502),
        (serve_stream(error_event(code=503)), ProviderUnavailable, 503),
        (serve_stream(error_event(code="insufficient_quota")), ProviderAuth, 502),
        (serve_stream(error_event(code="429")), ProviderRateLimited, 429),
        (serve_stream(error_event(code="invalid_api_key")), ProviderAuth, 502),
        (serve_stream(error_event(type="authentication_error")), ProviderAuth, 502),
        (
            serve_stream(error_event(type="invalid_request_error", code="context_length_exceeded")),
            ProviderRejected,
            400,
        ),
        (
            serve_stream(b'data: {"error":"Input validation error","error_type":"validation"}\n\n'),
            ProviderRejected,
            400,
        ),
        (serve_stream(b'event: error\ndata: {"error": "as a string"}\n\n'), ProviderError, 502),
        (serve_stream(b'event: error\ndata: {"message": "no"}\n\n'), ProviderError, 502),
        (serve_stream(b"event: error\ndata: words\n\n"), ProviderError, 502),
        (serve_stream(b"\xef\xbb\xbfevent: error\ndata: words\n\n"), ProviderError, 502),
        (serve_stream(b"event: error\n\n"), ProviderTimeout, 504),
        (serve_stream(error_event(code="05001")), ProviderError, 502),
        (serve_stream(error_event(code="0404")), ProviderError, 502),
        (serve_stream(b'error: {"code":400,"message":"too long","type":"x"}\n\n' + DONE), ProviderRejected, 400),
        (serve_stream(b'data: [{"error":{"code":400,"message":"no"}}]\n\n'), ProviderRejected, 400),
        (serve_stream(b'data: {"object":"error","message":"no","code":400}\n\n'), ProviderRejected, 400),
        (serve_stream(b'data: {"error":{"message":"\xff","code":400}}\n\n'), ProviderError, 502),
        (serve_stream(b"\xef\xbb\xbf" + error_event(code=429)), ProviderRateLimited, 429),
        (serve_stream(b'{"error":{"message":"slow","code":429}}'), ProviderRateLimited, 429),
        (serve_stream(b'{"error":{"message":"slow","code":429}}\n\n'), ProviderRateLimited, 429),
        (serve_stream(b'{"error":{"message":"slow",\n\n', b'"code":429}}\n\n'), ProviderRateLimited, 429),
        (serve_stream(b'{"choices":[{"message":{"content":"whole"}}]}'), ProviderError, 502),
        (serve_stream(), ProviderTimeout, 504),
        (serve_stream(end=b""), ProviderTimeout, 504),
        (serve_stream(b'data: {"choi', end=b""), ProviderTimeout, 504),
        (hostile_servers.send_raw(), ProviderTimeout, 504),
    ],
)
def test_error_before_the_first_event_has_its_status(
    behaviour: hostile_servers.Behaviour, error_class: type[ProviderError], status: int
) -> None:
    received, error = stream_from(behaviour)
    assert (received, type(error)) == (b"", error_class)
    assert error is not None
    assert error.status == status


def test_error_before_the_first_event_is_retryable_and_not_billed() -> None:
    _, error = stream_from(serve_stream(error_event(code=503)))
    assert error is not None
    assert not error.may_be_billed
    assert error.retryable


def test_key_error_message_is_hidden_from_the_caller() -> None:
    for error in (error_event(code="invalid_api_key"), error_event(code="401"), error_event(type="permission_error")):
        received, stream_error = stream_from(
            serve_stream(CONTENT_EVENTS[0], error.replace(b'"no"', b'"Incorrect API key: sk-ab***yz"'))
        )
        assert received == CONTENT_EVENTS[0]
        assert stream_error is not None
        assert b"sk-ab" not in wire_errors.render_error_event(stream_error)


# --- errors after the first event ---


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 500, "type": "server_error"}, {"message": "no", "code": 500, "type": "server_error"}),
        ({"code": None}, {"message": "no", "code": None}),
        ({"code": 401}, {"message": "The provider rejected the gateway's API key, account or configuration"}),
    ],
)
def test_error_within_a_stream_keeps_the_provider_message(
    error: dict[str, object], expected: dict[str, object]
) -> None:
    """Errors about the gateway's key or account have a neutral message."""
    received, failed = stream_from(serve_stream(CONTENT_EVENTS[0], error_event(**error), CONTENT_EVENTS[1]))
    assert received == CONTENT_EVENTS[0]
    assert failed is not None
    assert failed.may_be_billed
    event = wire_errors.render_error_event(failed)
    assert event.startswith(b'data: {"error":{')
    assert event.endswith(b"}\n\n")
    rendered = json.loads(event[6:])
    assert set(rendered) == {"error", "responseStatus"}
    assert rendered["error"].items() >= expected.items()


@pytest.mark.parametrize("empty", ["null", "{}", "false", '""'])
def test_empty_error_member_is_ignored(empty: str) -> None:
    event = CONTENT_EVENTS[0].replace(b'{"id"', b'{"error": %s, "id"' % empty.encode())
    assert stream_from(serve_stream(event, *CONTENT_EVENTS[1:], DONE)) == (
        event + b"".join(CONTENT_EVENTS[1:]) + DONE,
        None,
    )


def test_error_like_text_in_content_is_not_an_error() -> None:
    event = chunk('they said {"error": {"message": "x"}} and "finish_reason": "stop", "usage": {"a": 1}')
    received, error = stream_from(serve_stream(event))
    assert received == event
    assert type(error) is ProviderTimeout


def test_json_error_instead_of_events_is_not_billed() -> None:
    _, error = stream_from(serve_stream(b'{"error":{"message":"slow","code":503}}\n\n'))
    assert error is not None
    assert not error.may_be_billed


def choice_event(index: object, content: str = "", finish: str | None = None, **members: object) -> bytes:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **members}).encode() + b"\n\n"


NULL_CHOICES_EVENT = chunk().replace(b'"choices": [', b'"choices": null, "x": [')


@pytest.mark.parametrize(
    ("events", "is_complete"),
    [
        ([choice_event(0, "a"), choice_event(1, "b"), choice_event(0, finish="stop")], False),
        ([choice_event(0, "a"), choice_event(0, finish="stop"), choice_event(1, "b")], False),
        (
            [
                choice_event(0, "a"),
                choice_event(1, "b"),
                choice_event(0, finish="stop"),
                choice_event(1, finish="length"),
            ],
            True,
        ),
        ([choice_event(0, "a", finish="")], False),
        ([choice_event(0, "a", finish=""), choice_event(0, finish="stop")], True),
        ([choice_event(0, "a", finish="stop"), choice_event(0)], True),
        ([choice_event("0", "a"), choice_event("0", finish="stop")], True),
        ([choice_event(None, "a"), choice_event(None, finish="stop")], True),
        ([choice_event(0, "a"), choice_event(0, finish="stop", object=1)], True),
        ([NULL_CHOICES_EVENT, choice_event(0, "a"), NULL_CHOICES_EVENT], False),
        ([NULL_CHOICES_EVENT, choice_event(0, "a", finish="stop"), NULL_CHOICES_EVENT], True),
        ([choice_event(0, "\ud83d"), choice_event(0, "\udc00", finish="stop")], True),
        ([choice_event(0, "a", logprob=float("nan"))], False),
        ([choice_event(0, "a", finish="stop", logprob=float("nan"))], True),
    ],
)
def test_stream_without_done_is_complete_when_all_choices_are_finished(events: list[bytes], is_complete: bool) -> None:
    received, error = stream_from(serve_stream(*events))
    assert received == b"".join(events)
    assert (error is None) == is_complete


# --- usage ---

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
USAGE_EVENT = chunk(choices=[], usage=USAGE)


def test_usage_is_recorded_and_relayed_if_not_requested_by_the_gateway() -> None:
    with (
        hostile_servers.receiver(serve_stream(*CONTENT_EVENTS, USAGE_EVENT, DONE)) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        assert read_stream(stream.events) == (b"".join(CONTENT_EVENTS) + USAGE_EVENT + DONE, None)
        assert json.loads(stream.mapper.usage or "") == USAGE
    assert server.requests[0].endswith(REQUEST_BODY.decode())


def test_usage_in_the_last_event_is_recorded_and_relayed() -> None:
    last_event = chunk(finish="stop", usage=USAGE)
    with (
        hostile_servers.receiver(serve_stream(CONTENT_EVENTS[0], last_event, DONE)) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1", preset="vllm")) as stream,
    ):
        assert read_stream(stream.events) == (CONTENT_EVENTS[0] + last_event + DONE, None)
        assert json.loads(stream.mapper.usage or "") == USAGE


@pytest.mark.parametrize(
    ("request_body", "expected_options", "is_relayed"),
    [
        (REQUEST_BODY, {"include_usage": True}, False),
        (REQUEST_BODY[:-1] + b',"stream_options":{"include_usage":true}}', {"include_usage": True}, True),
        (
            REQUEST_BODY[:-1] + b',"stream_options":{"include_usage": false,"x":1}}',
            {"include_usage": True, "x": 1},
            False,
        ),
        (REQUEST_BODY[:-1] + b',"stream_options":null}', {"include_usage": True}, False),
    ],
)
def test_usage_is_requested_from_the_server_and_relayed_on_request(
    request_body: bytes, expected_options: dict[str, object], is_relayed: bool
) -> None:
    first_event = chunk(choices=[], prompt_filter_results=[])  # Azure's first event: no choices, no usage
    with (
        hostile_servers.receiver(serve_stream(first_event, *CONTENT_EVENTS, USAGE_EVENT, DONE)) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1", preset="vllm"), body=request_body) as stream,
    ):
        received, error = read_stream(stream.events)
        assert error is None
        assert received == first_event + b"".join(CONTENT_EVENTS) + (USAGE_EVENT if is_relayed else b"") + DONE
        assert json.loads(stream.mapper.usage or "") == USAGE
    upstream_body = json.loads(server.requests[0].partition("\r\n\r\n")[2])
    assert upstream_body.pop("stream_options") == expected_options
    assert upstream_body == {k: v for k, v in json.loads(request_body).items() if k != "stream_options"}


def test_truncated_stream_reports_its_number_of_content_events() -> None:
    with (
        hostile_servers.receiver(serve_stream(chunk(""), *CONTENT_EVENTS[:3], end=b"")) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        read_stream(stream.events)
        assert (stream.mapper.usage, stream.mapper.content_events) == (None, 3)


# --- responses ---


def responses(*types: str) -> list[bytes]:
    response = {"id": "r", "usage": {"input_tokens": 1, "output_tokens": 2}}
    events = [
        {"type": type_, "delta": "hi"} if "delta" in type_ else {"type": type_, "response": response} for type_ in types
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", "response.failed"])
def test_responses_stream_ends_with_its_last_event(last: str) -> None:
    events = responses("response.created", "response.output_text.delta", last)
    with (
        hostile_servers.receiver(serve_stream(*events)) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1", preset="openai"), "responses") as stream,
    ):
        assert read_stream(stream.events) == (b"".join(events), None)
        assert json.loads(stream.mapper.usage or "") == {"input_tokens": 1, "output_tokens": 2}
        assert stream.mapper.content_events == 1
    assert "stream_options" not in server.requests[0]


def test_responses_stream_ends_despite_lone_surrogates_in_its_text() -> None:
    (end,) = responses("response.completed")
    end = end.replace(b'"id": "r"', b'"id": "r", "text": "\\ud83d"')
    assert stream_from(serve_stream(end), operation="responses") == (end, None)


def test_responses_stream_error_has_its_status_before_and_after_output() -> None:
    error = b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"slow","param":null}\n\n'
    received, failed = stream_from(serve_stream(error), operation="responses")
    assert (received, type(failed)) == (b"", ProviderRateLimited)
    events = responses("response.created", "response.output_text.delta")
    received, failed = stream_from(serve_stream(*events, error), operation="responses")
    assert received == b"".join(events)
    assert failed is not None
    assert json.loads(wire_errors.render_error_event(failed)[6:])["error"]["message"] == "slow"


def test_responses_stream_without_last_event_is_a_timeout_error() -> None:
    events = responses("response.created", "response.output_text.delta")
    received, error = stream_from(serve_stream(*events), operation="responses")
    assert received == b"".join(events)
    assert type(error) is ProviderTimeout


# --- timeouts ---


def test_first_event_that_arrives_in_parts_is_not_preceded_by_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    event, middle = CONTENT_EVENTS[0], len(CONTENT_EVENTS[0]) // 2
    nothing_yet = threading.Event()

    def split_and_report(batches: Iterator[list[bytes] | None], name: str) -> Iterator[list[bytes] | None]:
        for events in split_events(batches, name):
            if events is None:
                nothing_yet.set()
            yield events

    def send_second_part_late(connection: hostile_servers.Connection) -> None:
        hostile_servers.send_raw(HEAD + http_chunks(event[:middle]))(connection)
        assert nothing_yet.wait(60)
        connection.socket.sendall(http_chunks(event[middle:]))
        hostile_servers.hang(connection)

    monkeypatch.setattr(dispatch, "split_events", split_and_report)
    with (
        hostile_servers.receiver(send_second_part_late) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        assert next(stream.events) == event


def test_silence_longer_than_timeout_s_ends_a_stream_that_has_begun() -> None:
    with (
        hostile_servers.receiver(hostile_servers.send_then_hang(HEAD + http_chunks(CONTENT_EVENTS[0]))) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1", timeout_s=0.2)) as stream,
    ):
        received, error = read_stream(stream.events)
    assert received == CONTENT_EVENTS[0]
    assert type(error) is ProviderTimeout
    assert error.may_be_billed
    assert error.message == "Provider p: no event received within its timeout_s"


def test_silence_after_a_complete_response_is_a_success() -> None:
    events = b"".join(CONTENT_EVENTS)
    with (
        hostile_servers.receiver(hostile_servers.send_then_hang(HEAD + http_chunks(events))) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1", timeout_s=0.2)) as stream,
    ):
        assert read_stream(stream.events) == (events, None)


class SteppingClock(FakeClock):
    """A clock that, from the first connection of a server on, advances with each reading."""

    def __init__(self, step_s: float) -> None:
        super().__init__()
        self._step_s = step_s
        self._is_running = False

    def now_ms(self) -> int:
        self.advance(self._step_s if self._is_running else 0)
        return self.now

    def run_with(self, behaviour: hostile_servers.Behaviour) -> hostile_servers.Behaviour:
        def behave(connection: hostile_servers.Connection) -> None:
            self._is_running = True
            behaviour(connection)

        return behave


def test_silent_stream_is_handed_over_after_the_first_event_timeout() -> None:
    clock = SteppingClock(FIRST_EVENT_TIMEOUT_MS / 1000)
    with (
        hostile_servers.receiver(clock.run_with(hostile_servers.send_then_hang(HEAD))) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1"), total_timeout_s=600, clock=clock) as stream,
    ):
        assert next(stream.events) == sse.PING


@pytest.mark.parametrize(
    ("timeout_s", "total_s", "message"),
    [
        (0.2, 20, "no event received within its timeout_s"),
        (600, 0.2, "no response within the time limit"),
    ],
)
def test_shorter_timeouts_limit_the_wait_for_the_first_event(timeout_s: float, total_s: float, message: str) -> None:
    with (
        hostile_servers.receiver(hostile_servers.send_then_hang(HEAD + http_chunks(b": wait\n\n"))) as server,
        pytest.raises(ProviderTimeout, match=message),
        open_stream(
            provider(f"http://127.0.0.1:{server.port}/v1", timeout_s=timeout_s),
            total_timeout_s=total_s,
            clock=SystemClock(),
        ),
    ):
        pass


def test_first_event_timeout_limits_the_wait() -> None:
    clock, waits = FakeClock(), iter(range(9))
    assert read_first_event(silent_stream(clock, waits), clock, 600_000, "p") == [None] * 3
    assert next(waits) == 3


def test_first_event_timeout_without_remaining_time_is_an_error() -> None:
    clock = FakeClock()
    with pytest.raises(ProviderTimeout, match="no response within the time limit"):
        read_first_event(silent_stream(clock, iter(range(9))), clock, FIRST_EVENT_TIMEOUT_MS, "p")


def silent_stream(clock: FakeClock, waits: Iterator[int]) -> Iterator[bytes | None]:
    """The client events of a silent provider; each wait takes a third of the first event timeout."""

    def wait() -> Iterator[None]:
        for _ in waits:
            clock.advance(FIRST_EVENT_TIMEOUT_MS / 3000)
            yield None

    return map_events(wait(), openai_mapper(), "p")


def test_late_head_reduces_the_wait_for_the_first_event() -> None:
    clock = SteppingClock(8)
    with (
        hostile_servers.receiver(clock.run_with(hostile_servers.send_then_hang(HEAD))) as server,
        pytest.raises(ProviderTimeout, match="no response within the time limit"),
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1"), total_timeout_s=20, clock=clock),
    ):
        pass


def test_endless_stream_ends_at_the_deadline_of_the_response() -> None:
    clock = SystemClock()
    exit_types: list[object] = []
    with (
        hostile_servers.receiver(hostile_servers.flood(HEAD, http_chunks(CONTENT_EVENTS[0]))) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1"), total_timeout_s=0.2, clock=clock) as stream,
    ):
        resources = ExitStack()
        resources.push(lambda kind, *_: exit_types.append(kind))
        open_response = OpenStream(stream, resources, on_first_event=lambda: None)
        *_, last_chunk = stream_response(
            "p", open_response, clock, deadline=Deadline.after(0.2, clock), on_end=lambda _: None
        )
    assert b"The deadline passed" in (last_chunk or b"")
    assert exit_types == [None]


def test_stream_that_hangs_is_a_timeout_error() -> None:
    with (
        hostile_servers.receiver(hostile_servers.send_then_hang(HEAD + http_chunks(CONTENT_EVENTS[0]))) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1"), total_timeout_s=0.2) as stream,
    ):
        received, error = read_stream(stream.events)
    assert received == CONTENT_EVENTS[0]
    assert type(error) is ProviderTimeout


def test_missing_response_head_is_a_timeout_error() -> None:
    with (
        hostile_servers.receiver(hostile_servers.hang) as server,
        pytest.raises(ProviderTimeout),
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1"), head_timeout_s=0.2),
    ):
        pass


def test_closing_a_stream_closes_the_provider_connection() -> None:
    closed: list[bool] = []

    def wait_for_close(connection: hostile_servers.Connection) -> None:
        connection.take_request()
        connection.socket.sendall(HEAD + http_chunks(CONTENT_EVENTS[0]))
        closed.append(connection.socket.recv(1) == b"")

    with (
        hostile_servers.receiver(wait_for_close) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        assert next(stream.events) == CONTENT_EVENTS[0]
    assert closed == [True]
