"""Reads one HTTP/1.1 message body from a socket file, with Content-Length or chunked, up to a limit.

Ambiguous framing is rejected: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Protocol

MAX_LINE_BYTES = 65_536
MAX_FIELDS = 100  # of a head, or of a body's trailers
MAX_FIELDS_BYTES = 256 * 1024
MAX_CHUNK_LINE_BYTES = 4096  # a chunk's size and its extensions
_READ_BYTES = 65_536
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")


class Headers(Protocol):
    """Look-up by lower-case name, as both `email.message.Message` and a dict offer it."""

    def get(self, name: str, /) -> str | None: ...


class BodyTooLarge(Exception):
    """The body exceeds the limit; the bytes read so far are discarded."""


class MalformedBody(Exception):
    """The body is truncated, or its framing is invalid."""


def read_body(source: BinaryIO, headers: Headers, *, limit: int) -> bytes:
    """The complete body. Raises: BodyTooLarge (before reading, if Content-Length exceeds the limit), MalformedBody."""
    if content_length(headers) > limit:
        raise BodyTooLarge
    chunks: list[bytes] = []
    total = 0
    for chunk in stream_body(source, headers):
        total += len(chunk)
        if total > limit:
            raise BodyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def stream_body(source: BinaryIO, headers: Headers, trailers: dict[str, str] | None = None) -> Iterator[bytes]:
    """The body in chunks of up to 64 KB, as it arrives; `trailers` receives the trailer fields.

    Raises: MalformedBody.
    """
    if is_chunked(headers):
        yield from _read_chunked(source, {} if trailers is None else trailers)
        return
    remaining = content_length(headers)
    while remaining:
        chunk = source.read(min(remaining, _READ_BYTES))
        if not chunk:
            raise MalformedBody("the body ended early")
        remaining -= len(chunk)
        yield chunk


def is_chunked(headers: Headers) -> bool:
    """Whether the body is chunked. Raises: MalformedBody, when the framing is ambiguous."""
    coding = headers.get("transfer-encoding")
    if coding is None:
        return False
    if coding.lower() != "chunked":
        raise MalformedBody("Transfer-Encoding is not chunked")
    if headers.get("content-length") is not None:
        raise MalformedBody("both Transfer-Encoding and Content-Length are present")
    return True


def content_length(headers: Headers) -> int:
    """Content-Length, 0 without one. Raises: MalformedBody."""
    text = headers.get("content-length")
    if text is None:
        return 0
    if not _LENGTH.fullmatch(text):
        raise MalformedBody("Content-Length is not a number of bytes")
    return int(text)


def read_fields(source: BinaryIO) -> Iterator[tuple[str, str]]:
    """Header or trailer fields, up to the empty line that ends them. Raises: MalformedBody."""
    count, size = 0, 0
    while (line := source.readline(MAX_FIELDS_BYTES - size + 1)) != b"\r\n":
        count, size = count + 1, size + len(line)
        if count > MAX_FIELDS or size > MAX_FIELDS_BYTES:
            raise MalformedBody("header fields are too many or too long")
        field = _FIELD.fullmatch(line)
        if field is None:
            raise MalformedBody("a header field is malformed")
        yield field[1].decode("ascii"), field[2].decode("latin-1")


def _read_chunked(source: BinaryIO, trailers: dict[str, str]) -> Iterator[bytes]:
    while remaining := _read_chunk_size(source):
        while remaining:  # in parts: the size is not trusted
            part = source.read(min(remaining, _READ_BYTES))
            if not part:
                raise MalformedBody("a chunk ended early")
            remaining -= len(part)
            yield part
        if source.read(2) != b"\r\n":
            raise MalformedBody("a chunk is longer than its size")
    trailers.update((name.lower(), value) for name, value in read_fields(source))


def _read_chunk_size(source: BinaryIO) -> int:
    size_line = _CHUNK.fullmatch(source.readline(MAX_CHUNK_LINE_BYTES + 1))
    if size_line is None:
        raise MalformedBody("a chunk has no size, or its extensions are too long")
    return int(size_line[1], 16)
