"""What is judged without being built is judged as by the parser that builds it, and its members are the same."""

import json
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.wire import json_scan
from aiserver.wire.json_text import BOM
from tests import json_reference

WANTED = ("usage", "error")
MB = 1024 * 1024
TEXTS = st.text(max_size=5) | st.sampled_from(["usage", "error", '"', "\\", "[", "}", "\n", "語", "😀"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
PIECES = st.sampled_from([*'[]{},:"\\ \t\n\x010.-eE1atnul', "", "\\u0061", "\\ud83d", "\\ude00", "NaN", "\\x", "[]"])


@st.composite
def nearly_json(draw: st.DrawFn) -> bytes:
    """An object's text, in some style, with up to two places overwritten."""
    value = draw(st.dictionaries(TEXTS, VALUES, max_size=4) | VALUES)
    written = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(written)))
        written = written[:at] + draw(PIECES) + written[at + draw(st.integers(0, 1)) :]
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + written.encode("utf-8", "surrogatepass")


def by_reference(body: bytes) -> dict[str, bytes] | None:
    members = json_reference.members(body.removeprefix(BOM))
    return None if members is None else {name: text for name, text in members.items() if name in WANTED}


def is_half_a_pair(body: bytes) -> bool:
    """Whether the parser refuses the text only because of an escaped surrogate that stands alone."""
    return by_reference(body) is None and by_reference(re.sub(rb"\\u[dD][89a-fA-F]..", b"\\\\ufffd", body)) is not None


@given(nearly_json())
def test_a_text_is_an_object_or_none_as_the_parser_says_and_its_members_are_the_same(body: bytes) -> None:
    assume(not is_half_a_pair(body))
    assert json_scan.find_members(body, *WANTED) == by_reference(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"usage":1,"us\\u0061ge":{"a":[2]}}', {"usage": b'{"a":[2]}'}),
        (b' {"error" : [ {} , [[1 ] ] ] } \n', {"error": b"[ {} , [[1 ] ] ]"}),
        (b'{"a":"\\ud83d\\ude00"}', {}),
        (b'{"a":"\\\\ud83d"}', {}),
        (b'{"a":"\\ud83d"}', {}),
        (b'{"a":"cut \\ud83d","usage":{"n":1}}', {"usage": b'{"n":1}'}),
        (b'{"a":"\\ude00\\ud83d"}', {}),
        (b'{"a":"\\u12"}', None),
        (b'{"a":[1,]}', None),
        (b'{"a":[[],]}', None),
        (b'{"a":{"b":[],}}', None),
        (b'{"a":[[]}', None),
        (b'{"a":{"b":{}]}', None),
        (b'{"a":1.}', None),
        (b'{"a":01}', None),
        (b'{"a":"\xff"}', None),
        (b'{"a":1}{', None),
        (b"{", None),
        (b"", None),
        (b"[]", None),
    ],
)
def test_the_grammar_s_corners(body: bytes, expected: dict[str, bytes] | None) -> None:
    assert json_scan.find_members(body, *WANTED) == expected


def repeated(unit: str, size: int) -> bytes:
    return b'{"x":[%s],"usage":{"n":1}}' % ((unit.encode() * (size // len(unit.encode())))[:-1])


@pytest.mark.parametrize("unit", ['{"a":1},', '[{"b":[]}],', '"語",', "[],"])
def test_a_large_text_of_any_kind_takes_no_memory_worth_naming(unit: str) -> None:
    body = repeated(unit, MB // 2)
    tracemalloc.start()
    try:
        found: Any = json_scan.find_members(body, *WANTED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == {"usage": b'{"n":1}'}
    assert peak < 3 * MB  # itself as Python's text, at most; built, they would take up to 30 MB


@given(st.sampled_from(["", "\ufeff"]), st.sampled_from(["", " \n"]), VALUES)
def test_the_one_element_of_an_array_is_found_as_it_stands_and_anything_else_left(
    mark: str, space: str, value: Any
) -> None:
    inner = json.dumps(value)
    assert json_scan.unwrap_single(f"{mark}{space}[{space}{inner}{space}]".encode()) == inner.encode()
    for other in (f"[{inner},{inner}]", "[]", f"[{inner}", f'{{"a":[{inner}]}}'):
        assert json_scan.unwrap_single(other.encode()) == other.encode()
