"""Checks a JSON text, and finds members of its root object, without building what it holds.

An answer may be large, and ten may come at once: as Python's objects, 20 MB of `{"a":1},` are 600 MB, and as a str of
Python's 80 MB where one letter is an emoji. Here what nobody asks for is skipped: docs/benchmarks.md.
"""

import codecs
import re
from functools import cache

import msgspec

_CHUNK_BYTES = 1024 * 1024  # decoded at a time, to see whether the whole is UTF-8
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_BOM = b"\xef\xbb\xbf"
_ARRAY_OF_ONE = msgspec.json.Decoder(tuple[msgspec.Raw])


def find_members(body: bytes, *wanted: str) -> dict[str, bytes] | None:
    """The JSON texts of the `wanted` members of the object in `body`, the last of each; None when it is no object.

    What is not UTF-8, or not JSON, is none. Half an escaped surrogate pair is let pass: an answer that was cut within
    an emoji has been paid for all the same.
    """
    try:
        _check_utf8(body)
        try:
            return _decode_members(body, wanted)
        except msgspec.DecodeError:
            whole = _SURROGATE.sub(rb"\\ufffd", body)
            return _decode_members(whole, wanted) if whole != body else None
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def unwrap_single(body: bytes) -> bytes:
    """The JSON text of the one element of the array in `body`; `body` itself where it is no array of one."""
    try:
        return bytes(_ARRAY_OF_ONE.decode(_without_bom(body))[0])
    except (msgspec.DecodeError, RecursionError):
        return body


def _decode_members(body: bytes, wanted: tuple[str, ...]) -> dict[str, bytes]:
    found = _decoder(wanted).decode(_without_bom(body))
    texts = {name: bytes(getattr(found, name)) for name in wanted}
    return {name: text for name, text in texts.items() if text}


def _without_bom(body: bytes) -> memoryview:
    return memoryview(body)[len(_BOM) if body.startswith(_BOM) else 0 :]


@cache
def _decoder(wanted: tuple[str, ...]) -> "msgspec.json.Decoder[msgspec.Struct]":
    raw = [(name, msgspec.Raw, msgspec.Raw(b"")) for name in wanted]
    return msgspec.json.Decoder(msgspec.defstruct("Wanted", raw))


def _check_utf8(body: bytes) -> None:
    """msgspec looks into the strings it builds only. Raises: UnicodeDecodeError."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for start in range(0, len(body), _CHUNK_BYTES):
        decoder.decode(view[start : start + _CHUNK_BYTES])
    decoder.decode(b"", final=True)
