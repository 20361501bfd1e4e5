"""What a provider streams, and how it ends: byte for byte, whole events at a time, a cut never taken for an end."""

import itertools
import json
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.clock import SystemClock
from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers import stream as stream_module
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.openai_stream import OpenAiEvents
from aiserver.providers.stream import FIRST_EVENT_TIMEOUT_MS, ProviderStream
from aiserver.usecases.failover import OpenStream
from aiserver.usecases.stream_response import stream_response
from aiserver.wire import errors as wire_errors
from tests import hostile_servers
from tests.examples import examples
from tests.fakes import FakeClock
from tests.providers.calls import provider
from tests.providers.streaming import DONE, HEAD, QUESTION, chunk, framed, heard, opened, said, streams

TEXT = [chunk("Grüße "), chunk("語"), chunk("😀"), chunk(finish="stop")]
WHOLE = b"".join(TEXT) + DONE
ODD = (
    b": a comment\r\n\r\n"
    b'event: chunk\r\nid: 7\r\ndata: {"choices":[{"delta":\r\ndata: {"content":"a"}}]}\r\n\r\n'
    b'data:{"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n'
    b"retry: 5\n\n" + DONE
)


def fed(pieces: list[bytes]) -> ProviderStream:
    """A stream of pieces that come one by one, without a network."""
    events = OpenAiEvents(provider("http://x/v1"), "chat.completions", hides_usage=False, model_is_configured=True)
    return ProviderStream("p", {}, ([piece] for piece in pieces), events)


# --- what passes ---


@pytest.mark.parametrize("body", [WHOLE, ODD, WHOLE.replace(b"\n", b"\r\n"), WHOLE.replace(b"\n", b"\r")])
def test_every_event_passes_byte_for_byte(body: bytes) -> None:
    assert said(streams(body)) == (body, None)


def test_an_answer_passes_byte_for_byte_wherever_it_is_cut_into_pieces() -> None:
    for body in (WHOLE, ODD):
        for at in range(len(body) + 1):
            came = list(fed([body[:at], body[at:]]))
            assert b"".join(came) == body, at


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6), st.integers(0, len(WHOLE) - 1))
@settings(max_examples=examples(200))
def test_a_cut_is_told_wherever_it_is_and_nothing_of_the_event_it_cuts_has_come(cuts: list[int], end: int) -> None:
    at = sorted({0, *(cut for cut in cuts if cut < end), end})
    pieces = [WHOLE[a:b] for a, b in itertools.pairwise(at)]
    came, error = heard(fed(pieces))
    whole_events = WHOLE[: WHOLE.rfind(b"\n\n", 0, end) + 2] if b"\n\n" in WHOLE[:end] else b""
    if WHOLE[:end].rstrip(b"\n").endswith(b"[DONE]") and end >= len(WHOLE) - 2:  # all but line ends has come
        assert (came.rstrip(b"\n"), error) == (WHOLE.rstrip(b"\n"), None)
    elif end >= len(WHOLE) - len(DONE) - 2:  # the answer is whole, though nobody says so
        assert (came, error) == (b"".join(TEXT), None)
    else:
        assert came == whole_events
        assert isinstance(error, ProviderTimeout)
        assert error.may_be_billed


@pytest.mark.parametrize("at", [1, len(TEXT[0]) - 1, len(TEXT[0]), len(TEXT[0]) + 90, len(b"".join(TEXT[:3]))])
def test_a_connection_that_is_cut_before_the_answer_is_complete_is_told(at: int) -> None:
    came, error = said(streams(WHOLE[:at], end=b""))
    assert came == WHOLE[: WHOLE.rfind(b"\n\n", 0, at) + 2 if b"\n\n" in WHOLE[:at] else 0]
    assert type(error) is ProviderTimeout


def test_a_connection_that_is_cut_after_the_end_was_told_has_ended_well() -> None:
    assert said(streams(WHOLE, end=b"")) == (WHOLE, None)


