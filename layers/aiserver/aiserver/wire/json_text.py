"""Reads a JSON text as spans of bytes, so that a body can be checked and edited without being built or rebuilt.

Building costs memory (5 MB of `{"":0},` are 300 MB as Python's objects), and rebuilding changes numbers: `json.dumps`
turns 2.50 into 2.5 and 1E400 into Infinity. A slice of the text stays what it was.
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
# The first form ends at the first quote, which needs no look at what stands before it unless that is a backslash.
STRING = rb'"(?:[^"]*+(?<!\\)"|[^"\\]*+(?:\\.[^"\\]*+)*+")'
SHALLOW_LEVELS = 8  # one expression for MAX_DEPTH levels takes 25 ms to compile: only a deeper body pays for it
NOT_UTF_8 = "The request body is not valid UTF-8"
BOM = b"\xef\xbb\xbf"
WINDOW_BYTES = 256 * KB  # of a body at a time, while its strings are taken out
_UTF8_CHUNK_BYTES = 1024 * KB

_validate = msgspec.json.Decoder(msgspec.Raw).decode
_strings = re.compile(STRING, re.DOTALL)
_whole_strings = re.compile(rb'(?:[^"]++|%b)*+' % STRING, re.DOTALL).match
_empty_containers = re.compile(rb"\[%b\]|\{%b\}" % (SPACE, SPACE))
_next_key = re.compile(rb"%b[{,]%b(%b)%b:%b" % (SPACE, SPACE, STRING, SPACE, SPACE), re.DOTALL).match
_next_item = re.compile(rb"%b[\[,]%b(?!\])" % (SPACE, SPACE)).match
_scalar = re.compile(rb'%b|[^"\[\]{},:\s]++' % STRING, re.DOTALL).match
_error_location = re.compile(r"^(?:JSON is malformed: )?(.*?)(?: \(byte (\d+)\))?$")
_not_numbers = re.compile(rb"NaN|Infinity").match


class Member(NamedTuple):
    """One member of an object: its key, and where it stands in the text; the key's span includes its quotes."""

    key: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


class Edit(NamedTuple):
    """Put `text` where `start:end` was."""

    start: int
    end: int
    text: bytes


def encode_utf8(text: str | bytes) -> bytes:
    """The bytes of a JSON text, without a byte order mark. Raises: InvalidRequest for half a surrogate pair."""
    try:
        body = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise InvalidRequest("The request body holds an unpaired surrogate") from error
    return body.removeprefix(BOM)


def check_json(body: bytes) -> None:
    """Check that a text is JSON that is safe to edit and to pass on; nothing of it is built.

    Raises: InvalidRequest for what is not UTF-8 or not JSON, NaN and Infinity, unpaired surrogates, more than
    MAX_VALUES values, nesting over MAX_DEPTH.
    """
    check_utf8(body)
    try:
        _validate(body)
    except msgspec.DecodeError as error:
        raise _syntax_error(body, str(error)) from error
    except RecursionError:
        raise _nesting_error() from None
    if count_values(body, MAX_VALUES) > MAX_VALUES:
        raise InvalidRequest(f"The request body holds more than {MAX_VALUES:,} JSON values")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _value_end(body, len(body) - len(body.lstrip()))


