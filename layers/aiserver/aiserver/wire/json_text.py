"""Reads a JSON text as byte spans, to check and edit a body without parsing it into objects and serializing it again.

Objects cost memory (5 MB of `{"":0},` take 300 MB in Python), and serializing changes numbers: `json.dumps` turns 2.50
into 2.5 and 1E400 into Infinity. A slice of the text is unchanged.
"""

import codecs
import json
import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import NamedTuple

import msgspec

from aiserver.errors import InvalidRequest
from aiserver.limits import KB, MAX_DEPTH, MAX_VALUES

SPACE = rb"[ \t\n\r]*+"
# The first form ends at the first quote; the text before it matters only if it ends with a backslash.
STRING = rb'"(?:[^"]*+(?<!\\)"|[^"\\]*+(?:\\.[^"\\]*+)*+")'
SHALLOW_LEVELS = 8  # the expression for MAX_DEPTH levels takes 25 ms to compile: only deeper bodies need it
NOT_UTF_8 = "The request body is not valid UTF-8"
BOM = b"\xef\xbb\xbf"
WINDOW_BYTES = 256 * KB  # of a body processed at a time when its strings are removed
_UTF8_CHUNK_BYTES = 1024 * KB

_validate = msgspec.json.Decoder(msgspec.Raw).decode
_strings = re.compile(STRING, re.DOTALL)
_complete_strings = re.compile(rb'(?:[^"]++|%b)*+' % STRING, re.DOTALL).match
_empty_containers = re.compile(rb"\[%b\]|\{%b\}" % (SPACE, SPACE))
_next_key = re.compile(rb"%b[{,]%b(%b)%b:%b" % (SPACE, SPACE, STRING, SPACE, SPACE), re.DOTALL).match
_next_item = re.compile(rb"%b[\[,]%b(?!\])" % (SPACE, SPACE)).match
_scalar = re.compile(rb'%b|[^"\[\]{},:\s]++' % STRING, re.DOTALL).match
_error_location = re.compile(r"^(?:JSON is malformed: )?(.*?)(?: \(byte (\d+)\))?$")
_not_numbers = re.compile(rb"NaN|Infinity").match


class Member(NamedTuple):
    """One member of an object: its key and its spans in the text; the key's span includes the quotes."""

    key: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


class Edit(NamedTuple):
    """Replaces the span `start:end` by `text`."""

    start: int
    end: int
    text: bytes


def encode_utf8(text: str | bytes) -> bytes:
    """The bytes of a JSON text, without a byte order mark. Raises: InvalidRequest, for an unpaired surrogate."""
    try:
        body = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise InvalidRequest("The request body contains an unpaired surrogate") from error
    return body.removeprefix(BOM)


def check_json(body: bytes) -> None:
    """Check that a text is JSON that is safe to edit and to forward, without building objects.

    Raises: InvalidRequest, for invalid UTF-8 or JSON, NaN and Infinity, unpaired surrogates, more than MAX_VALUES
    values, nesting over MAX_DEPTH.
    """
    check_utf8(body)
    try:
        _validate(body)
    except msgspec.DecodeError as error:
        raise _syntax_error(body, str(error)) from error
    except RecursionError:
        raise _nesting_error() from None
    if count_values(body, MAX_VALUES) > MAX_VALUES:
        raise InvalidRequest(f"The request body contains more than {MAX_VALUES:,} JSON values")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _value_end(body, len(body) - len(body.lstrip()))


