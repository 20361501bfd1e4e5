"""A JSON text is checked, counted and cut without being built, as the parser that builds it would do it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_VALUES
from aiserver.wire import json_text
from tests import json_reference
from tests.unit.test_scan import VALUES, nearly_json


def is_accepted(body: bytes) -> bool:
    try:
        json_text.check_json(body)
    except InvalidRequest:
        return False
    return True


@given(nearly_json())
def test_what_passes_is_what_the_parser_takes(body: bytes) -> None:
    try:
        json_reference.value(body)
    except ValueError:
        assert not is_accepted(body)
    else:
        assert is_accepted(body)


@given(VALUES, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_values_are_counted_exactly(value: object, indent: int | None, is_ascii: bool, window: int) -> None:
    body, expected = json.dumps(value, indent=indent, ensure_ascii=is_ascii).encode(), json_reference.count(value)
    assert json_text.count_values(body, expected, window) <= expected
    assert json_text.count_values(body, expected - 1, window) > expected - 1


@pytest.mark.parametrize("unit", [b"1", b"{}", b'""', b'",[{"', b'"\\""', b"[ ]", b" null "])
def test_a_body_may_hold_half_a_million_values_and_not_one_more(unit: bytes) -> None:
    json_text.check_json(b"[%b]" % b",".join([unit] * (MAX_VALUES - 1)))
    with pytest.raises(InvalidRequest, match="more than 500,000 JSON values"):
        json_text.check_json(b"[%b]" % b",".join([unit] * MAX_VALUES))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "Input data was truncated at line 1 column 1"),
        (b'{"a":1,\n "b":}', "invalid character at line 2 column 6"),
        (b'{"a":\n\nNaN}', "NaN is not a JSON number at line 3 column 1"),
        (b'{"a":-Infinity}', "Infinity is not a JSON number at line 1 column 7"),
    ],
)
def test_malformed_json_is_shown_by_line_and_column(body: bytes, place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        json_text.check_json(body)
    assert place in refused.value.message


@given(st.binary(max_size=30))
def test_any_bytes_are_checked_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        json_text.check_json(body)
