"""json_scan finds members without parsing the text, with the same result as a parser."""

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

MEMBER_NAMES = ("usage", "error")
MB = 1024 * 1024
TEXTS = st.text(max_size=5) | st.sampled_from(["usage", "error", '"', "\\", "[", "}", "\n", "語", "😀"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
FRAGMENTS = st.sampled_from([*'[]{},:"\\ \t\n\x010.-eE1atnul', "", "\\u0061", "\\ud83d", "\\ude00", "NaN", "\\x", "[]"])


@st.composite
def nearly_json(draw: st.DrawFn) -> bytes:
    """JSON text of a value in some style, with up to two places overwritten."""
    value = draw(st.dictionaries(TEXTS, VALUES, max_size=4) | VALUES)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.integers(0, len(text)))
        text = text[:index] + draw(FRAGMENTS) + text[index + draw(st.integers(0, 1)) :]
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode("utf-8", "surrogatepass")


def find_by_reference(body: bytes) -> dict[str, bytes] | None:
    members = json_reference.members(body.removeprefix(BOM))
    return None if members is None else {name: text for name, text in members.items() if name in MEMBER_NAMES}


def has_lone_surrogate(body: bytes) -> bool:
    """Return whether the parser rejects the text only because of an escaped lone surrogate."""
    return (
        find_by_reference(body) is None
        and find_by_reference(re.sub(rb"\\u[dD][89a-fA-F]..", b"\\\\ufffd", body)) is not None
    )


@given(nearly_json())
def test_find_members_returns_the_members_that_the_parser_returns(body: bytes) -> None:
    assume(not has_lone_surrogate(body))
    assert json_scan.find_members(body, *MEMBER_NAMES) == find_by_reference(body)


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
def test_find_members_handles_grammar_edge_cases(body: bytes, expected: dict[str, bytes] | None) -> None:
    assert json_scan.find_members(body, *MEMBER_NAMES) == expected


def large_object(unit: str, size: int) -> bytes:
    return b'{"x":[%s],"usage":{"n":1}}' % ((unit.encode() * (size // len(unit.encode())))[:-1])


@pytest.mark.parametrize("unit", ['{"a":1},', '[{"b":[]}],', '"語",', "[],"])
def test_find_members_needs_little_memory_for_a_large_text(unit: str) -> None:
    body = large_object(unit, MB // 2)
    tracemalloc.start()
    try:
        members: Any = json_scan.find_members(body, *MEMBER_NAMES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert members == {"usage": b'{"n":1}'}
    assert peak < 3 * MB  # at most the text as a Python str; parsed values would take up to 30 MB


@given(st.sampled_from(["", "\ufeff"]), st.sampled_from(["", " \n"]), VALUES)
def test_unwrap_single_returns_the_only_element_or_the_unchanged_text(bom: str, space: str, value: Any) -> None:
    inner = json.dumps(value)
    assert json_scan.unwrap_single(f"{bom}{space}[{space}{inner}{space}]".encode()) == inner.encode()
    for text in (f"[{inner},{inner}]", "[]", f"[{inner}", f'{{"a":[{inner}]}}'):
        assert json_scan.unwrap_single(text.encode()) == text.encode()
