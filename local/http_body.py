"""Reads one HTTP/1.1 message body from a socket file, counted or chunked, up to a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, Protocol

_LINE_BYTES = 65_536
_PIECE_BYTES = 65_536


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
    if "chunked" in (headers.get("transfer-encoding") or "").lower():
        yield from _chunks(source, {} if trailers is None else trailers)
        return
    left = declared_length(headers)
    while left:
        piece = source.read(min(left, _PIECE_BYTES))
        if not piece:
            raise BodyBroken("the body ended early")
        left -= len(piece)
        yield piece


def declared_length(headers: Headers) -> int:
    """Content-Length, 0 without one. Raises: BodyBroken."""
    text = (headers.get("content-length") or "0").strip()
    if not (text.isascii() and text.isdigit()):
        raise BodyBroken("Content-Length is not a number")
    return int(text)


def _chunks(source: BinaryIO, trailers: dict[str, str]) -> Iterator[bytes]:
    while size := _chunk_size(source):
        while size:  # piece by piece: the size is only what the sender says
            piece = source.read(min(size, _PIECE_BYTES))
            if not piece:
                raise BodyBroken("a chunk ended early")
            size -= len(piece)
            yield piece
        if source.readline(_LINE_BYTES).strip():
            raise BodyBroken("a chunk is longer than it says")
    while line := source.readline(_LINE_BYTES).strip():
        name, _, value = line.decode("latin-1").partition(":")
        trailers[name.lower()] = value.strip()


def _chunk_size(source: BinaryIO) -> int:
    text = source.readline(_LINE_BYTES).split(b";")[0].strip()
    try:
        if not text or text[0] not in b"0123456789abcdefABCDEF":
            raise ValueError
        return int(text, 16)
    except ValueError:
        raise BodyBroken("a chunk has no size") from None


def drain(source: BinaryIO, headers: Headers, *, limit: int) -> None:
    """Read a refused body away, within reason: a sender cut off in the middle would not hear the answer."""
    with suppress(BodyBroken, OSError):
        for piece in pieces_of(source, headers):
            limit -= len(piece)
            if limit < 0:
                return
