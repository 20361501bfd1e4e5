"""Checks a JSON text, and finds members of its root object, without building what it holds.

An answer may be large, and ten may come at once: as Python's objects, 20 MB of `{"a":1},` are 600 MB, and as a str of
Python's 80 MB where one letter is an emoji. This takes less than a megabyte of any text: docs/benchmarks.md.

The grammar of RFC 8259 without recursion: regular expressions run over what is flat, a stack knows the rest.
"""

import codecs
import json
import re
from collections.abc import Collection

from aiserver.wire.text import MAX_DEPTH

_CHUNK_BYTES = 1024 * 1024  # decoded at a time, to see whether the whole is UTF-8
_BOM = b"\xef\xbb\xbf"


def _many(one: str) -> str:
    """None or more, up to 64 million, never tried otherwise.

    Each round of a repetition costs memory until the whole is over, so it is three short ones within one another. A
    possessive one costs none, but Python before 3.11.5 keeps what its last, failed round had taken:
    https://github.com/python/cpython/issues/106052
    """
    return rf"(?>(?:(?>(?:(?>(?:{one}){{1,400}})){{1,400}})){{0,400}})"


_WS = r"[ \t\n\r]*+"
_ESCAPE = r'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})'
_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # of surrogates; one alone is refused
_PLAIN = r'[^"\\\x00-\x1f]*+'
_STRING = rf'"{_PLAIN}{_many(f"(?:{_ESCAPE}|{_PAIR}){_PLAIN}")}"'
_NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_SCALAR = rf"(?:{_STRING}|{_NUMBER}|true|false|null)"
_KEY = rf"{_STRING}{_WS}:{_WS}"
_NEXT = rf"(?:,{_WS}(?!\])|(?=\]))"  # a comma with something behind it, or the end
_NEXT_KEY = rf'(?:,{_WS}(?=")|(?=\}}))'
# What holds no further brackets is taken with what stands around it.
_FLAT_ARRAY = rf"\[{_WS}{_many(f'{_SCALAR}{_WS}{_NEXT}')}\]"
_FLAT_OBJECT = rf"\{{{_WS}{_many(f'{_KEY}{_SCALAR}{_WS}{_NEXT_KEY}')}\}}"
_FLAT = rf"(?:{_SCALAR}|{_FLAT_ARRAY}|{_FLAT_OBJECT})"
# Each ends behind a bracket: one that opens what is not flat, or the one that closes where we are.
_ELEMENTS = rf"{_WS}{_many(f'{_FLAT}{_WS}{_NEXT}')}[\[{{\]]"
_MEMBERS = rf"{_WS}{_many(f'{_KEY}{_FLAT}{_WS}{_NEXT_KEY}')}(?:\}}|{_KEY}[\[{{])"


def _matcher(pattern: str) -> "re.Pattern[bytes]":
    return re.compile(pattern.encode())


_OPENED = {ord("["): _matcher(_ELEMENTS), ord("{"): _matcher(_MEMBERS)}
_CLOSED = {
    ord("["): _matcher(rf"{_WS}(?:\]|,{_WS}(?!\]){_ELEMENTS})"),
    ord("{"): _matcher(rf'{_WS}(?:\}}|,{_WS}(?="){_MEMBERS})'),
}
_START = _matcher(rf"{_WS}\{{{_WS}")
_END = _matcher(rf"\}}{_WS}")
_MEMBER = _matcher(rf"({_STRING}){_WS}:{_WS}({_FLAT}|(?=[\[{{]))")
_COMMA = _matcher(rf'{_WS}(,{_WS}(?="))?')


class _NotJson(Exception):
    pass


def members(body: bytes, wanted: Collection[str]) -> dict[str, bytes] | None:
    """The JSON texts of the `wanted` members of the object in `body`, the last of each; None when it is no object.

    What `wire.text.parse` refuses is none: not UTF-8, not JSON, NaN, nesting over MAX_DEPTH, unpaired surrogates.
    """
    try:
        _check_utf8(body)
        return _members(body, wanted)
    except (UnicodeDecodeError, _NotJson):
        return None


def _check_utf8(body: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for start in range(0, len(body), _CHUNK_BYTES):
        decoder.decode(view[start : start + _CHUNK_BYTES])
    decoder.decode(b"", final=True)


def _members(body: bytes, wanted: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    names = {name.encode(): name for name in wanted}
    at = _after(_START, body, len(_BOM) if body.startswith(_BOM) else 0).end()
    more = body[at : at + 1] != b"}"
    while more:
        member = _after(_MEMBER, body, at)
        start, end = member.span(2)
        if start == end:
            end = _after_nested(body, start)
        key = member[1]
        name: str | None = json.loads(key) if b"\\" in key else names.get(key[1:-1])
        if name is not None and name in wanted:
            found[name] = body[start:end]
        comma = _after(_COMMA, body, end)
        at, more = comma.end(), comma[1] is not None
    if _after(_END, body, at).end() != len(body):
        raise _NotJson
    return found


def _after_nested(body: bytes, at: int) -> int:
    """Where the array or object ends that starts at `at` and is not flat."""
    inside = [body[at]]
    at = _after(_OPENED[body[at]], body, at + 1).end()
    while True:
        bracket = body[at - 1]
        if bracket in _OPENED:
            inside.append(bracket)
            if len(inside) > MAX_DEPTH - 2:  # the root is around these, and in the last, which is not flat, is one more
                raise _NotJson
            at = _after(_OPENED[bracket], body, at).end()
        else:
            inside.pop()
            if not inside:
                return at
            at = _after(_CLOSED[inside[-1]], body, at).end()


def _after(pattern: "re.Pattern[bytes]", body: bytes, at: int) -> "re.Match[bytes]":
    match = pattern.match(body, at)
    if match is None:
        raise _NotJson
    return match
