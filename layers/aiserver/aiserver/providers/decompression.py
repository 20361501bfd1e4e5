"""Decompresses a response body in bounded steps: one chunk of 16 KB can hold 16 MB, and one of those 16 GB.

Each piece has at most STEP_BYTES, so that the reader can stop at a size limit.
"""

import zlib
from collections.abc import Iterable, Iterator

import httpcore
import httpx

ACCEPT_ENCODING = "gzip, deflate"
STEP_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}
_SHOWN_CHARS = 100  # of a content-encoding that is not supported


class ContentCodingError(Exception):
    """The body's content coding is not supported, or the body is not valid in it."""


def decode_body(response: httpx.Response) -> Iterator[bytes]:
    """The body without its content coding, of which there may be one.

    Raises: CodingError; httpcore.RemoteProtocolError, where the compressed body is cut off; what reading raises.
    """
    header = response.headers.get("content-encoding", "")  # repeated ones are joined by commas
    codings = [coding for part in header.lower().split(",") if (coding := part.strip()) not in ("", "identity")]
    if len(codings) > 1 or not _WINDOW_BITS.keys() >= set(codings):
        raise ContentCodingError(f"content-encoding '{header[:_SHOWN_CHARS]}' is not supported")
    chunks = response.iter_raw()
    yield from decompress(chunks, codings[0]) if codings else chunks


def decompress(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """The chunks, decompressed. Several gzip members make one body; other bytes behind the end are ignored."""
    inflater, rest, has_ended, is_full = None, b"", False, False
    for chunk in chunks:
        rest += chunk
        while rest or is_full:
            if inflater is None:
                if len(rest) < len(GZIP_MAGIC):
                    break
                if has_ended and (coding == "deflate" or not rest.startswith(GZIP_MAGIC)):
                    return
                inflater = zlib.decompressobj(_window_bits(coding, rest))
            try:
                piece = inflater.decompress(rest, STEP_BYTES)
            except zlib.error:
                raise ContentCodingError(f"the body is not valid {coding}") from None
            rest, is_full = inflater.unconsumed_tail, len(piece) == STEP_BYTES
            if piece:
                yield piece
            if inflater.eof:
                inflater, rest, has_ended, is_full = None, inflater.unused_data, True, False
    if inflater is not None or (rest and not has_ended):
        raise httpcore.RemoteProtocolError("the compressed body is incomplete")


def _window_bits(coding: str, start: bytes) -> int:
    """`deflate` means zlib's format; some servers send raw deflate, which lacks zlib's header."""
    is_zlib = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2]) % 31 == 0
    return _WINDOW_BITS[coding] if coding != "deflate" or is_zlib else -zlib.MAX_WBITS
