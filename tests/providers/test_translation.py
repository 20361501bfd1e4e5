"""Translation of a vendor's events to OpenAI's, with a toy vendor."""

from collections.abc import Iterator

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from tests.providers.streaming import DONE, read_stream, stream_of
from tests.providers.toy import Toy

STREAM = b"WORD Hello\n\nWORD world\n\nUSED 3 5\n\nBYE\n\n"


def toy(*chunks: bytes) -> Iterator[bytes | None]:
    return stream_of(*chunks, mapper=Toy(shows_usage=False))


def content(word: str) -> bytes:
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": null}]}\n\n' % word.encode()


STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}\n\n'


@pytest.mark.parametrize("shows_usage", [False, True])
def test_events_are_translated_wherever_the_stream_is_split(shows_usage: bool) -> None:
    expected = content("Hello") + content("world") + STOP + (USAGE if shows_usage else b"") + DONE
    for cut in range(len(STREAM)):
        mapper = Toy(shows_usage=shows_usage)
        assert read_stream(stream_of(STREAM[:cut], STREAM[cut:], mapper=mapper)) == (expected, None)
        assert mapper.usage == '{"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}'


def test_event_is_translated_as_soon_as_it_is_complete() -> None:
    chunks = toy(b"WORD Hello\n\nWORD wo", b"rld\n\n", b"BYE\n\n")
    assert next(chunks) == content("Hello")
    assert next(chunks) == content("world")


def test_truncated_or_failing_toy_stream_is_a_provider_error() -> None:
    assert read_stream(toy(b"WORD Hello\n\nWOR"))[0] == content("Hello")
    assert type(read_stream(toy(b"WORD Hello\n\nWOR"))[1]) is ProviderTimeout
    received, error = read_stream(toy(b"WORD Hello\n\nFAIL out of toys\n\n"))
    assert received == content("Hello")
    assert type(error) is ProviderError
    assert error.message == "out of toys"
