"""JSON text is checked and counted without parsing it, with the same result as a parser."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_VALUES
from aiserver.wire import json_text
from tests import json_reference
from tests.unit.test_json_scan import VALUES, nearly_json


def is_accepted(body: bytes) -> bool:
    try:
        json_text.check_json(body)
    except InvalidRequest:
        return False
    return True


@given(nearly_json())
def test_check_json_accepts_what_the_parser_accepts(body: bytes) -> None:
    try:
        json_reference.parse(body)
    except ValueError:
        assert not is_accepted(body)
    else:
        assert is_accepted(body)


@given(VALUES, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_count_values_is_exact(value: object, indent: int | None, is_ascii: bool, window: int) -> None:
    body, expected = (
        json.dumps(value, indent=indent, ensure_ascii=is_ascii).encode(),
        json_reference.count_values(value),
    )
    assert json_text.count_values(body, expected, window) <= expected
    assert json_text.count_values(body, expected - 1, window) > expected - 1


@pytest.mark.parametrize("unit", [b"1", b"{}", b'""', b'",[{"', b'"\\""', b"[ ]", b" null "])
def test_body_may_hold_at_most_half_a_million_values(unit: bytes) -> None:
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
def test_malformed_json_error_has_line_and_column(body: bytes, place: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        json_text.check_json(body)
    assert place in raised.value.message


@given(st.binary(max_size=30))
def test_check_json_raises_only_invalid_request_for_any_bytes(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        json_text.check_json(body)
