"""Server-sent events: split into complete events for any chunking, with no byte changed."""

import itertools
import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiserver.wire import sse
from tests.examples import examples

LINE_ENDS = ["\n", "\r\n", "\r"]
LINES = st.one_of(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12),
    st.builds(
        "data: {}".format, st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
    ),
    st.sampled_from(["data:x", "data", ": ping", "event: error", "id: 1", ""]),
)
STREAMS = st.builds(
    lambda lines: "".join(line + end for line, end in lines).encode(),
    st.lists(st.tuples(LINES, st.sampled_from(LINE_ENDS)), max_size=20),
)


def read(stream: bytes) -> list[str]:
    """Return the data of each event that a reader of the specification dispatches."""
    dispatched: list[str] = []
    data: list[str] = []
    for line in re.split("\r\n|\n|\r", stream.decode())[:-1]:
        if not line and data:
            dispatched.append("\n".join(data))
            data = []
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
    return dispatched


def split(*chunks: bytes) -> tuple[list[bytes], bytes]:
    splitter = sse.EventSplitter()
    events = [event for chunk in chunks for event in splitter.split(chunk)]
    return events, bytes(splitter.buffer)


@settings(max_examples=examples(400))
@given(STREAMS, st.lists(st.integers(0, 400), max_size=10))
@example(b"data: 1\n\r", [])
def test_split_keeps_all_bytes_and_the_events_for_any_chunking(stream: bytes, cuts: list[int]) -> None:
    offsets = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    events, remainder = split(*(stream[start:end] for start, end in itertools.pairwise(offsets)))
    assert b"".join(events) + remainder == stream
    assert read(b"".join(events)) + read(remainder) == read(stream)
    if not remainder.endswith(b"\n\r"):  # possibly half a line end
        assert read(b"".join(events)) == read(stream)


def test_blank_lines_are_a_separate_event() -> None:
    assert split(b"\n\ndata: 1\n\n") == ([b"\n\n", b"data: 1\n\n"], b"")


@settings(max_examples=examples(400))
@given(STREAMS)
def test_output_always_ends_at_an_event_boundary(stream: bytes) -> None:
    """A ping is therefore never inserted into an event."""
    splitter = sse.EventSplitter()
    output = b""
    for index in range(len(stream)):
        for event in splitter.split(stream[index : index + 1]):
            output += event
            assert read(output + sse.PING + stream[len(output) :]) == read(stream)


@settings(max_examples=examples(400))
@given(STREAMS)
@example(b"data: 1\nid: 2\n\n")
def test_event_data_is_the_data_that_a_reader_dispatches(stream: bytes) -> None:
    for event in split(stream)[0]:
        assert [sse.event_data(event).decode()] == (read(event) or [""])


@settings(max_examples=examples(400))
@given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=5), st.sampled_from([None, 1]))
def test_json_text_is_formatted_as_one_event_of_one_line(value: object, indent: int | None) -> None:
    event = sse.format_event(json.dumps(value, indent=indent, ensure_ascii=False).encode())
    assert split(event) == ([event], b"")
    assert json.loads(sse.event_data(event)) == value
    assert event.count(b"\n") == 2


def test_large_event_in_chunks_is_searched_once() -> None:
    event = b"data: " + b"x" * 1024 * 1024 + b"\n\n"
    chunks = [event[start : start + 1024] for start in range(0, len(event), 1024)]
    assert split(*chunks) == ([event], b"")


def test_event_with_half_a_line_end_is_not_complete() -> None:
    """Otherwise the next event would follow half a line end, which simple readers do not support."""
    assert split(b"data: 1\r\n\r") == ([], b"data: 1\r\n\r")
    assert split(b"data: 1\r\n\r", b"\n") == ([b"data: 1\r\n\r\n"], b"")
    assert split(b"data: 1\r\r") == ([b"data: 1\r\r"], b"")