def test_what_comes_after_the_end_was_told_is_no_part_of_it() -> None:
    assert said(streams(WHOLE, chunk("more"))) == (WHOLE, None)


def test_a_megabyte_in_one_event_passes() -> None:
    large = chunk("x" * 1024 * 1024)
    assert said(streams(large[:1000], large[1000:], chunk(finish="stop"), DONE))[0].startswith(large)


def test_an_event_may_be_as_large_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", 100)
    assert type(heard(fed([b"data: " + b"x" * 94]))[1]) is ProviderTimeout
    assert type(heard(fed([b"data: " + b"x" * 95]))[1]) is ProviderError


def test_what_looks_like_json_after_an_event_is_one_that_broke_off() -> None:
    came, error = said(streams(TEXT[0], b'{"choices":'))
    assert came == TEXT[0]
    assert type(error) is ProviderTimeout


def test_an_event_without_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", 100_000)
    came, error = said(hostile_servers.floods(HEAD + framed(TEXT[0]), framed(b"data: " + b"x" * 1000)))
    assert came == TEXT[0]
    assert error is not None
    assert "too large" in error.message


@pytest.mark.parametrize(
    "type_", ["content-type: text/event-stream; charset=utf-8", "content-type: text/plain", "x: y"]
)
def test_a_stream_is_one_whatever_it_is_called_but_json(type_: str) -> None:
    body = framed(WHOLE) + b"0\r\n\r\n"
    assert said(hostile_servers.says(hostile_servers.head(200, type_, "transfer-encoding: chunked") + body)) == (
        WHOLE,
        None,
    )


def test_a_connection_whose_stream_has_ended_serves_the_next() -> None:
    again: list[int] = []

    def twice(connection: hostile_servers.Connection) -> None:
        for _ in range(2):
            connection.take_request()
            connection.socket.sendall(HEAD + framed(WHOLE) + b"0\r\n\r\n")
            again.append(1)

    with hostile_servers.receiver(twice) as server:
        asked = provider(f"http://127.0.0.1:{server.port}/v1")
        with create_client() as http:
            for _ in range(2):
                stream = OpenAiClient(http, FakeClock()).stream(
                    asked,
                    "chat.completions",
                    QUESTION,
                    api_key="k",
                    model_is_configured=True,
                    head_timeout_s=5,
                    total_timeout_s=5,
                )
                assert heard(stream) == (WHOLE, None)
                stream.close()
        assert server.connections == 1


# --- before the first event: what any answer means ---


def error_event(**error: object) -> bytes:
    return f"data: {json.dumps({'error': {'message': 'no', **error}})}\n\n".encode()


