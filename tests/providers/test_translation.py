"""Another vendor's events become OpenAI's, one by one as they come: the seam, with a toy on the other side."""

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.providers.stream import ProviderStream
from tests.providers.streaming import DONE, heard
from tests.providers.toy import Toy

SAID = b"WORD Hello\n\nWORD world\n\nUSED 3 5\n\nBYE\n\n"


def toy(*pieces: bytes, shows_usage: bool = False) -> ProviderStream:
    return ProviderStream("toy", {}, ([piece] for piece in pieces), Toy(shows_usage=shows_usage))


def content(word: str) -> bytes:
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": null}]}\n\n' % word.encode()


STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}\n\n'


@pytest.mark.parametrize("shows_usage", [False, True])
def test_each_event_is_told_in_openai_s_words_wherever_the_stream_is_cut_into_pieces(shows_usage: bool) -> None:
    expected = content("Hello") + content("world") + STOP + (USAGE if shows_usage else b"") + DONE
    for at in range(len(SAID)):
        stream = toy(SAID[:at], SAID[at:], shows_usage=shows_usage)
        assert heard(stream) == (expected, None)
        assert stream.mapper.usage == '{"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}'


def test_an_event_is_told_as_soon_as_it_has_come() -> None:
    pieces = iter(toy(b"WORD Hello\n\nWORD wo", b"rld\n\n", b"BYE\n\n"))
    assert next(pieces) == content("Hello")
    assert next(pieces) == content("world")


def test_a_toy_that_breaks_off_or_fails_is_told_as_any_other() -> None:
    assert heard(toy(b"WORD Hello\n\nWOR"))[0] == content("Hello")
    assert type(heard(toy(b"WORD Hello\n\nWOR"))[1]) is ProviderTimeout
    came, error = heard(toy(b"WORD Hello\n\nFAIL out of toys\n\n"))
    assert came == content("Hello")
    assert type(error) is ProviderError
    assert error.message == "out of toys"
