"""A body that asks for usage: one member more, whatever else it holds, and no other byte changed."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.wire.upstream_body import with_usage

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=6,
)
OPTIONS = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "include_obfuscation", "x"]), st.booleans(), max_size=3
)
BODIES = st.dictionaries(st.sampled_from(["model", "messages", "stream", "a}", 'b"']), VALUES, max_size=4)


@given(BODIES, st.booleans(), OPTIONS, st.sampled_from([None, 2]))
def test_the_option_is_set_and_all_else_is_as_it_was(
    body: dict[str, object], has_options: bool, options: dict[str, bool] | None, indent: int | None
) -> None:
    asked = body | ({"stream_options": options} if has_options else {})
    given_options = (has_options and options) or {}
    sent = with_usage(json.dumps(asked, indent=indent).encode())
    assert json.loads(sent) == body | {"stream_options": given_options | {"include_usage": True}}


@pytest.mark.parametrize(
    "body", [b'{"stream_options":{"include_usage":true}}', b'{ "stream_options" : {"include_usage": true, "x":1} }']
)
def test_a_body_that_asks_already_is_the_same_bytes(body: bytes) -> None:
    assert with_usage(body) is body


def test_numbers_and_spaces_elsewhere_are_not_rewritten() -> None:
    body = b'{"temperature":2.50, "x" : 1E400,"messages":[ ]}'
    assert re.sub(rb',"stream_options":\{"include_usage":true\}', b"", with_usage(body)) == body