@pytest.mark.parametrize(
    ("behaviour", "means", "status"),
    [
        (
            hostile_servers.answers(429, "content-type: application/json", body=b'{"error":{"message":"slow"}}'),
            ProviderRateLimited,
            429,
        ),
        (
            hostile_servers.answers(401, "content-type: application/json", body=b'{"error":{"message":"sk-1"}}'),
            ProviderAuth,
            502,
        ),
        (hostile_servers.answers(503, "content-type: text/html", body=b"<html>"), ProviderUnavailable, 503),
        (
            hostile_servers.answers(400, "content-type: application/json", body=b'{"error":{"message":"bad"}}'),
            ProviderRejected,
            400,
        ),
        (hostile_servers.answers(200, "content-type: application/json", body=b'{"choices":[{}]}'), ProviderError, 502),
        (
            hostile_servers.answers(200, "content-type: application/json", body=b'{"error":{"message":"late"}}'),
            ProviderError,
            502,
        ),
        (streams(error_event()), ProviderError, 502),
        (streams(error_event(code=429)), ProviderRateLimited, 429),
        (streams(error_event(code=400)), ProviderRejected, 400),
        (streams(error_event(code=401)), ProviderAuth, 502),
        (streams(error_event(code=503)), ProviderUnavailable, 503),
        (streams(error_event(code="insufficient_quota")), ProviderAuth, 502),
        (streams(error_event(code="429")), ProviderRateLimited, 429),
        (streams(error_event(code="invalid_api_key")), ProviderAuth, 502),
        (streams(error_event(type="authentication_error")), ProviderAuth, 502),
        (streams(error_event(type="invalid_request_error", code="context_length_exceeded")), ProviderRejected, 400),
        (streams(b'data: {"error":"Input validation error","error_type":"validation"}\n\n'), ProviderRejected, 400),
        (streams(b'event: error\ndata: {"error": "as a string"}\n\n'), ProviderError, 502),
        (streams(b'event: error\ndata: {"message": "no"}\n\n'), ProviderError, 502),
        (streams(b"event: error\ndata: words\n\n"), ProviderError, 502),
        (streams(b"\xef\xbb\xbfevent: error\ndata: words\n\n"), ProviderError, 502),
        (streams(b"event: error\n\n"), ProviderTimeout, 504),
        (streams(error_event(code="05001")), ProviderError, 502),
        (streams(error_event(code="0404")), ProviderError, 502),
        (streams(b'error: {"code":400,"message":"too long","type":"x"}\n\n' + DONE), ProviderRejected, 400),
        (streams(b'data: [{"error":{"code":400,"message":"no"}}]\n\n'), ProviderRejected, 400),
        (streams(b'data: {"object":"error","message":"no","code":400}\n\n'), ProviderRejected, 400),
        (streams(b'data: {"error":{"message":"\xff","code":400}}\n\n'), ProviderError, 502),
        (streams(b"\xef\xbb\xbf" + error_event(code=429)), ProviderRateLimited, 429),
        (streams(b'{"error":{"message":"slow","code":429}}'), ProviderRateLimited, 429),
        (streams(b'{"error":{"message":"slow","code":429}}\n\n'), ProviderRateLimited, 429),
        (streams(b'{"error":{"message":"slow",\n\n', b'"code":429}}\n\n'), ProviderRateLimited, 429),
        (streams(b'{"choices":[{"message":{"content":"whole"}}]}'), ProviderError, 502),
        (streams(), ProviderTimeout, 504),
        (streams(end=b""), ProviderTimeout, 504),
        (streams(b'data: {"choi', end=b""), ProviderTimeout, 504),
        (hostile_servers.says(), ProviderTimeout, 504),
    ],
)
def test_before_the_first_event_a_failure_has_its_true_status(
    behaviour: hostile_servers.Behaviour, means: type[ProviderError], status: int
) -> None:
    came, error = said(behaviour)
    assert (came, type(error)) == (b"", means)
    assert error is not None
    assert error.status == status


def test_an_error_in_place_of_the_first_event_costs_nothing_so_that_another_may_be_asked() -> None:
    _, error = said(streams(error_event(code=503)))
    assert error is not None
    assert not error.may_be_billed
    assert error.retryable


def test_what_a_refused_key_is_told_reaches_no_caller() -> None:
    for error in (error_event(code="invalid_api_key"), error_event(code="401"), error_event(type="permission_error")):
        came, failed = said(streams(TEXT[0], error.replace(b'"no"', b'"Incorrect API key: sk-ab***yz"')))
        assert came == TEXT[0]
        assert failed is not None
        assert b"sk-ab" not in wire_errors.render_error_event(failed)


# --- after it ---


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"code": 500, "type": "server_error"}, {"message": "no", "code": 500, "type": "server_error"}),
        ({"code": None}, {"message": "no", "code": None}),
        ({"code": 401}, {"message": "The provider refused the gateway's own account or configuration"}),
    ],
)
def test_an_error_within_a_stream_ends_it_in_the_provider_s_words_unless_they_are_about_our_key(
    error: dict[str, object], told: dict[str, object]
) -> None:
    came, failed = said(streams(TEXT[0], error_event(**error), TEXT[1]))
    assert came == TEXT[0]
    assert failed is not None
    assert failed.may_be_billed
    event = wire_errors.render_error_event(failed)
    assert event.startswith(b'data: {"error":{')
    assert event.endswith(b"}\n\n")
    said_error = json.loads(event[6:])
    assert set(said_error) == {"error", "responseStatus"}
    assert said_error["error"].items() >= told.items()


