"""Decompression of provider responses: one content coding, bounded steps, and all size limits."""

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
from aiserver.http_client import decompression
from aiserver.http_client.decompression import STEP_BYTES, ContentCodingError, decompress
from aiserver.limits import MAX_ERROR_BYTES, MAX_EVENT_BYTES, MAX_LIST_BYTES, MAX_RESPONSE_BYTES
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.providers.calls import call_provider, list_models, provider
from tests.providers.streaming import DONE, chunk, http_chunks, open_stream, stream_from

ANSWER = b'{"choices":[{"index":0,"message":{"content":"hi"}}]}'
EVENTS = chunk("hi") + chunk(finish="stop") + DONE
JSON = "content-type: application/json"
SSE = "content-type: text/event-stream"


def deflate(body: bytes, window_bits: int) -> bytes:
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(body) + packer.flush()


def gzip_bomb(start: bytes, size: int) -> bytes:
    """A gzip body that expands to that size, about a thousand times its length."""
    packer = zlib.compressobj(9, wbits=31)
    chunks = [packer.compress(start)]
    chunks += [packer.compress(bytes(STEP_BYTES)) for _ in range(size // STEP_BYTES + 1)]
    return b"".join(chunks) + packer.flush()


CODINGS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", lambda body: deflate(body, -15)),
    "identity": ("identity", bytes),
    "identity beside gzip": ("identity, gzip", gzip.compress),
    "nothing": ("", bytes),
    "two gzip members": ("gzip", lambda body: gzip.compress(body[:7]) + gzip.compress(body[7:])),
    "bytes behind the end": ("gzip", lambda body: gzip.compress(body) + b"\0\0garbage"),
}


@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS.keys())
def test_one_content_coding_is_decoded(coding: str, pack: type[bytes]) -> None:
    body = http_chunks(*[bytes([byte]) for byte in pack(ANSWER)]) + b"0\r\n\r\n"
    head = hostile_servers.head(200, JSON, f"content-encoding: {coding}", "transfer-encoding: chunked")
    with hostile_servers.receiver(hostile_servers.send_raw(head + body)) as server:
        assert call_provider(provider(f"http://127.0.0.1:{server.port}/v1")).body == ANSWER


@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS.keys())
def test_compressed_stream_is_decoded(coding: str, pack: type[bytes]) -> None:
    head = hostile_servers.head(200, SSE, f"content-encoding: {coding}", "transfer-encoding: chunked")
    body = pack(EVENTS)
    assert stream_from(hostile_servers.send_raw(head + http_chunks(body[:20], body[20:]) + b"0\r\n\r\n")) == (
        EVENTS,
        None,
    )


def test_compressed_events_arrive_before_the_stream_ends() -> None:
    packer = zlib.compressobj(wbits=31)
    compressed = packer.compress(chunk("hi")) + packer.flush(zlib.Z_SYNC_FLUSH)
    head = hostile_servers.head(200, SSE, "content-encoding: gzip", "transfer-encoding: chunked")
    with (
        hostile_servers.receiver(hostile_servers.send_then_hang(head + http_chunks(compressed))) as server,
        open_stream(provider(f"http://127.0.0.1:{server.port}/v1")) as stream,
    ):
        assert next(stream.events) == chunk("hi")


UNSUPPORTED = [
    ["content-encoding: gzip, gzip"],
    ["content-encoding: gzip", "content-encoding: gzip"],
    ["content-encoding: deflate,gzip"],
    ["content-encoding: br"],
    ["content-encoding: zstd"],
    ["content-encoding: " + "gzip," * 1000],
]


@pytest.mark.parametrize("lines", UNSUPPORTED)
def test_two_or_unknown_codings_are_a_502_that_names_them(lines: list[str]) -> None:
    body = gzip.compress(gzip.compress(ANSWER))
    with (
        hostile_servers.receiver(hostile_servers.respond(200, JSON, *lines, body=body)) as server,
        pytest.raises(ProviderError, match=r"content-encoding .* is not supported") as failure,
    ):
        call_provider(provider(f"http://127.0.0.1:{server.port}/v1"))
    assert (failure.value.status, failure.value.may_be_billed, len(failure.value.message) < 200) == (502, True, True)


@pytest.mark.parametrize("lines", UNSUPPORTED)
def test_stream_with_two_codings_is_a_502(lines: list[str]) -> None:
    received, error = stream_from(hostile_servers.respond(200, SSE, *lines, body=gzip.compress(gzip.compress(EVENTS))))
    assert (received, error and error.status) == (b"", 502)


