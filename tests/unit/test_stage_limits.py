"""The stages of a provider's stream at their limits: sizes, timeouts, and ends that make a response incomplete."""

from collections.abc import Iterator
from typing import Any

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.providers import stream
from aiserver.providers.stream import (
    ByteCounter,
    keep_alive,
    map_events,
    read_first_bytes,
    read_first_event,
    relay_bytes,
    split_events,
)
from aiserver.wire import sse
from tests.fakes import FakeClock

COMMENT, HIDDEN, EVENT, LAST = b": wait\n\n", b'data: {"hidden":1}\n\n', b'data: {"content":1}\n\n', b"data: last\n\n"
DONE, END = b"data: [DONE]\n\n", b"data: end\n\n"
CUT = ProviderError("connection lost", may_be_billed=True)
LIMIT_BYTES = 100


class ScriptedMapper:
    """EventMapper that hides HIDDEN; the response is complete after LAST or DONE, and gets END unless DONE came."""

    def __init__(self) -> None:
        self.usage = self.request_id = None
        self.content_events = 0
        self.is_complete = self.is_done = False
        self.received: list[bytes] = []

    def on_event(self, event: bytes) -> bytes:
        self.received.append(event)
        self.content_events += event == EVENT
        self.is_done = self.is_done or event == DONE
        self.is_complete = self.is_complete or event in (DONE, LAST)
        return b"" if b"hidden" in event else event

    def on_end(self) -> bytes:
        return END


def script(*steps: Any, clock: FakeClock | None = None) -> Iterator[Any]:
    """Yield the steps; an integer is a time in milliseconds that passes, an exception is raised."""
    for step in steps:
        if isinstance(step, int):
            assert clock
            clock.now += step
        elif isinstance(step, Exception):
            raise step
        else:
            yield step


def relay(
    *batches: object, mapper: ScriptedMapper | None = None, can_end_with_connection: bool = False
) -> list[bytes | None]:
    events = map_events(
        script(*batches), mapper or ScriptedMapper(), "p", can_end_with_connection=can_end_with_connection
    )
    return list(events)