@pytest.mark.parametrize("nothing", ["null", "{}", "false", '""'])
def test_a_member_that_says_there_is_no_error_is_none(nothing: str) -> None:
    event = TEXT[0].replace(b'{"id"', b'{"error": %s, "id"' % nothing.encode())
    assert said(streams(event, *TEXT[1:], DONE)) == (event + b"".join(TEXT[1:]) + DONE, None)


def test_words_about_an_error_are_no_error() -> None:
    event = chunk('they said {"error": {"message": "x"}} and "finish_reason": "stop", "usage": {"a": 1}')
    came, error = said(streams(event))
    assert came == event
    assert type(error) is ProviderTimeout


def test_an_error_in_json_instead_of_events_is_not_billed() -> None:
    _, error = said(streams(b'{"error":{"message":"slow","code":503}}\n\n'))
    assert error is not None
    assert not error.may_be_billed


def of_two(index: object, content: str = "", finish: str | None = None, **more: object) -> bytes:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


OF_NO_TYPE = chunk().replace(b'"choices": [', b'"choices": null, "x": [')


@pytest.mark.parametrize(
    ("events", "is_whole"),
    [
        ([of_two(0, "a"), of_two(1, "b"), of_two(0, finish="stop")], False),
        ([of_two(0, "a"), of_two(0, finish="stop"), of_two(1, "b")], False),
        ([of_two(0, "a"), of_two(1, "b"), of_two(0, finish="stop"), of_two(1, finish="length")], True),
        ([of_two(0, "a", finish="")], False),
        ([of_two(0, "a", finish=""), of_two(0, finish="stop")], True),
        ([of_two(0, "a", finish="stop"), of_two(0)], True),
        ([of_two("0", "a"), of_two("0", finish="stop")], True),
        ([of_two(None, "a"), of_two(None, finish="stop")], True),
        ([of_two(0, "a"), of_two(0, finish="stop", object=1)], True),
        ([OF_NO_TYPE, of_two(0, "a"), OF_NO_TYPE], False),
        ([OF_NO_TYPE, of_two(0, "a", finish="stop"), OF_NO_TYPE], True),
        ([of_two(0, "\ud83d"), of_two(0, "\udc00", finish="stop")], True),
        ([of_two(0, "a", logprob=float("nan"))], False),
        ([of_two(0, "a", finish="stop", logprob=float("nan"))], True),
    ],
)
def test_an_answer_without_its_last_word_is_whole_once_each_of_its_choices_has_finished(
    events: list[bytes], is_whole: bool
) -> None:
    came, error = said(streams(*events))
    assert came == b"".join(events)
    assert (error is None) == is_whole


# --- usage ---

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
USAGE_EVENT = chunk(choices=[], usage=USAGE)


