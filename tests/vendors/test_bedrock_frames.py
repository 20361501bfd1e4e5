"""Bedrock's frames of events are read whole, in pieces, cut and damaged."""

import json
from collections.abc import Generator
from itertools import chain
from typing import Any
from zlib import crc32

import pytest

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.wire import sse
from tests.vendors.bedrock import BedrockDialect, frame
from tests.vendors.semantics import Answer

EVENTS = BedrockDialect().events(Answer("Hello, you", reasoning="So?"))
FRAMES = [BedrockDialect().framed(event) for event in EVENTS]


def read(*batches: list[bytes]) -> tuple[list[list[bytes]], ProviderError | None]:
    """What is told of each batch, and the error that ends it."""
    told: list[list[bytes]] = []
    try:
        told.extend(BedrockWire(object()).decode_frames(batch for batch in batches))
    except ProviderError as error:
        return told, error
    return told, None


def said(events: list[bytes]) -> list[Any]:
    """What each says; one that is nothing says only that something came."""
    return [json.loads(sse.event_data(event)) for event in events if event]


def test_each_frame_is_an_event_wherever_the_stream_is_cut_into_pieces() -> None:
    whole = b"".join(FRAMES)
    for at in range(1, len(whole)):
        told, error = read([whole[:at]], [whole[at:]])
        assert (said(list(chain(*told))), error) == (said(EVENTS), None)
        assert all(told)  # nothing whole yet is no silence


def test_a_stream_that_ends_within_a_frame_is_broken_off() -> None:
    whole, ends = b"".join(FRAMES), [sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
    for at in range(1, len(whole)):
        told, error = read([whole[:at]])
        complete = sum(at >= end for end in ends) - 1
        assert said(list(chain(*told))) == said(EVENTS[:complete])
        assert type(error) is (type(None) if at in ends else ProviderTimeout)
        assert error is None or error.may_be_billed


@pytest.mark.parametrize("place", [0, 5, 9, 14, -1])
def test_a_damaged_frame_is_told_after_what_came_before_it(place: int) -> None:
    damaged = bytearray(FRAMES[1])
    damaged[place] ^= 0x01
    told, error = read([FRAMES[0] + bytes(damaged) + FRAMES[2]])
    assert [said(batch) for batch in told] == [said(EVENTS[:1])]
    assert (type(error), error and error.may_be_billed) == (ProviderError, True)


@pytest.mark.parametrize("length", [0, 15])
def test_a_frame_that_cannot_be_is_damaged(length: int) -> None:
    prelude = length.to_bytes(4, "big") + (0).to_bytes(4, "big")
    head = prelude + crc32(prelude).to_bytes(4, "big")
    told, error = read([head + bytes(8)])
    assert (told, type(error)) == ([[]], ProviderError)


def test_a_silence_is_a_silence() -> None:
    told, error = read([], [FRAMES[0]], [])
    assert ([said(batch) for batch in told], error) == ([[], said(EVENTS[:1]), []], None)
    assert (told[0], told[2]) == ([], [])


def test_a_failure_is_an_event_of_type_error() -> None:
    exception = {":message-type": "exception", ":exception-type": "throttlingException"}
    unmodeled = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": 'Oh "no"'}
    told, _ = read([frame(exception, {"message": "Slow\ndown"}), frame(unmodeled, b"")])
    assert said(told[0]) == [
        {"throttlingException": {"message": "Slow\ndown"}},
        {"InternalFailure": {"message": 'Oh "no"'}},
    ]
    assert all(map(sse.is_error_event, told[0]))
    assert not any(map(sse.is_error_event, EVENTS))


def test_who_stops_reading_ends_what_is_read() -> None:
    closed: list[bool] = []

    def pieces() -> Generator[list[bytes]]:
        try:
            while True:
                yield [FRAMES[0]]
        finally:
            closed.append(True)

    kept = pieces()
    events = BedrockWire(object()).decode_frames(kept)
    next(events)
    events.close()
    assert closed == [True]
