"""with_usage adds include_usage to any body and changes no other byte."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.wire.upstream_body import with_usage

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=6,
)
OPTIONS = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "include_obfuscation", "x"]), st.booleans(), max_size=3
)
BODIES = st.dictionaries(st.sampled_from(["model", "messages", "stream", "a}", 'b"']), VALUES, max_size=4)


@given(BODIES, st.booleans(), OPTIONS, st.sampled_from([None, 2]))
def test_include_usage_is_set_and_other_members_are_unchanged(
    body: dict[str, object], has_options: bool, options: dict[str, bool] | None, indent: int | None
) -> None:
    request = body | ({"stream_options": options} if has_options else {})
    request_options = (has_options and options) or {}
    upstream_body = with_usage(json.dumps(request, indent=indent).encode())
    assert json.loads(upstream_body) == body | {"stream_options": request_options | {"include_usage": True}}


@pytest.mark.parametrize(
    "body", [b'{"stream_options":{"include_usage":true}}', b'{ "stream_options" : {"include_usage": true, "x":1} }']
)
def test_body_with_include_usage_is_unchanged(body: bytes) -> None:
    assert with_usage(body) is body


def test_numbers_and_white_space_are_not_rewritten() -> None:
    body = b'{"temperature":2.50, "x" : 1E400,"messages":[ ]}'
    assert re.sub(rb',"stream_options":\{"include_usage":true\}', b"", with_usage(body)) == body
