"""Decompresses a response body in bounded steps: a chunk of 16 KB can expand to 16 MB, and nested to 16 GB.

Each output chunk has at most STEP_BYTES, so that the reader can stop at a size limit.
"""

import zlib
from collections.abc import Iterable, Iterator

import httpcore
import httpx

ACCEPT_ENCODING = "gzip, deflate"
STEP_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}
_MAX_HEADER_CHARS = 100  # of an unsupported content-encoding, in the error message


class ContentCodingError(Exception):
    """The body's content coding is not supported, or the body is not valid in it."""


def decode_body(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body without its content coding; at most one coding is supported.

    Raises: ContentCodingError; httpcore.RemoteProtocolError, when the compressed body is incomplete; errors of reading.
    """
    header = response.headers.get("content-encoding", "")  # httpx joins repeated headers by commas
    codings = [coding for part in header.lower().split(",") if (coding := part.strip()) not in ("", "identity")]
    if len(codings) > 1 or not _WINDOW_BITS.keys() >= set(codings):
        raise ContentCodingError(f"content-encoding '{header[:_MAX_HEADER_CHARS]}' is not supported")
    chunks = response.iter_raw()
    yield from decompress(chunks, codings[0]) if codings else chunks


def decompress(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """Yield the decompressed chunks. Several gzip members form one body; any other bytes after the end are ignored."""
    inflater, buffer, has_ended, is_full = None, b"", False, False
    for chunk in chunks:
        buffer += chunk
        while buffer or is_full:
            if inflater is None:
                if len(buffer) < len(GZIP_MAGIC):
                    break
                if has_ended and (coding == "deflate" or not buffer.startswith(GZIP_MAGIC)):
                    return
                inflater = zlib.decompressobj(_window_bits(coding, buffer))
            try:
                output = inflater.decompress(buffer, STEP_BYTES)
            except zlib.error:
                raise ContentCodingError(f"the body is not valid {coding}") from None
            buffer, is_full = inflater.unconsumed_tail, len(output) == STEP_BYTES
            if output:
                yield output
            if inflater.eof:
                inflater, buffer, has_ended, is_full = None, inflater.unused_data, True, False
    if inflater is not None or (buffer and not has_ended):
        raise httpcore.RemoteProtocolError("the compressed body is incomplete")


def _window_bits(coding: str, start: bytes) -> int:
    """Return zlib's window bits. `deflate` means the zlib format; some servers send raw deflate, without its header."""
    is_zlib = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2]) % 31 == 0
    return _WINDOW_BITS[coding] if coding != "deflate" or is_zlib else -zlib.MAX_WBITS
