"""Decoding of Bedrock's event stream frames: complete, split, truncated and damaged."""

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
from tests.vendors.semantics import Response

EVENTS = BedrockDialect().encode_events(Response("Hello, you", reasoning="So?"))
FRAMES = [BedrockDialect().encode_frame(event) for event in EVENTS]


def decode(*batches: list[bytes]) -> tuple[list[list[bytes]], ProviderError | None]:
    """Return the events of each batch, and the error that ends the stream."""
    decoded: list[list[bytes]] = []
    try:
        decoded.extend(BedrockWire(object()).decode_frames(batch for batch in batches))
    except ProviderError as error:
        return decoded, error
    return decoded, None


def event_payloads(events: list[bytes]) -> list[Any]:
    """The payload of each event; empty events only signal received bytes."""
    return [json.loads(sse.event_data(event)) for event in events if event]


def test_frame_is_decoded_wherever_the_stream_is_split() -> None:
    stream = b"".join(FRAMES)
    for cut in range(1, len(stream)):
        decoded, error = decode([stream[:cut]], [stream[cut:]])
        assert (event_payloads(list(chain(*decoded))), error) == (event_payloads(EVENTS), None)
        assert all(decoded)  # an incomplete frame still yields an empty event


def test_stream_that_ends_within_a_frame_is_a_timeout_error() -> None:
    stream, ends = b"".join(FRAMES), [sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
    for cut in range(1, len(stream)):
        decoded, error = decode([stream[:cut]])
        complete = sum(cut >= end for end in ends) - 1
        assert event_payloads(list(chain(*decoded))) == event_payloads(EVENTS[:complete])
        assert type(error) is (type(None) if cut in ends else ProviderTimeout)
        assert error is None or error.may_be_billed


@pytest.mark.parametrize("offset", [0, 5, 9, 14, -1])
def test_damaged_frame_is_an_error_after_the_events_before_it(offset: int) -> None:
    damaged = bytearray(FRAMES[1])
    damaged[offset] ^= 0x01
    decoded, error = decode([FRAMES[0] + bytes(damaged) + FRAMES[2]])
    assert [event_payloads(batch) for batch in decoded] == [event_payloads(EVENTS[:1])]
    assert (type(error), error and error.may_be_billed) == (ProviderError, True)


@pytest.mark.parametrize("length", [0, 15])
def test_frame_with_an_impossible_length_is_an_error(length: int) -> None:
    prelude = length.to_bytes(4, "big") + (0).to_bytes(4, "big")
    head = prelude + crc32(prelude).to_bytes(4, "big")
    decoded, error = decode([head + bytes(8)])
    assert (decoded, type(error)) == ([[]], ProviderError)


def test_empty_batch_yields_no_event() -> None:
    decoded, error = decode([], [FRAMES[0]], [])
    assert ([event_payloads(batch) for batch in decoded], error) == ([[], event_payloads(EVENTS[:1]), []], None)
    assert (decoded[0], decoded[2]) == ([], [])


def test_exception_frame_becomes_an_error_event() -> None:
    exception = {":message-type": "exception", ":exception-type": "throttlingException"}
    unmodeled = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": 'Oh "no"'}
    decoded, _ = decode([frame(exception, {"message": "Slow\ndown"}), frame(unmodeled, b"")])
    assert event_payloads(decoded[0]) == [
        {"throttlingException": {"message": "Slow\ndown"}},
        {"InternalFailure": {"message": 'Oh "no"'}},
    ]
    assert all(map(sse.is_error_event, decoded[0]))
    assert not any(map(sse.is_error_event, EVENTS))


def test_closing_the_decoder_closes_its_source() -> None:
    closed: list[bool] = []

    def frames() -> Generator[list[bytes]]:
        try:
            while True:
                yield [FRAMES[0]]
        finally:
            closed.append(True)

    source = frames()
    events = BedrockWire(object()).decode_frames(source)
    next(events)
    events.close()
    assert closed == [True]
