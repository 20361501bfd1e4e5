"""Reads a JSON text as spans, so that a caller's text can be edited without being rebuilt.

`json.loads` and `json.dumps` turn 2.50 into 2.5 and 1E400 into Infinity; a slice of the text stays what it was.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_DEPTH

_CONTAINERS = (dict, list)
_SPACE = r"[ \t\n\r]*+"
# What stands before the next value of an array, or before that of an object; at its end nothing matches.
_next_item = re.compile(rf"{_SPACE}[\[,]{_SPACE}(?!\])").match
_next_key = re.compile(rf'{_SPACE}[{{,]{_SPACE}("[^"\\]*+(?:\\.[^"\\]*+)*+"){_SPACE}:{_SPACE}').match
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Repeating(dict[str, Any]):
    """An object that has a key more than once. As a dict it has the last value of each; here are all, in order."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.all_keys = [key for key, _ in pairs]
        self.all_values = [value for _, value in pairs]


def _made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeating(pairs)


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"The request body is not valid JSON: {name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_made, parse_constant=_refuse_constant)
_skip = json.JSONDecoder().raw_decode


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
    text: str


def decode(body: bytes) -> str:
    """UTF-8 as text; a byte order mark is skipped. Raises: InvalidRequest."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not UTF-8 (byte {error.start})") from error


def parse(text: str) -> Any:
    """The value of a JSON text that is safe to pass on; an object with a key given twice is a Repeating.

    Raises: InvalidRequest for what is not JSON, NaN and Infinity, nesting over MAX_DEPTH, unpaired surrogates.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRequest(f"The request body is not valid JSON: {error.msg} at {where}") from error
    except ValueError as error:  # an integer of over 4,300 digits, which Python refuses to read
        raise InvalidRequest("The request body holds a number with too many digits") from error
    except RecursionError:
        raise _too_deep() from None
    if _depth(value) > MAX_DEPTH:
        raise _too_deep()
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("The request body holds an unpaired surrogate") from error
    return value


def keys(value: dict[str, Any]) -> tuple[str, ...]:
    """The keys of a parsed object, in order; one that is given twice is there twice."""
    return tuple(value.all_keys if isinstance(value, Repeating) else value)


def values(value: dict[str, Any]) -> Collection[Any]:
    """The values of a parsed object, as its keys."""
    return value.all_values if isinstance(value, Repeating) else value.values()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested more than {MAX_DEPTH} levels deep")


def _depth(value: Any) -> int:
    """How many arrays and objects stand in one another; MAX_DEPTH + 1 for more than that."""
    depth = -1
    level: list[Any] = [[value]]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            inner
            for outer in level  # an array, an object, or a Repeating
            for inner in (outer if type(outer) is list else outer.values() if type(outer) is dict else outer.all_values)  # pyright: ignore[reportUnknownVariableType]
            if isinstance(inner, _CONTAINERS)
        ]
    return depth


def members(text: str, at: int = 0) -> list[Member]:
    """The members of the object that starts at `at` (after white space); empty when it is no object.

    The text must have passed `parse`.
    """
    found: list[Member] = []
    while key := _next_key(text, at):
        start, end = key.span(1)
        name = text[start + 1 : end - 1] if "\\" not in key[1] else json.loads(key[1])
        _, at = _skip(text, key.end())
        found.append(Member(name, start, end, key.end(), at))
    return found


def elements(text: str, at: int = 0) -> Iterator[tuple[int, int]]:
    """Where each element of the array at `at` starts and ends; the text must have passed `parse`."""
    while item := _next_item(text, at):
        start = item.end()
        _, at = _skip(text, start)
        yield start, at


def less(text: str, unwanted: Collection[str]) -> str:
    """The text of an object without the members whose keys are unwanted, each gone with its comma."""
    if not unwanted:
        return text
    found = members(text)
    gone = [i for i, member in enumerate(found) if member.key in unwanted]
    last_kept = max(set(range(len(found))).difference(gone), default=-1)
    edits = [Edit(found[i].key_start, found[i + 1].key_start, "") for i in gone if i < last_kept]
    if last_kept + 1 < len(found):
        start = found[last_kept].value_end if last_kept >= 0 else found[0].key_start
        edits.append(Edit(start, found[-1].value_end, ""))
    return apply(text, edits)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits made, which stand in order and do not overlap."""
    pieces: list[str] = []
    at = 0
    for edit in edits:
        pieces += (text[at : edit.start], edit.text)
        at = edit.end
    pieces.append(text[at:])
    return "".join(pieces)


def with_member(text: str, key: str, value: str) -> str:
    """The text of an object with one more member at its end, whose value is the JSON text `value`."""
    end = text.rindex("}")
    comma = "," if members(text) else ""
    return apply(text, [Edit(end, end, f"{comma}{json.dumps(key)}:{value}")])


def replace_member(text: str, key: str, value: str) -> str:
    """The text with the string member `key` of its root object set to `value`; unchanged where it has none."""
    return apply(
        text,
        [Edit(m.value_start, m.value_end, json.dumps(value)) for m in members(text) if m.key == key],
    )
