"""Reads one HTTP/1.1 message body from a socket file, counted or chunked, up to a limit.

What is ambiguous is refused: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Protocol

MAX_LINE_BYTES = 65_536
MAX_FIELDS = 100  # of a head, or of a body's trailers
MAX_FIELDS_BYTES = 256 * 1024
MAX_CHUNK_LINE_BYTES = 4096  # a chunk's size and its extensions
_PIECE_BYTES = 65_536
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")


class Headers(Protocol):
    """Look-up by lower-case name, as both `email.message.Message` and a dict offer it."""

    def get(self, name: str, /) -> str | None: ...


class BodyTooLarge(Exception):
    """More bytes than the limit; what was read is dropped."""


class BodyBroken(Exception):
    """The sender broke off, or its framing is wrong."""


def read_body(source: BinaryIO, headers: Headers, *, limit: int) -> bytes:
    """The whole body. Raises: BodyTooLarge (before reading, where the length is announced), BodyBroken."""
    if declared_length(headers) > limit:
        raise BodyTooLarge
    pieces: list[bytes] = []
    total = 0
    for piece in pieces_of(source, headers):
        total += len(piece)
        if total > limit:
            raise BodyTooLarge
        pieces.append(piece)
    return b"".join(pieces)


def pieces_of(source: BinaryIO, headers: Headers, trailers: dict[str, str] | None = None) -> Iterator[bytes]:
    """The body as it arrives; trailers are kept where a place is given. Raises: BodyBroken."""
    if is_chunked(headers):
        yield from _chunks(source, {} if trailers is None else trailers)
        return
    left = declared_length(headers)
    while left:
        piece = source.read(min(left, _PIECE_BYTES))
        if not piece:
            raise BodyBroken("the body ended early")
        left -= len(piece)
        yield piece


def is_chunked(headers: Headers) -> bool:
    """Whether the body comes in chunks. Raises: BodyBroken, where another reader might think otherwise."""
    coding = headers.get("transfer-encoding")
    if coding is None:
        return False
    if coding.lower() != "chunked":
        raise BodyBroken("Transfer-Encoding is not chunked")
    if headers.get("content-length") is not None:
        raise BodyBroken("there are both Transfer-Encoding and Content-Length")
    return True


def declared_length(headers: Headers) -> int:
    """Content-Length, 0 without one. Raises: BodyBroken."""
    text = headers.get("content-length")
    if text is None:
        return 0
    if not _LENGTH.fullmatch(text):
        raise BodyBroken("Content-Length is not a number of bytes")
    return int(text)


def read_fields(source: BinaryIO) -> Iterator[tuple[str, str]]:
    """Header or trailer fields, up to the empty line that ends them. Raises: BodyBroken."""
    count, size = 0, 0
    while (line := source.readline(MAX_FIELDS_BYTES - size + 1)) != b"\r\n":
        count, size = count + 1, size + len(line)
        if count > MAX_FIELDS or size > MAX_FIELDS_BYTES:
            raise BodyBroken("there are too many or too long header fields")
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BodyBroken("a header field is malformed")
        yield field[1].decode("ascii"), field[2].decode("latin-1")


def _chunks(source: BinaryIO, trailers: dict[str, str]) -> Iterator[bytes]:
    while size := _chunk_size(source):
        while size:  # piece by piece: the size is only what the sender says
            piece = source.read(min(size, _PIECE_BYTES))
            if not piece:
                raise BodyBroken("a chunk ended early")
            size -= len(piece)
            yield piece
        if source.read(2) != b"\r\n":
            raise BodyBroken("a chunk is longer than it says")
    trailers.update((name.lower(), value) for name, value in read_fields(source))


def _chunk_size(source: BinaryIO) -> int:
    chunk = _CHUNK.fullmatch(source.readline(MAX_CHUNK_LINE_BYTES + 1))
    if chunk is None:
        raise BodyBroken("a chunk has no size, or too long extensions")
    return int(chunk[1], 16)
