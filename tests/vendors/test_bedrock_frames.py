"""Decoding of Bedrock's event stream frames: complete, split, truncated and damaged."""

import json
from typing import Any
from zlib import crc32

import pytest

from aiserver.aws.bedrock import decode_frames
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.wire import sse
from tests.vendors.bedrock import BedrockDialect, frame
from tests.vendors.semantics import Response

EVENTS = BedrockDialect().encode_events(Response("Hello, you", reasoning="So?"))
FRAMES = [BedrockDialect().encode_frame(event) for event in EVENTS]


def decode(*batches: list[bytes] | None) -> tuple[list[list[bytes] | None], ProviderError | None]:
    """Return the events of each batch, and the error that ends the stream."""
    decoded: list[list[bytes] | None] = []
    try:
        decoded.extend(decode_frames(iter(batches), "b"))
    except ProviderError as error:
        return decoded, error
    return decoded, None


def event_payloads(*batches: list[bytes] | None) -> list[Any]:
    """The payload of each event."""
    return [json.loads(sse.event_data(event)) for events in batches for event in events or ()]


def test_frame_is_decoded_wherever_the_stream_is_split() -> None:
    stream = b"".join(FRAMES)
    for cut in range(1, len(stream)):
        decoded, error = decode([stream[:cut]], [stream[cut:]])
        assert (event_payloads(*decoded), error) == (event_payloads(EVENTS), None)
        assert len(decoded) == 2
        assert [] not in decoded  # None when a batch completes no frame


def test_stream_that_ends_within_a_frame_is_a_timeout_error() -> None:
    stream, ends = b"".join(FRAMES), [sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
    for cut in range(1, len(stream)):
        decoded, error = decode([stream[:cut]])
        complete = sum(cut >= end for end in ends) - 1
        assert event_payloads(*decoded) == event_payloads(EVENTS[:complete])
        assert type(error) is (type(None) if cut in ends else ProviderTimeout)
        assert error is None or (error.may_be_billed, error.message[:11]) == (True, "Provider b:")


@pytest.mark.parametrize("offset", [0, 5, 9, 14, -1])
def test_damaged_frame_is_an_error_after_the_events_before_it(offset: int) -> None:
    damaged = bytearray(FRAMES[1])
    damaged[offset] ^= 0x01
    decoded, error = decode([FRAMES[0] + bytes(damaged) + FRAMES[2]])
    assert [event_payloads(batch) for batch in decoded] == [event_payloads(EVENTS[:1])]
    assert error is not None
    assert (type(error), error.may_be_billed, error.message[:11]) == (ProviderError, True, "Provider b:")


@pytest.mark.parametrize("length", [0, 15])
def test_frame_with_an_impossible_length_is_an_error(length: int) -> None:
    prelude = length.to_bytes(4, "big") + (0).to_bytes(4, "big")
    head = prelude + crc32(prelude).to_bytes(4, "big")
    decoded, error = decode([head + bytes(8)])
    assert (decoded, type(error)) == ([None], ProviderError)


def test_none_is_passed_on_while_nothing_is_received() -> None:
    decoded, error = decode(None, [FRAMES[0]], None)
    assert ([event_payloads(batch) for batch in decoded], error) == ([[], event_payloads(EVENTS[:1]), []], None)
    assert (decoded[0], decoded[2]) == (None, None)


def test_exception_frame_becomes_an_error_event() -> None:
    exception = {":message-type": "exception", ":exception-type": "throttlingException"}
    unmodeled = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": 'Oh "no"'}
    decoded, _ = decode([frame(exception, {"message": "Slow\ndown"}), frame(unmodeled, b"")])
    events = decoded[0] or []
    assert event_payloads(events) == [
        {"throttlingException": {"message": "Slow\ndown"}},
        {"InternalFailure": {"message": 'Oh "no"'}},
    ]
    assert all(map(sse.is_error_event, events))
    assert not any(map(sse.is_error_event, EVENTS))