def check_utf8(body: bytes) -> None:
    """Chunk by chunk: as one str, 5 MB with an emoji are 20 MB. Raises: InvalidRequest."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(body)
    for start in range(0, len(body) + 1, _UTF8_CHUNK_BYTES):
        chunk = view[start : start + _UTF8_CHUNK_BYTES]
        try:
            decoder.decode(chunk, final=start + _UTF8_CHUNK_BYTES > len(body))
        except UnicodeDecodeError as error:
            raise InvalidRequest(NOT_UTF_8) from error


def count_values(body: bytes, limit: int, window_bytes: int = WINDOW_BYTES) -> int:
    """The number of values in a valid JSON text: objects, arrays, strings, numbers, literals; keys are none.

    Counting stops once there are more than `enough`.
    """
    most = 1 + body.count(b",") + body.count(b"[") + body.count(b"{")  # those in strings included
    if most <= limit:
        return most
    commas, structure = 0, list[bytes]()
    for part in _structural_text(body, window_bytes):
        commas += part.count(b",")
        if commas > limit:
            return commas
        structure.append(part)
    rest = b"".join(structure)
    return 1 + commas + rest.count(b"[") + rest.count(b"{") - sum(1 for _ in _empty_containers.finditer(rest))


def parse_members(text: bytes, at: int = 0) -> list[Member]:
    """The members of the object that starts at `at` (after white space); empty when it is no object.

    The text must have passed `check`.
    """
    found: list[Member] = []
    while key := _next_key(text, at):
        (start, end), written = key.span(1), key[1]
        name = json.loads(written) if b"\\" in written else written[1:-1].decode()
        at = _value_end(text, key.end())
        found.append(Member(name, start, end, key.end(), at))
    return found


def iterate_elements(text: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """Where each element of the array at `at` starts and ends; the text must have passed `check`."""
    while item := _next_item(text, at):
        start = item.end()
        at = _value_end(text, start)
        yield start, at


def contains_only_objects(text: bytes, at: int) -> bool:
    """Whether all elements of the array at `at` are objects, none nested more than SHALLOW_LEVELS deep.

    One expression finds it out: of 150,000 parts, looking at each takes a second.
    """
    return bool(_objects(text, at))


def without_members(text: bytes, unwanted: Collection[str]) -> bytes:
    """The text of an object without the members whose keys are unwanted, each gone with its comma."""
    if not unwanted:
        return text
    found = parse_members(text)
    gone = [i for i, member in enumerate(found) if member.key in unwanted]
    last_kept = max(set(range(len(found))).difference(gone), default=-1)
    edits = [Edit(found[i].key_start, found[i + 1].key_start, b"") for i in gone if i < last_kept]
    if last_kept + 1 < len(found):
        start = found[last_kept].value_end if last_kept >= 0 else found[0].key_start
        edits.append(Edit(start, found[-1].value_end, b""))
    return apply_edits(text, edits)


def apply_edits(text: bytes, edits: Iterable[Edit]) -> bytes:
    """The text with all edits made, which stand in order and do not overlap."""
    pieces: list[bytes | memoryview] = []
    at, view = 0, memoryview(text)
    for edit in edits:
        pieces += (view[at : edit.start], edit.text)
        at = edit.end
    if not pieces:
        return text
    pieces.append(view[at:])
    return b"".join(pieces)


def with_member(text: bytes, key: str, value: bytes) -> bytes:
    """The text of an object with one more member at its end, whose value is the JSON text `value`."""
    end = text.rindex(b"}")
    comma = b"," if _next_key(text) else b""
    return apply_edits(text, [Edit(end, end, b"%b%b:%b" % (comma, json.dumps(key).encode(), value))])


def replace_member(text: bytes, key: str, value: str) -> bytes:
    """The text with the string member `key` of its root object set to `value`; unchanged where it has none."""
    written = json.dumps(value).encode()
    return apply_edits(text, [Edit(m.value_start, m.value_end, written) for m in parse_members(text) if m.key == key])


@cache
def nested_pattern(levels: int) -> re.Pattern[bytes]:
    """Matches an object or array of a valid JSON text that is nested at most so many levels deep."""
    inner = rb"(?!)"
    for _ in range(levels):
        inner = rb'[\[{](?:[^"\[\]{}]++|%b|%b)*+[\]}]' % (STRING, inner)
    return re.compile(inner, re.DOTALL)


_shallow = nested_pattern(SHALLOW_LEVELS).match
_objects = re.compile(
    rb"\[%b(?:(?=\{)%b%b,?%b)*+\]" % (SPACE, nested_pattern(SHALLOW_LEVELS).pattern, SPACE, SPACE), re.DOTALL
).match


def _value_end(text: bytes, at: int) -> int:
    value = _scalar(text, at) or _shallow(text, at) or nested_pattern(MAX_DEPTH).match(text, at)
    if value is None:
        raise _nesting_error()
    return value.end()


def _structural_text(body: bytes, window_bytes: int) -> Iterator[bytes]:
    """The text with a 0 for each string, a window at a time."""
    at = 0
    while at < len(body):
        end = min(at + window_bytes, len(body))
        whole = _whole_strings(body, at, end)
        stop = whole.end() if whole else at
        yield _strings.sub(b"0", body[at:stop])
        string = _strings.match(body, stop) if stop < end else None  # one that goes on behind the window
        at = string.end() if string else end
        if string:
            yield b"0"


def _syntax_error(body: bytes, reason: str) -> InvalidRequest:
    """With the place of the mistake as an editor shows it."""
    said = _error_location.match(reason)
    words, at = (said[1], int(said[2] or len(body))) if said else (reason, len(body))
    if "surrogate" in words or "hex escape" in words:
        return InvalidRequest("The request body holds an unpaired surrogate, or half of an escape")
    if constant := _not_numbers(body, at):
        words = f"{constant[0].decode()} is not a JSON number"
    line, line_start = body.count(b"\n", 0, at) + 1, body.rfind(b"\n", 0, at) + 1
    return InvalidRequest(f"The request body is not valid JSON: {words} at line {line} column {at - line_start + 1}")


def _nesting_error() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested more than {MAX_DEPTH} levels deep")