# --- split_events ---


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the limits of events and responses to LIMIT_BYTES."""
    monkeypatch.setattr(stream, "MAX_EVENT_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(stream, "MAX_RESPONSE_BYTES", LIMIT_BYTES)


def test_batches_become_events_and_none() -> None:
    items = list(split_events(script(None, [], [b"data: 1\n"], [b"\n", b"data"], [b": 2"]), "p"))
    assert items == [None, None, None, [b"data: 1\n\n"], None, [b"data: 2"]]
    assert isinstance((items[-1] or [])[0], sse.IncompleteEvent)


@pytest.mark.usefixtures("small_limits")
def test_incomplete_event_of_the_largest_size_is_relayed() -> None:
    events = split_events(script([b"x" * LIMIT_BYTES], [b"\n\n"]), "p")
    assert list(events) == [None, [b"x" * LIMIT_BYTES + b"\n\n"]]


@pytest.mark.usefixtures("small_limits")
def test_incomplete_event_over_the_largest_size_is_an_error() -> None:
    events = split_events(script([b"x" * (LIMIT_BYTES + 1)]), "p")
    assert [next(events), next(events)] == [None, [b"x" * (LIMIT_BYTES + 1)]]
    with pytest.raises(ProviderError, match="an event of the stream is too large"):
        next(events)


# --- relay_bytes, read_first_bytes ---


@pytest.mark.usefixtures("small_limits")
def test_file_of_the_largest_size_is_relayed() -> None:
    counter = ByteCounter(None)
    data = list(relay_bytes(script(None, [], [b"x", b"y"], [b""], [b"z" * (LIMIT_BYTES - 2)]), counter, "p"))
    assert data == [None, None, b"xy", None, b"z" * (LIMIT_BYTES - 2)]
    assert (counter.content_events, counter.is_complete, counter.is_done) == (2, True, True)


@pytest.mark.usefixtures("small_limits")
def test_file_over_the_largest_size_is_an_error() -> None:
    counter = ByteCounter(None)
    data = relay_bytes(script([b"x" * LIMIT_BYTES], [b"x"]), counter, "p")
    assert next(data) == b"x" * LIMIT_BYTES
    with pytest.raises(ProviderError, match="the response is too large"):
        next(data)
    assert (counter.content_events, counter.is_complete, counter.is_done) == (1, False, False)


@pytest.mark.parametrize("batches", [[], [None], [[]], [[b""]]])
def test_file_without_bytes_is_an_error(batches: list[Any]) -> None:
    counter = ByteCounter(None)
    with pytest.raises(ProviderError, match="the response is empty"):
        list(relay_bytes(script(*batches), counter, "p"))
    assert (counter.content_events, counter.is_complete, counter.is_done) == (0, False, False)


@pytest.mark.parametrize(("wait_ms", "in_time"), [(999, True), (1_000, False)])
def test_first_bytes_must_arrive_before_the_timeout(wait_ms: int, in_time: bool) -> None:
    clock = FakeClock()
    chunks = script(None, wait_ms, b"", b"RIFF", clock=clock)
    if in_time:
        assert read_first_bytes(chunks, clock, 1_000, "p") == b"RIFF"
    else:
        with pytest.raises(ProviderTimeout, match="no response within the time limit"):
            read_first_bytes(chunks, clock, 1_000, "p")


def test_first_bytes_at_the_timeout_are_in_time() -> None:
    clock = FakeClock()
    assert read_first_bytes(script(1_000, b"RIFF", clock=clock), clock, 1_000, "p") == b"RIFF"
    assert read_first_bytes(script(None), clock, 1_000, "p") == b""


# --- keep_alive, read_first_event ---


def test_ping_is_sent_exactly_fifteen_seconds_after_the_last_event() -> None:
    clock = FakeClock()
    events = script(None, None, EVENT, 14_999, None, 1, None, 14_999, b"", 1, EVENT, None, clock=clock)
    assert list(keep_alive(events, clock)) == [sse.PING, None, EVENT, None, sse.PING, None, EVENT, None]
    assert list(keep_alive(script(EVENT, 15_000, b"", clock=clock), clock)) == [EVENT, sse.PING]


@pytest.mark.parametrize(
    ("timeout_ms", "wait_ms", "received"),
    [
        (60_000, 14_999, [None, EVENT]),
        (60_000, 15_000, [None]),
        (15_001, 15_000, [None]),
        (15_000, 14_999, [None, EVENT]),
        (15_000, 15_000, None),
        (1_000, 999, [None, EVENT]),
        (1_000, 1_000, None),
    ],
)
def test_first_event_is_awaited_for_fifteen_seconds_or_the_timeout(
    timeout_ms: int, wait_ms: int, received: list[bytes | None] | None
) -> None:
    clock = FakeClock()
    events = script(wait_ms, None, EVENT, COMMENT, clock=clock)
    if received is None:
        with pytest.raises(ProviderTimeout, match="no response within the time limit"):
            read_first_event(events, clock, timeout_ms, "p")
    else:
        assert read_first_event(events, clock, timeout_ms, "p") == received


def test_stream_that_ends_without_an_event_is_no_timeout() -> None:
    clock = FakeClock()
    assert read_first_event(script(None, COMMENT), clock, 1_000, "p") == [None, COMMENT]


@pytest.mark.usefixtures("small_limits")
def test_comments_of_the_largest_size_precede_the_first_event() -> None:
    clock, comment = FakeClock(), b":" * (LIMIT_BYTES // 2 - 2) + b"\n\n"
    assert read_first_event(script(comment, None, comment, EVENT), clock, 1_000, "p") == [comment, None, comment, EVENT]
    with pytest.raises(ProviderError, match="the stream contains only comments"):
        read_first_event(script(comment, None, comment, b"\n", EVENT), clock, 1_000, "p")


# --- map_events ---


def test_client_events_of_a_batch_are_joined() -> None:
    assert relay(None, [], [COMMENT, EVENT], [HIDDEN], [EVENT, LAST]) == [
        *(None, None, COMMENT + EVENT, None, EVENT + LAST, END)
    ]
    assert relay([EVENT, DONE, EVENT], [EVENT]) == [EVENT + DONE]


def test_end_of_a_complete_response_without_client_events_is_none() -> None:
    class SilentMapper(ScriptedMapper):
        def on_end(self) -> bytes:
            return b""

    assert relay([LAST], mapper=SilentMapper()) == [LAST, None]


def test_events_before_an_error_are_sent() -> None:
    class FailingMapper(ScriptedMapper):
        def on_event(self, event: bytes) -> bytes:
            if event == LAST:
                raise CUT
            return super().on_event(event)

    for batch, sent in (([EVENT, LAST], [EVENT]), ([HIDDEN, LAST], []), ([LAST], [])):
        items = map_events(script(batch), FailingMapper(), "p")
        assert [next(items) for _ in sent] == sent
        with pytest.raises(ProviderError, match="connection lost"):
            next(items)


@pytest.mark.parametrize(
    ("last", "sent"),
    [
        (b"data: [DONE]", DONE),
        (b"data:  [DONE] ", b"data:  [DONE] \n\n" + END),
        (b'data: {"content":1}', EVENT + END),
        (b'{"bare":1}', b'data: {"bare":1}\n\n' + END),
        (b"data: half", END),
        (b": comment", END),
        (b"event: x", END),
    ],
)
def test_last_event_without_its_blank_line_is_mapped_if_it_is_json_or_done(last: bytes, sent: bytes) -> None:
    assert relay([EVENT, LAST], [sse.IncompleteEvent(last)]) == [EVENT + LAST, None, sent]


def test_bare_json_object_within_a_stream_is_wrapped_as_an_event() -> None:
    mapper = ScriptedMapper()
    relay([EVENT, b'{"error":1}\n\n', b'[{"error":1}]\n\n', b"[1]\n\n", b"{half\n\n", b" 1\n\n", LAST], mapper=mapper)
    wrapped = [b'data: {"error":1}\n\n', b'data: [{"error":1}]\n\n']
    assert mapper.received == [EVENT, *wrapped, b"[1]\n\n", b"{half\n\n", b" 1\n\n", LAST]


def test_response_without_its_end_is_incomplete() -> None:
    for batches in ([[EVENT]], [[HIDDEN]], [[COMMENT]], []):
        with pytest.raises(ProviderTimeout, match="the stream ended before the response was complete"):
            relay(*batches)
    with pytest.raises(ProviderError) as raised:
        relay([EVENT], CUT)
    assert raised.value is CUT


@pytest.mark.parametrize("last", [LAST, DONE])
def test_connection_lost_after_a_complete_response_is_no_error(last: bytes) -> None:
    assert relay([last], CUT) == [last, *([END] if last == LAST else [])]


@pytest.mark.parametrize(
    ("events", "is_complete"),
    [([EVENT], True), ([HIDDEN], True), ([EVENT, b'data: {"type" : "a"}\n\n', EVENT], False), ([COMMENT], False)],
)
def test_events_without_type_may_end_with_the_connection(events: list[bytes], is_complete: bool) -> None:
    if is_complete:
        assert relay(events, can_end_with_connection=True)[-1] == END
    else:
        with pytest.raises(ProviderTimeout):
            relay(events, can_end_with_connection=True)
    with pytest.raises(ProviderTimeout):
        relay(events)
    with pytest.raises(ProviderError, match="connection lost"):
        relay(events, CUT, can_end_with_connection=True)


@pytest.mark.parametrize(
    ("last", "is_complete"),
    [
        (b'data: {"content":1}', True),
        (b": comment", True),
        (b"data: ", True),
        (b"data: half", False),
        (b'data: {"ha', False),
    ],
)
def test_event_that_breaks_off_makes_a_response_incomplete(last: bytes, is_complete: bool) -> None:
    batches = ([EVENT], [sse.IncompleteEvent(last)])
    if is_complete:
        assert (relay(*batches, can_end_with_connection=True)[-1] or b"").endswith(END)
    else:
        with pytest.raises(ProviderTimeout):
            relay(*batches, can_end_with_connection=True)


def test_message_of_the_first_ignored_event_is_reported_without_content() -> None:
    first, second = b'data: {"hidden":1,"message":"first"}\n\n', b'data: {"hidden":1,"message":"second"}\n\n'
    for batch in ([first, second], [HIDDEN, first], [first, COMMENT]):
        with pytest.raises(ProviderError) as raised:
            relay(batch)
        assert raised.value.message.endswith("first" if batch[0] == first else "complete")
    with pytest.raises(ProviderTimeout, match="before the response was complete"):
        relay([EVENT, first])
    with pytest.raises(ProviderTimeout, match="before the response was complete"):
        relay([b'data: {"message":"visible"}\n\n'])


# --- a body that is no event stream ---


def test_json_body_is_mapped_as_an_event() -> None:
    mapper = ScriptedMapper()
    with pytest.raises(ProviderError, match=r"^no model$") as raised:
        relay([b'{"error":\n\n'], [sse.IncompleteEvent(b'"no model"}')], mapper=mapper)
    assert not isinstance(raised.value, ProviderTimeout)
    assert mapper.received == [b'data: {"error":  "no model"}\n\n']


def test_json_body_is_reported_rather_than_a_lost_connection() -> None:
    with pytest.raises(ProviderError, match=r"^no model$"):
        relay([b'{"error":"no model"}\n\n'], CUT)
    for body in (b'{"error":\n\n', b"<html>away</html>\n\n", b"[1]\n\n"):
        with pytest.raises(ProviderError) as raised:
            relay([body], CUT)
        assert raised.value is CUT


def test_page_is_reported_by_its_text() -> None:
    for body in ([b"<p>away\n\n", b"</p>\n\n"], [b"<p>\n\n", b"away\n\n", sse.IncompleteEvent(b"</p>")]):
        with pytest.raises(ProviderError, match=r"^away$"):
            relay(body)
    with pytest.raises(ProviderError, match="the response is not a stream"):
        relay([b"<br><br><br>\n\n"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"not found", "Provider p: the stream ended before the response was complete"),
        (b" not found\n", "Provider p: the stream ended before the response was complete"),
        (b"not found!", "not found!"),
        (b"event: not found", "Provider p: the stream ended before the response was complete"),
        (b"error: not found", "Provider p: the stream ended before the response was complete"),
    ],
)
def test_text_over_nine_bytes_is_reported_unless_it_is_a_field(text: bytes, message: str) -> None:
    with pytest.raises(ProviderError) as raised:
        relay([sse.IncompleteEvent(text)])
    assert raised.value.message == message


@pytest.mark.usefixtures("small_limits")
def test_body_of_the_largest_size_is_reported() -> None:
    body = b"<p>" + b"x" * (LIMIT_BYTES - 5) + b"\n\n"
    with pytest.raises(ProviderError, match=r"^x+$"):
        relay([body])
    with pytest.raises(ProviderError, match="an event of the stream is too large"):
        relay([body, b"x"])


def test_json_after_an_event_is_no_body() -> None:
    assert relay([EVENT, b"<p>\n\n", LAST]) == [EVENT + b"<p>\n\n" + LAST, END]


# --- wire.sse ---


def test_blank_line_at_the_start_is_an_event() -> None:
    assert sse.EventSplitter().split(b"\n\ndata: 1\n\n") == [b"\n\n", b"data: 1\n\n"]
    splitter = sse.EventSplitter()
    assert splitter.split(b"\n") == []
    assert splitter.split(b"\n") == [b"\n\n"]
    assert splitter.split(b"\r\n\r\ndata: 1\r\n\r") == [b"\r\n\r\n"]
    assert bytes(splitter.buffer) == b"data: 1\r\n\r"
    assert splitter.split(b"\n") == [b"data: 1\r\n\r\n"]
    assert sse.EventSplitter().split(b"data: 1\r\n\rdata: 2\n\n") == [b"data: 1\r\n\r", b"data: 2\n\n"]


@pytest.mark.parametrize(
    ("event", "field", "expected"),
    [
        (b"data: error\n\n", b"event", b""),
        (b"data: x\n\n", b"data", b"x"),
        (b"data: x\ny\n", b"data", b"x"),
        (b"data: x\r\r\n\n", b"data", b"x"),
        (b"data: x\ndata: y\n\n", b"data", b"x\ny"),
        (b"data:x\n\n", b"data", b"x"),
        (b"event: error\ndata: x\n\n", b"event", b"error"),
        (b"error: x\n\n", b"data", b""),
    ],
)
def test_field_of_an_event_is_its_own_lines(event: bytes, field: bytes, expected: bytes) -> None:
    assert sse.event_data(event, field) == expected


def test_event_is_an_error_by_its_type_only() -> None:
    assert sse.is_error_event(b"event:  error \ndata: x\n\n")
    assert not sse.is_error_event(b"data: error\n\n")
    assert not sse.is_error_event(b"event: errors\n\n")
    assert not sse.is_error_event(b"error: x\n\n")