def test_error_with_an_unknown_coding_keeps_its_status() -> None:
    with (
        hostile_servers.receiver(
            hostile_servers.respond(429, JSON, "content-encoding: br", body=b"\x0b\x02")
        ) as server,
        pytest.raises(ProviderRateLimited),
    ):
        call_provider(provider(f"http://127.0.0.1:{server.port}/v1"))


def test_truncated_gzip_body_is_a_timeout_error(upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, gzip.compress(ANSWER)[:30], {"content-encoding": "gzip"})
    with pytest.raises(ProviderTimeout):
        call_provider(provider(upstream.base_url))


def test_complete_response_without_gzip_trailer_is_accepted(upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, gzip.compress(ANSWER)[:-8], {"content-encoding": "gzip"})
    assert call_provider(provider(upstream.base_url)).body == ANSWER


@pytest.fixture
def decompressed_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all chunks that the decompressor returned."""
    sizes: list[int] = []

    def count_sizes(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
        for output in decompress(chunks, coding):
            sizes.append(len(output))
            yield output

    monkeypatch.setattr(decompression, "decompress", count_sizes)
    return sizes


@pytest.mark.parametrize(
    ("status", "limit"), [(200, MAX_RESPONSE_BYTES), (400, MAX_ERROR_BYTES), (500, MAX_ERROR_BYTES)]
)
def test_gzip_bomb_is_expanded_only_to_the_limit(
    status: int, limit: int, decompressed_sizes: list[int], upstream: ScriptedProvider
) -> None:
    upstream.respond_with(status, gzip_bomb(b'{"choices":[{"x":"', 2 * limit), {"content-encoding": "gzip"})
    with pytest.raises(ProviderError):
        call_provider(provider(upstream.base_url))
    assert (sum(decompressed_sizes) <= limit + STEP_BYTES, max(decompressed_sizes) <= STEP_BYTES) == (True, True)


def test_gzip_bomb_as_model_list_is_expanded_only_to_the_limit(
    decompressed_sizes: list[int], upstream: ScriptedProvider
) -> None:
    upstream.respond_with(200, gzip_bomb(b'{"data":[', 2 * MAX_LIST_BYTES), {"content-encoding": "gzip"})
    with pytest.raises(ProviderError, match="too large"):
        list_models(provider(upstream.base_url))
    assert sum(decompressed_sizes) <= MAX_LIST_BYTES + STEP_BYTES


def test_gzip_bomb_as_stream_is_expanded_only_to_the_event_limit(decompressed_sizes: list[int]) -> None:
    body = gzip_bomb(b"data: ", 4 * MAX_EVENT_BYTES)
    received, error = stream_from(hostile_servers.respond(200, SSE, "content-encoding: gzip", body=body))
    assert (received, error and error.status) == (b"", 502)
    assert sum(decompressed_sizes) <= MAX_EVENT_BYTES + 64 * STEP_BYTES  # plus the chunks read ahead


def test_highly_compressed_chunk_is_expanded_only_as_it_is_read() -> None:
    body = gzip_bomb(b"", 16 * 1024 * 1024)
    assert len(body) < 32 * 1024
    chunks = decompress([body], "gzip")
    assert [len(next(chunks)) for _ in range(3)] == [STEP_BYTES] * 3


@given(st.binary(max_size=5000), st.lists(st.integers(0, 6000), max_size=5), st.sampled_from([15, -15, 31]))
def test_decompression_inverts_compression(body: bytes, cuts: list[int], window_bits: int) -> None:
    compressed = deflate(body, window_bits)
    offsets = [0, *sorted(min(cut, len(compressed)) for cut in cuts), len(compressed)]
    chunks = [compressed[start:end] for start, end in itertools.pairwise(offsets)]
    assert b"".join(decompress(chunks, "gzip" if window_bits == 31 else "deflate")) == body


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_arbitrary_bytes_are_decompressed_or_rejected(body: bytes, coding: str) -> None:
    try:
        for chunk in decompress([body], coding):
            assert len(chunk) <= STEP_BYTES
    except (ContentCodingError, httpcore.RemoteProtocolError):
        pass


def test_accept_encoding_contains_the_supported_codings(upstream: ScriptedProvider) -> None:
    call_provider(provider(upstream.base_url))
    assert upstream.requests[-1].headers["accept-encoding"] == "gzip, deflate"
    assert json.loads(upstream.requests[-1].body)