def test_usage_is_kept_where_it_is_told_and_passes_where_it_was_not_asked_for_by_us() -> None:
    with (
        hostile_servers.receiver(streams(*TEXT, USAGE_EVENT, DONE)) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        assert heard(stream) == (b"".join(TEXT) + USAGE_EVENT + DONE, None)
        assert json.loads(stream.mapper.usage or "") == USAGE
    assert server.requests[0].endswith(QUESTION.decode())


def test_usage_that_comes_with_the_last_word_is_kept_and_passes() -> None:
    last = chunk(finish="stop", usage=USAGE)
    with (
        hostile_servers.receiver(streams(TEXT[0], last, DONE)) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1", preset="vllm")) as stream,
    ):
        assert heard(stream) == (TEXT[0] + last + DONE, None)
        assert json.loads(stream.mapper.usage or "") == USAGE


@pytest.mark.parametrize(
    ("sent", "asked", "shown"),
    [
        (QUESTION, {"include_usage": True}, False),
        (QUESTION[:-1] + b',"stream_options":{"include_usage":true}}', {"include_usage": True}, True),
        (QUESTION[:-1] + b',"stream_options":{"include_usage": false,"x":1}}', {"include_usage": True, "x": 1}, False),
        (QUESTION[:-1] + b',"stream_options":null}', {"include_usage": True}, False),
    ],
)
def test_usage_is_asked_of_a_server_that_takes_it_and_shown_to_a_caller_who_asked(
    sent: bytes, asked: dict[str, object], shown: bool
) -> None:
    first = chunk(choices=[], prompt_filter_results=[])  # of Azure: no choices, and no usage
    with (
        hostile_servers.receiver(streams(first, *TEXT, USAGE_EVENT, DONE)) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1", preset="vllm"), body=sent) as stream,
    ):
        came, error = heard(stream)
        assert error is None
        assert came == first + b"".join(TEXT) + (USAGE_EVENT if shown else b"") + DONE
        assert json.loads(stream.mapper.usage or "") == USAGE
    body = json.loads(server.requests[0].partition("\r\n\r\n")[2])
    assert body.pop("stream_options") == asked
    assert body == {k: v for k, v in json.loads(sent).items() if k != "stream_options"}


def test_what_is_known_of_an_answer_that_breaks_off_is_how_many_pieces_came() -> None:
    with (
        hostile_servers.receiver(streams(chunk(""), *TEXT[:3], end=b"")) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        heard(stream)
        assert (stream.mapper.usage, stream.mapper.content_events) == (None, 3)


# --- responses ---


def responses(*types: str) -> list[bytes]:
    told = {"id": "r", "usage": {"input_tokens": 1, "output_tokens": 2}}
    events = [
        {"type": type_, "delta": "hi"} if "delta" in type_ else {"type": type_, "response": told} for type_ in types
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", "response.failed"])
def test_a_response_ends_with_its_own_last_event(last: str) -> None:
    events = responses("response.created", "response.output_text.delta", last)
    with (
        hostile_servers.receiver(streams(*events)) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1", preset="openai"), "responses") as stream,
    ):
        assert heard(stream) == (b"".join(events), None)
        assert json.loads(stream.mapper.usage or "") == {"input_tokens": 1, "output_tokens": 2}
        assert stream.mapper.content_events == 1
    assert "stream_options" not in server.requests[0]


def test_a_response_ends_whatever_its_text_escapes() -> None:
    (end,) = responses("response.completed")
    end = end.replace(b'"id": "r"', b'"id": "r", "text": "\\ud83d"')
    assert said(streams(end), operation="responses") == (end, None)


def test_an_error_of_a_response_has_its_status_before_it_has_begun_and_ends_it_after() -> None:
    error = b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"slow","param":null}\n\n'
    came, failed = said(streams(error), operation="responses")
    assert (came, type(failed)) == (b"", ProviderRateLimited)
    begun = responses("response.created", "response.output_text.delta")
    came, failed = said(streams(*begun, error), operation="responses")
    assert came == b"".join(begun)
    assert failed is not None
    assert json.loads(wire_errors.render_error_event(failed)[6:])["error"]["message"] == "slow"


def test_a_response_that_just_ends_has_broken_off() -> None:
    events = responses("response.created", "response.output_text.delta")
    came, error = said(streams(*events), operation="responses")
    assert came == b"".join(events)
    assert type(error) is ProviderTimeout


# --- time ---


def test_a_stream_that_has_begun_but_says_nothing_is_handed_on_when_patience_ends() -> None:
    class Hasty(FakeClock):
        def now_ms(self) -> int:
            self.now += FIRST_EVENT_TIMEOUT_MS
            return self.now

    with (
        hostile_servers.receiver(hostile_servers.then_hangs(HEAD)) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1"), total_s=600, clock=Hasty()) as stream,
    ):
        assert next(iter(stream)) is None
        assert not stream.has_first_event


@pytest.mark.parametrize(("timeout_s", "total_s"), [(0.2, 20), (600, 0.2)])
def test_who_has_less_patience_than_usual_does_not_wait_longer_for_the_first_event(
    timeout_s: float, total_s: float
) -> None:
    with (
        hostile_servers.receiver(hostile_servers.then_hangs(HEAD + framed(b": wait\n\n"))) as server,
        pytest.raises(ProviderTimeout, match="did not answer in time"),
        opened(
            provider(f"http://127.0.0.1:{server.port}/v1", timeout_s=timeout_s), total_s=total_s, clock=SystemClock()
        ),
    ):
        pass


def test_the_first_event_is_waited_for_as_long_as_was_said_and_no_longer() -> None:
    class Ticking(FakeClock):
        def now_ms(self) -> int:
            self.now += FIRST_EVENT_TIMEOUT_MS // 3
            return self.now

    waits = iter(range(9))
    events = OpenAiEvents(provider("http://x/v1"), "chat.completions", hides_usage=False, model_is_configured=True)
    stream = ProviderStream("p", {}, ([] for _ in waits), events)
    stream.await_first_event(Ticking(), 600_000)
    assert next(waits) == 2


def test_who_waits_no_longer_than_usual_hears_that_nothing_came() -> None:
    class Hasty(FakeClock):
        def now_ms(self) -> int:
            self.now += FIRST_EVENT_TIMEOUT_MS
            return self.now

    events = OpenAiEvents(provider("http://x/v1"), "chat.completions", hides_usage=False, model_is_configured=True)
    with pytest.raises(ProviderTimeout, match="did not answer in time"):
        ProviderStream("p", {}, ([] for _ in range(9)), events).await_first_event(Hasty(), FIRST_EVENT_TIMEOUT_MS)


def test_a_head_that_came_late_leaves_less_time_for_the_first_event() -> None:
    class Later(FakeClock):
        def now_ms(self) -> int:
            self.now += 8_000
            return self.now

    with (
        hostile_servers.receiver(hostile_servers.then_hangs(HEAD)) as server,
        pytest.raises(ProviderTimeout, match="did not answer in time"),
        opened(provider(f"http://127.0.0.1:{server.port}/v1"), total_s=20, clock=Later()),
    ):
        pass


def test_whoever_passes_on_a_stream_that_never_ends_sees_its_time_run_out_before_the_stream_does() -> None:
    clock = SystemClock()
    left: list[object] = []
    with (
        hostile_servers.receiver(hostile_servers.floods(HEAD, framed(TEXT[0]))) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1"), total_s=0.2, clock=clock) as stream,
    ):
        held = ExitStack()
        held.push(lambda kind, *_: left.append(kind))
        begun = OpenStream(stream, held, idle_timeout_s=20, on_first_event=lambda: None)
        *_, last = stream_response("p", begun, clock, deadline_ms=clock.now_ms() + 200, on_end=lambda _: None)
    assert b"no time left" in last
    assert left == [None]


def test_a_stream_that_does_not_end_in_time_is_ended() -> None:
    with (
        hostile_servers.receiver(hostile_servers.then_hangs(HEAD + framed(TEXT[0]))) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1"), total_s=0.2) as stream,
    ):
        came, error = heard(stream)
    assert came == TEXT[0]
    assert type(error) is ProviderTimeout


def test_a_head_that_does_not_come_in_time_is_not_waited_for() -> None:
    with (
        hostile_servers.receiver(hostile_servers.hangs) as server,
        pytest.raises(ProviderTimeout),
        opened(provider(f"http://127.0.0.1:{server.port}/v1"), begin_s=0.2),
    ):
        pass


def test_whoever_closes_a_stream_ends_the_provider_s_call() -> None:
    left: list[bool] = []

    def waits(connection: hostile_servers.Connection) -> None:
        connection.take_request()
        connection.socket.sendall(HEAD + framed(TEXT[0]))
        left.append(connection.socket.recv(1) == b"")

    with hostile_servers.receiver(waits) as server, opened(provider(f"http://127.0.0.1:{server.port}/v1")) as stream:
        assert next(iter(stream)) == TEXT[0]
    assert left == [True]