def check_utf8(body: bytes) -> None:
    """Decode in chunks: 5 MB with an emoji would take 20 MB as one str. Raises: InvalidRequest, for invalid UTF-8."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(body)
    for start in range(0, len(body) + 1, _UTF8_CHUNK_BYTES):
        chunk = view[start : start + _UTF8_CHUNK_BYTES]
        try:
            decoder.decode(chunk, final=start + _UTF8_CHUNK_BYTES > len(body))
        except UnicodeDecodeError as error:
            raise InvalidRequest(NOT_UTF_8) from error


def count_values(body: bytes, limit: int, window_bytes: int = WINDOW_BYTES) -> int:
    """The number of values in a valid JSON text: objects, arrays, strings, numbers, literals; keys do not count.

    Up to `limit` the number may be too high; counting stops above it.
    """
    upper_bound = 1 + body.count(b",") + body.count(b"[") + body.count(b"{")  # includes characters within strings
    if upper_bound <= limit:
        return upper_bound
    commas, parts = 0, list[bytes]()
    for part in _structural_text(body, window_bytes):
        commas += part.count(b",")
        if commas > limit:
            return commas
        parts.append(part)
    structure = b"".join(parts)
    empty_containers = sum(1 for _ in _empty_containers.finditer(structure))
    return 1 + commas + structure.count(b"[") + structure.count(b"{") - empty_containers


def parse_members(text: bytes, at: int = 0) -> list[Member]:
    """The members of the object that starts at `at` (after white space); empty when there is no object.

    The text must have passed `check_json`.
    """
    members: list[Member] = []
    while key := _next_key(text, at):
        (start, end), literal = key.span(1), key[1]
        name = json.loads(literal) if b"\\" in literal else literal[1:-1].decode()
        at = _value_end(text, key.end())
        members.append(Member(name, start, end, key.end(), at))
    return members


def iterate_elements(text: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """The span of each element of the array at `at`; the text must have passed `check_json`."""
    while item := _next_item(text, at):
        start = item.end()
        at = _value_end(text, start)
        yield start, at


def contains_only_objects(text: bytes, at: int) -> bool:
    """Whether all elements of the array at `at` are objects, none nested more than SHALLOW_LEVELS deep.

    Decided by one expression: checking 150,000 elements one by one takes a second.
    """
    return bool(_objects(text, at))


def without_members(text: bytes, keys: Collection[str]) -> bytes:
    """The text of an object without the members of these keys and their commas."""
    if not keys:
        return text
    members = parse_members(text)
    removals = [i for i, member in enumerate(members) if member.key in keys]
    last_kept = max(set(range(len(members))).difference(removals), default=-1)
    edits = [Edit(members[i].key_start, members[i + 1].key_start, b"") for i in removals if i < last_kept]
    if last_kept + 1 < len(members):
        start = members[last_kept].value_end if last_kept >= 0 else members[0].key_start
        edits.append(Edit(start, members[-1].value_end, b""))
    return apply_edits(text, edits)


def apply_edits(text: bytes, edits: Iterable[Edit]) -> bytes:
    """The text after all edits, which must be in order and must not overlap."""
    slices: list[bytes | memoryview] = []
    at, view = 0, memoryview(text)
    for edit in edits:
        slices += (view[at : edit.start], edit.text)
        at = edit.end
    if not slices:
        return text
    slices.append(view[at:])
    return b"".join(slices)


def with_member(text: bytes, key: str, value: bytes) -> bytes:
    """The text of an object with the member `key` appended; `value` is its JSON text."""
    end = text.rindex(b"}")
    comma = b"," if _next_key(text) else b""
    return apply_edits(text, [Edit(end, end, b"%b%b:%b" % (comma, json.dumps(key).encode(), value))])


def replace_member(text: bytes, key: str, value: str) -> bytes:
    """The text with the string member `key` of its root object set to `value`; unchanged when it is absent."""
    literal = json.dumps(value).encode()
    return apply_edits(text, [Edit(m.value_start, m.value_end, literal) for m in parse_members(text) if m.key == key])


@cache
def container_pattern(levels: int) -> re.Pattern[bytes]:
    """Matches an object or array of a valid JSON text with at most `levels` levels of nesting."""
    inner = rb"(?!)"
    for _ in range(levels):
        inner = rb'[\[{](?:[^"\[\]{}]++|%b|%b)*+[\]}]' % (STRING, inner)
    return re.compile(inner, re.DOTALL)


_shallow = container_pattern(SHALLOW_LEVELS).match
_objects = re.compile(
    rb"\[%b(?:(?=\{)%b%b,?%b)*+\]" % (SPACE, container_pattern(SHALLOW_LEVELS).pattern, SPACE, SPACE), re.DOTALL
).match


def _value_end(text: bytes, at: int) -> int:
    value = _scalar(text, at) or _shallow(text, at) or container_pattern(MAX_DEPTH).match(text, at)
    if value is None:
        raise _nesting_error()
    return value.end()


def _structural_text(body: bytes, window_bytes: int) -> Iterator[bytes]:
    """The text with each string replaced by 0, in windows."""
    at = 0
    while at < len(body):
        end = min(at + window_bytes, len(body))
        complete_text = _complete_strings(body, at, end)
        stop = complete_text.end() if complete_text else at
        yield _strings.sub(b"0", body[at:stop])
        string = _strings.match(body, stop) if stop < end else None  # extends beyond the window
        at = string.end() if string else end
        if string:
            yield b"0"


def _syntax_error(body: bytes, reason: str) -> InvalidRequest:
    """A syntax error with line and column."""
    location = _error_location.match(reason)
    description, at = (location[1], int(location[2] or len(body))) if location else (reason, len(body))
    if "surrogate" in description or "hex escape" in description:
        return InvalidRequest("The request body contains an unpaired surrogate or an incomplete escape sequence")
    if constant := _not_numbers(body, at):
        description = f"{constant[0].decode()} is not a JSON number"
    line, line_start = body.count(b"\n", 0, at) + 1, body.rfind(b"\n", 0, at) + 1
    column = at - line_start + 1
    return InvalidRequest(f"The request body is not valid JSON: {description} at line {line} column {column}")


def _nesting_error() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested more than {MAX_DEPTH} levels deep")
