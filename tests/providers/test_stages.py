"""The contract of the stages of a streamed response: generator functions, each over the stage before it."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.aws.bedrock import decode_frames
from aiserver.errors import ProviderError
from aiserver.http_client.background_reader import read_ahead
from aiserver.providers.stream import keep_alive, map_events, split_events
from aiserver.wire import sse
from tests.examples import examples
from tests.fakes import FakeClock
from tests.providers.toy import Toy
from tests.vendors.bedrock import BedrockDialect

PATIENCE_S = 20
Items = Iterator[Any]  # batches of chunks or events, or joined events, and None for nothing yet


def event(value: object) -> bytes:
    """A server-sent event that is also the content of a Bedrock frame."""
    return f'data: {{"chunk":{{"value": "{value}"}}}}\n\n'.encode()


FIRST, SECOND, END = event("first"), event("second"), event("end")


class EchoMapper:
    """EventMapper that returns each event unchanged; the response is complete after END."""

    def __init__(self) -> None:
        self.request_id: str | None = None
        self.usage: str | None = None
        self.content_events = 0
        self.is_complete = False
        self.is_done = False

    def on_event(self, event: bytes) -> bytes:
        self.is_complete = self.is_complete or event == END
        return event

    def on_end(self) -> bytes:
        return b""


class Source:
    """The stage before the tested one: yields `items`, then ends or raises `error`."""

    def __init__(self, *items: object, error: ProviderError | None = None) -> None:
        self.yielded = 0
        self.is_closed = False
        self.items = self._yield(items, error)

    def _yield(self, items: tuple[object, ...], error: ProviderError | None) -> Generator[Any]:
        try:
            for item in items:
                self.yielded += 1
                yield item
            if error:
                raise error
        finally:
            self.is_closed = True


@dataclass(frozen=True)
class Stage:
    """A stage; `encode` turns an event into an item of the stage before it."""

    name: str
    run: Callable[[Items], Items]
    encode: Callable[[bytes], object]


def encode_frame(event: bytes) -> list[bytes]:
    return [BedrockDialect().encode_frame(event)]


STAGES = [
    Stage("split_events", lambda batches: split_events(batches, "p"), lambda event: [event]),
    Stage("decode_frames", lambda batches: decode_frames(batches, "p"), encode_frame),
    Stage("map_events", lambda batches: map_events(batches, EchoMapper(), "p"), lambda event: [event]),
    Stage("keep_alive", lambda events: keep_alive(events, FakeClock()), lambda event: event),
]
every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def as_bytes(item: list[bytes] | bytes | None) -> bytes | None:
    return b"".join(item) if isinstance(item, list) else item


# --- the contract ---


@every_stage
def test_none_passes_through_as_none(stage: Stage) -> None:
    source = Source(stage.encode(FIRST), None, None, stage.encode(SECOND), None, stage.encode(END))
    output = [as_bytes(item) for item in stage.run(source.items)]
    assert output[:6] == [FIRST, None, None, SECOND, None, END]
    assert output[6:] in ([], [None])


@every_stage
@given(values=st.lists(st.none() | st.integers(0, 99)))
@settings(max_examples=examples(100))
def test_events_are_neither_lost_nor_reordered(stage: Stage, values: list[int | None]) -> None:
    events = [FIRST, *(None if value is None else event(value) for value in values), END]
    source = Source(*(event and stage.encode(event) for event in events))
    output = [as_bytes(item) for item in stage.run(source.items)]
    assert b"".join(item or b"" for item in output) == b"".join(event or b"" for event in events)
    assert b"" not in output  # None is the only item without bytes


@every_stage
def test_error_of_the_stage_before_arrives_after_the_bytes_before_it(stage: Stage) -> None:
    error = ProviderError("the connection broke")
    items = stage.run(Source(stage.encode(FIRST), None, stage.encode(SECOND), error=error).items)
    received: list[bytes] = []
    with pytest.raises(ProviderError) as failed:
        received.extend(as_bytes(item) or b"" for item in items)
    assert b"".join(received) == FIRST + SECOND
    assert failed.value is error


@every_stage
def test_stage_pulls_one_item_per_requested_item(stage: Stage) -> None:
    source = Source(stage.encode(FIRST), None, stage.encode(SECOND), stage.encode(END))
    items = stage.run(source.items)
    assert source.yielded == 0
    for count in range(1, 5):
        next(items)
        assert source.yielded == count


@every_stage
def test_closing_a_stage_does_not_close_the_stage_before_it(stage: Stage) -> None:
    source = Source(stage.encode(FIRST), stage.encode(SECOND))
    with closing(generator(stage.run(source.items))) as items:
        next(items)
    assert not source.is_closed
    assert next(source.items) == stage.encode(SECOND)


def generator(items: Items) -> Generator[Any]:
    assert isinstance(items, Generator)
    return items  # pyright: ignore[reportUnknownVariableType]


# --- split_events ---

EVENTS = [FIRST, b": comment\r\n\r\n", b"event: x\rdata: y\r\r", SECOND, END]


@given(cuts=st.lists(st.integers(0, len(b"".join(EVENTS))), max_size=9))
@settings(max_examples=examples(100))
def test_events_are_split_independently_of_chunk_boundaries(cuts: list[int]) -> None:
    body = b"".join(EVENTS)
    offsets = [0, *sorted(cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(offsets)]
    assert split(*chunks) == EVENTS


def test_incomplete_last_event_is_yielded_at_the_end() -> None:
    first, last = split(FIRST + b"data: {", b'"chu')
    assert (first, isinstance(first, sse.IncompleteEvent)) == (FIRST, False)
    assert (last, isinstance(last, sse.IncompleteEvent)) == (b'data: {"chu', True)


def test_incomplete_last_event_is_yielded_before_an_error() -> None:
    batches = split_events(Source([FIRST + b"data: {"], error=ProviderError()).items, "p")
    assert list(islice(batches, 2)) == [[FIRST], [b"data: {"]]
    with pytest.raises(ProviderError):
        next(batches)


def split(*chunks: bytes) -> list[bytes]:
    return [event for events in split_events(iter([[chunk] for chunk in chunks]), "p") for event in events or ()]


# --- map_events ---


def test_event_without_client_events_is_mapped_to_none() -> None:
    mapper = Toy(shows_usage=False)
    mapped = map_events(iter([[b"USED 3 5\n\n"], [b"WORD a\n\n"]]), mapper, "p")
    assert next(mapped) is None
    assert mapper.usage
    assert b'"content": "a"' in (next(mapped) or b"")


def test_error_after_a_complete_response_is_not_raised() -> None:
    mapped = map_events(Source([FIRST], [END], error=ProviderError()).items, EchoMapper(), "p")
    assert [item for item in mapped if item] == [FIRST, END]


# --- keep_alive ---


def test_silent_stream_begins_with_a_ping_and_repeats_it() -> None:
    clock = FakeClock()
    items = keep_alive(pause_between([None, None, None, None], clock, sse.PING_MS / 2), clock)
    assert list(items) == [sse.PING, None, sse.PING, None]


def test_ping_is_sent_after_a_silence_of_ping_ms() -> None:
    clock = FakeClock()
    script = [FIRST, None, SECOND, None, None, END]
    items = keep_alive(pause_between(script, clock, sse.PING_MS / 2), clock)
    assert list(items) == [FIRST, None, SECOND, None, sse.PING, END]


def pause_between(items: list[bytes | None], clock: FakeClock, pause_ms: float) -> Iterator[bytes | None]:
    for item in items:
        yield item
        clock.advance(pause_ms / 1000)


# --- read_ahead ---


def test_read_ahead_yields_none_after_a_silence() -> None:
    release = threading.Event()

    def wait_between() -> Generator[bytes]:
        yield FIRST
        release.wait(PATIENCE_S)
        yield SECOND

    with closing(read_ahead(wait_between(), release.set, poll_s=0.01)) as batches:
        assert next(batch for batch in batches if batch) == [FIRST]
        assert next(batches) is None
        release.set()
        assert next(batch for batch in batches if batch) == [SECOND]
