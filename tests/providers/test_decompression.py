"""Compressed responses of a provider: one coding, decompressed in bounded steps, with every limit kept on the way."""

import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.errors import ProviderError, ProviderRateLimited, ProviderTimeout
from aiserver.limits import MAX_ANSWER_BYTES, MAX_ERROR_BYTES, MAX_EVENT_BYTES, MAX_LIST_BYTES
from aiserver.providers import decompression
from aiserver.providers.decompression import STEP_BYTES, ContentCodingError, decompress
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.providers.calls import ask, models, provider
from tests.providers.streaming import DONE, chunk, framed, opened, said

ANSWER = b'{"choices":[{"index":0,"message":{"content":"hi"}}]}'
EVENTS = chunk("hi") + chunk(finish="stop") + DONE
JSON = "content-type: application/json"
SSE = "content-type: text/event-stream"


def deflated(body: bytes, window_bits: int) -> bytes:
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(body) + packer.flush()


def bomb(start: bytes, size: int) -> bytes:
    """A gzip body of that size, a thousandth of it long."""
    packer = zlib.compressobj(9, wbits=31)
    pieces = [packer.compress(start)]
    pieces += [packer.compress(bytes(STEP_BYTES)) for _ in range(size // STEP_BYTES + 1)]
    return b"".join(pieces) + packer.flush()


CODED = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", lambda body: deflated(body, -15)),
    "identity": ("identity", bytes),
    "identity beside gzip": ("identity, gzip", gzip.compress),
    "nothing": ("", bytes),
    "two gzip members": ("gzip", lambda body: gzip.compress(body[:7]) + gzip.compress(body[7:])),
    "bytes behind the end": ("gzip", lambda body: gzip.compress(body) + b"\0\0garbage"),
}


@pytest.mark.parametrize(("coding", "pack"), CODED.values(), ids=CODED.keys())
def test_one_content_coding_is_decoded(coding: str, pack: type[bytes]) -> None:
    body = framed(*[bytes([byte]) for byte in pack(ANSWER)]) + b"0\r\n\r\n"
    head = hostile_servers.head(200, JSON, f"content-encoding: {coding}", "transfer-encoding: chunked")
    with hostile_servers.receiver(hostile_servers.says(head + body)) as server:
        assert ask(provider(f"http://127.0.0.1:{server.port}/v1")).body == ANSWER


@pytest.mark.parametrize(("coding", "pack"), CODED.values(), ids=CODED.keys())
def test_a_stream_that_is_compressed_all_the_same_is_decoded(coding: str, pack: type[bytes]) -> None:
    head = hostile_servers.head(200, SSE, f"content-encoding: {coding}", "transfer-encoding: chunked")
    body = pack(EVENTS)
    assert said(hostile_servers.says(head + framed(body[:20], body[20:]) + b"0\r\n\r\n")) == (EVENTS, None)


def test_compressed_events_arrive_before_the_stream_ends() -> None:
    packer = zlib.compressobj(wbits=31)
    piece = packer.compress(chunk("hi")) + packer.flush(zlib.Z_SYNC_FLUSH)
    head = hostile_servers.head(200, SSE, "content-encoding: gzip", "transfer-encoding: chunked")
    with (
        hostile_servers.receiver(hostile_servers.then_hangs(head + framed(piece))) as server,
        opened(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        assert next(iter(stream)) == chunk("hi")


REFUSED = [
    ["content-encoding: gzip, gzip"],
    ["content-encoding: gzip", "content-encoding: gzip"],
    ["content-encoding: deflate,gzip"],
    ["content-encoding: br"],
    ["content-encoding: zstd"],
    ["content-encoding: " + "gzip," * 1000],
]


@pytest.mark.parametrize("lines", REFUSED)
def test_two_codings_or_an_unknown_one_are_a_502_that_names_it(lines: list[str]) -> None:
    body = gzip.compress(gzip.compress(ANSWER))
    with (
        hostile_servers.receiver(hostile_servers.answers(200, JSON, *lines, body=body)) as server,
        pytest.raises(ProviderError, match=r"content-encoding .* is not supported") as failed,
    ):
        ask(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert (failed.value.status, failed.value.may_be_billed, len(failed.value.message) < 200) == (502, True, True)


@pytest.mark.parametrize("lines", REFUSED)
def test_a_stream_of_two_codings_is_a_502(lines: list[str]) -> None:
    came, error = said(hostile_servers.answers(200, SSE, *lines, body=gzip.compress(gzip.compress(EVENTS))))
    assert (came, error and error.status) == (b"", 502)


def test_an_error_in_an_unknown_coding_keeps_its_status() -> None:
    with (
        hostile_servers.receiver(
            hostile_servers.answers(429, JSON, "content-encoding: br", body=b"\x0b\x02")
        ) as server,
        pytest.raises(ProviderRateLimited),
    ):
        ask(provider(f"http://127.0.0.1:{server.port}/v1"))


def test_a_truncated_gzip_body_is_a_cut_answer(upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, gzip.compress(ANSWER)[:30], {"content-encoding": "gzip"})
    with pytest.raises(ProviderTimeout):
        ask(provider(upstream.base_url))


def test_a_whole_answer_whose_gzip_trailer_is_cut_is_complete(upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, gzip.compress(ANSWER)[:-8], {"content-encoding": "gzip"})
    assert ask(provider(upstream.base_url)).body == ANSWER


@pytest.fixture
def produced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all pieces that a decompressor has made."""
    sizes: list[int] = []

    def counted(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
        for piece in decompress(chunks, coding):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(decompression, "decompress", counted)
    return sizes


@pytest.mark.parametrize(("status", "limit"), [(200, MAX_ANSWER_BYTES), (400, MAX_ERROR_BYTES), (500, MAX_ERROR_BYTES)])
def test_a_gzip_bomb_is_expanded_to_the_limit_and_no_further(
    status: int, limit: int, produced: list[int], upstream: ScriptedProvider
) -> None:
    upstream.answer_with(status, bomb(b'{"choices":[{"x":"', 2 * limit), {"content-encoding": "gzip"})
    with pytest.raises(ProviderError):
        ask(provider(upstream.base_url))
    assert (sum(produced) <= limit + STEP_BYTES, max(produced) <= STEP_BYTES) == (True, True)


def test_a_gzip_bomb_in_place_of_a_list_of_models_is_not_expanded(
    produced: list[int], upstream: ScriptedProvider
) -> None:
    upstream.answer_with(200, bomb(b'{"data":[', 2 * MAX_LIST_BYTES), {"content-encoding": "gzip"})
    with pytest.raises(ProviderError, match="too large"):
        models(provider(upstream.base_url))
    assert sum(produced) <= MAX_LIST_BYTES + STEP_BYTES


def test_a_gzip_bomb_in_a_stream_is_expanded_to_the_limit_of_an_event(produced: list[int]) -> None:
    body = bomb(b"data: ", 4 * MAX_EVENT_BYTES)
    came, error = said(hostile_servers.answers(200, SSE, "content-encoding: gzip", body=body))
    assert (came, error and error.status) == (b"", 502)
    assert sum(produced) <= MAX_EVENT_BYTES + 64 * STEP_BYTES  # and what was read ahead


def test_a_chunk_of_a_thousandfold_is_expanded_only_as_it_is_read() -> None:
    body = bomb(b"", 16 * 1024 * 1024)
    assert len(body) < 32 * 1024
    pieces = decompress([body], "gzip")
    assert [len(next(pieces)) for _ in range(3)] == [STEP_BYTES] * 3


@given(st.binary(max_size=5000), st.lists(st.integers(0, 6000), max_size=5), st.sampled_from([15, -15, 31]))
def test_what_is_decompressed_is_what_was_compressed(body: bytes, cuts: list[int], window_bits: int) -> None:
    packed = deflated(body, window_bits)
    at = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    chunks = [packed[start:end] for start, end in itertools.pairwise(at)]
    assert b"".join(decompress(chunks, "gzip" if window_bits == 31 else "deflate")) == body


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_decompressed_or_refused(body: bytes, coding: str) -> None:
    try:
        for piece in decompress([body], coding):
            assert len(piece) <= STEP_BYTES
    except (ContentCodingError, httpcore.RemoteProtocolError):
        pass


def test_a_provider_is_asked_for_codings_that_are_supported(upstream: ScriptedProvider) -> None:
    ask(provider(upstream.base_url))
    assert upstream.requests[-1].headers["accept-encoding"] == "gzip, deflate"
    assert json.loads(upstream.requests[-1].body)
