"""Validates a JSON text and finds members of its root object without building objects.

Responses may be large, and ten may arrive in parallel: 20 MB of `{"a":1},` take 600 MB as Python objects, and 80 MB as
a str with one emoji. The members that are not requested are skipped: docs/benchmarks.md.
"""

import codecs
import re
from functools import cache

import msgspec

_CHUNK_BYTES = 1024 * 1024  # decoded at a time to validate UTF-8
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_BOM = b"\xef\xbb\xbf"
_ARRAY_OF_ONE = msgspec.json.Decoder(tuple[msgspec.Raw])


def find_members(body: bytes, *names: str) -> dict[str, bytes] | None:
    """The JSON texts of the members `names` of the object in `body`; of a duplicate, the last one.

    None when `body` is not UTF-8, not JSON or not an object. An unpaired escaped surrogate is accepted: a response
    truncated within an emoji is billed all the same.
    """
    try:
        _check_utf8(body)
        try:
            return _decode_members(body, names)
        except msgspec.DecodeError:
            repaired = _SURROGATE.sub(rb"\\ufffd", body)
            return _decode_members(repaired, names) if repaired != body else None
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def member_view(body: bytes, name: str) -> memoryview:
    """The JSON text of a member of the object in `body`, without a copy of it; empty when there is none."""
    try:
        return memoryview(getattr(_decoder((name,)).decode(_without_bom(body)), name))
    except msgspec.DecodeError:  # half a surrogate pair, which find_members accepts
        return memoryview((find_members(body, name) or {}).get(name, b""))


def unwrap_single(body: bytes) -> bytes:
    """The JSON text of the only element of the array in `body`; `body` itself when it is not such an array."""
    try:
        return bytes(_ARRAY_OF_ONE.decode(_without_bom(body))[0])
    except (msgspec.DecodeError, RecursionError):
        return body


def _decode_members(body: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    members = _decoder(names).decode(_without_bom(body))
    texts = {name: bytes(getattr(members, name)) for name in names}
    return {name: text for name, text in texts.items() if text}


def _without_bom(body: bytes) -> memoryview:
    return memoryview(body)[len(_BOM) if body.startswith(_BOM) else 0 :]


@cache
def _decoder(names: tuple[str, ...]) -> "msgspec.json.Decoder[msgspec.Struct]":
    fields = [(name, msgspec.Raw, msgspec.Raw(b"")) for name in names]
    return msgspec.json.Decoder(msgspec.defstruct("Members", fields))


def _check_utf8(body: bytes) -> None:
    """Needed because msgspec validates only the strings that it builds. Raises: UnicodeDecodeError."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for start in range(0, len(body), _CHUNK_BYTES):
        decoder.decode(view[start : start + _CHUNK_BYTES])
    decoder.decode(b"", final=True)
