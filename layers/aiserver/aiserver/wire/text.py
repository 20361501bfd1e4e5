"""Reads a JSON text as spans, so that a caller's text can be edited without being rebuilt.

`json.loads` and `json.dumps` turn 2.50 into 2.5 and 1E400 into Infinity; a slice of the text stays what it was.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from aiserver.errors import InvalidRequest

MAX_DEPTH = 100  # deeper than any real request; well under what the C parser bears

_skip_space = re.compile(r"[ \t\n\r]*").match
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')  # possessive: a long string costs no memory
_BRACKET = re.compile(r"[\[\]{}]")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"The request body is not valid JSON: {name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object and where it stands in the text; the key's span includes its quotes."""

    key: str
    key_start: int
    key_end: int
    value: Any
    value_start: int
    value_end: int


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` where `start:end` was."""

    start: int
    end: int
    text: str


def decode(body: bytes) -> str:
    """UTF-8 as text; a byte order mark is skipped. Raises: InvalidRequest."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not UTF-8 (byte {error.start})") from error


def parse(text: str) -> Any:
    """The value of a JSON text that is safe to pass on.

    Raises: InvalidRequest for what is not JSON, NaN and Infinity, nesting over MAX_DEPTH, unpaired surrogates.
    """
    if _depth(text) > MAX_DEPTH:
        raise InvalidRequest(f"The request body is nested more than {MAX_DEPTH} levels deep")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRequest(f"The request body is not valid JSON: {error.msg} at {where}") from error
    except ValueError as error:  # an integer of over 4,300 digits, which Python refuses to read
        raise InvalidRequest("The request body holds a number with too many digits") from error
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("The request body holds an unpaired surrogate") from error
    return value


def _depth(text: str) -> int:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket.group() in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def skip_space(text: str, at: int) -> int:
    match = _skip_space(text, at)
    return match.end() if match else at


def members(text: str, at: int = 0) -> list[Member]:
    """The members of the object that starts at `at` (after white space); empty when it is no object.

    The text must have passed `parse`.
    """
    at = skip_space(text, at)
    found: list[Member] = []
    if text[at : at + 1] != "{":
        return found
    at = skip_space(text, at + 1)
    while text[at] != "}":
        key, key_end = _DECODER.raw_decode(text, at)
        value_start = skip_space(text, skip_space(text, key_end) + 1)
        value, value_end = _DECODER.raw_decode(text, value_start)
        found.append(Member(key, at, key_end, value, value_start, value_end))
        at = skip_space(text, value_end)
        if text[at] == ",":
            at = skip_space(text, at + 1)
    return found


def elements(text: str, at: int = 0) -> Iterator[tuple[int, int]]:
    """Where each element of the array at `at` starts and ends; the text must have passed `parse`."""
    at = skip_space(text, at)
    if text[at : at + 1] != "[":
        return
    at = skip_space(text, at + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        yield at, end
        at = skip_space(text, end)
        if text[at] == ",":
            at = skip_space(text, at + 1)


def removals(found: list[Member], unwanted: Collection[int]) -> list[Edit]:
    """Edits that take out the members at the indices `unwanted`, each with its comma."""
    edits: list[Edit] = []
    last_kept = max((i for i in range(len(found)) if i not in unwanted), default=-1)
    for i in sorted(unwanted):
        if i < last_kept:
            edits.append(Edit(found[i].key_start, found[i + 1].key_start, ""))
    if last_kept + 1 < len(found):
        start = found[last_kept].value_end if last_kept >= 0 else found[0].key_start
        edits.append(Edit(start, found[-1].value_end, ""))
    return edits


def apply(text: str, edits: list[Edit]) -> str:
    """The text with all edits made; they must not overlap."""
    pieces: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda e: e.start):
        pieces += (text[at : edit.start], edit.text)
        at = edit.end
    pieces.append(text[at:])
    return "".join(pieces)


def replace_member(text: str, key: str, value: str) -> str:
    """The text with the string member `key` of its root object set to `value`; unchanged where it has none."""
    return apply(
        text,
        [Edit(m.value_start, m.value_end, json.dumps(value)) for m in members(text) if m.key == key],
    )
