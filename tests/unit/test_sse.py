"""Server-sent events: cut into whole events however they arrive, and read as a reader would, not a byte changed."""

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
    """What a reader of the specification hears: the data of each event that is dispatched."""
    heard: list[str] = []
    data: list[str] = []
    for line in re.split("\r\n|\n|\r", stream.decode())[:-1]:
        if not line and data:
            heard.append("\n".join(data))
            data = []
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
    return heard


def split(*pieces: bytes) -> tuple[list[bytes], bytes]:
    splitter = sse.EventSplitter()
    events = [event for piece in pieces for event in splitter.split(piece)]
    return events, bytes(splitter.rest)


@settings(max_examples=examples(400))
@given(STREAMS, st.lists(st.integers(0, 400), max_size=10))
@example(b"data: 1\n\r", [])
def test_no_byte_is_lost_or_changed_and_a_reader_hears_the_same_however_a_stream_is_cut(
    stream: bytes, cuts: list[int]
) -> None:
    at = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    events, rest = split(*(stream[a:b] for a, b in itertools.pairwise(at)))
    assert b"".join(events) + rest == stream
    assert read(b"".join(events)) + read(rest) == read(stream)
    if not rest.endswith(b"\n\r"):  # half a line end: nobody knows yet
        assert read(b"".join(events)) == read(stream)


def test_blank_lines_are_an_event_of_their_own() -> None:
    assert split(b"\n\ndata: 1\n\n") == ([b"\n\n", b"data: 1\n\n"], b"")


@settings(max_examples=examples(400))
@given(STREAMS)
def test_what_is_sent_at_any_moment_ends_where_an_event_does(stream: bytes) -> None:
    """A ping after it falls between two events, and not into one."""
    splitter = sse.EventSplitter()
    sent = b""
    for at in range(len(stream)):
        for event in splitter.split(stream[at : at + 1]):
            sent += event
            assert read(sent + sse.PING + stream[len(sent) :]) == read(stream)


@settings(max_examples=examples(400))
@given(STREAMS)
@example(b"data: 1\nid: 2\n\n")
def test_the_data_of_an_event_is_what_a_reader_hears(stream: bytes) -> None:
    for event in split(stream)[0]:
        assert [sse.event_data(event).decode()] == (read(event) or [""])


@settings(max_examples=examples(400))
@given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=5), st.sampled_from([None, 1]))
def test_a_json_text_becomes_one_event_of_one_line(value: object, indent: int | None) -> None:
    event = sse.format_event(json.dumps(value, indent=indent, ensure_ascii=False).encode())
    assert split(event) == ([event], b"")
    assert json.loads(sse.event_data(event)) == value
    assert event.count(b"\n") == 2


def test_a_megabyte_in_pieces_is_searched_once() -> None:
    event = b"data: " + b"x" * 1024 * 1024 + b"\n\n"
    pieces = [event[at : at + 1024] for at in range(0, len(event), 1024)]
    assert split(*pieces) == ([event], b"")


def test_an_event_whose_last_line_end_is_cut_is_not_whole_yet() -> None:
    """Else what follows would stand behind half a line end, where simple readers do not look."""
    assert split(b"data: 1\r\n\r") == ([], b"data: 1\r\n\r")
    assert split(b"data: 1\r\n\r", b"\n") == ([b"data: 1\r\n\r\n"], b"")
    assert split(b"data: 1\r\r") == ([b"data: 1\r\r"], b"")
