"""Property tests of binding: for any body, white space and spelling, the result matches the one from its tree."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.wire import requests
from tests.body_strategies import BODIES, Tree, expected_binding, fold_name, values
from tests.request_types import wrong_members

QUEUE_DROPPED = ("stream", "stream_options")  # dropped from queue requests, which are not streamed


def outcome(bind: Callable[[], str]) -> Any:
    """Return the bound text, or the reason of the rejection: a duplicate, or the invalid top-level fields."""
    try:
        return bind()
    except InvalidRequest as error:
        if any(field.error_code == "Duplicate" for field in error.fields):
            return error.message, error.param
        return {_root_member(field.message) for field in error.fields}


def _root_member(message: str) -> str:
    match = re.match(r"'(\w+)", message)
    return match[1] if match else message


def expected_outcome(body: Tree, drop: tuple[str, ...] = ()) -> Any:
    tree = expected_binding(body, drop)
    return wrong_members(tree.value) or tree.text()


@given(BODIES)
def test_bound_body_matches_its_tree(body: Tree) -> None:
    assert outcome(lambda: requests.bind_chat(body.text()).body.decode()) == outcome(lambda: expected_outcome(body))


@given(BODIES)
def test_bound_queue_body_matches_its_tree_without_stream_fields(body: Tree) -> None:
    options = requests.Options()
    result = outcome(lambda: requests.bind_openai_queue_chat(body.text(), options).body.decode())
    assert result == outcome(lambda: expected_outcome(body, QUEUE_DROPPED))


@given(BODIES)
def test_gateway_fields_are_read_in_any_spelling(body: Tree) -> None:
    assume(isinstance(outcome(lambda: expected_outcome(body)), str))
    fields = {fold_name(member.key): member.value.value for member in body.members or ()}
    provider = fields.get("provider") if isinstance(fields.get("provider"), str) else None
    request = requests.bind_chat(body.text())
    assert request.options == requests.Options(
        fields.get("refid"), fields.get("tag"), fields.get("replyto"), fields.get("deadline"), provider or None
    )
    forwarded = expected_binding(body).value
    assert (request.model, request.stream) == (forwarded["model"], bool(forwarded.get("stream")))


@given(values(), st.sampled_from(["NaN", "-Infinity", '"\\ud83d"', '"\\ude00\\ud83d"', '"\\\\\\ud83d"', "01", "'x'"]))
def test_unsafe_json_is_rejected_at_any_position(sibling: Tree, unsafe: str) -> None:
    text = '{"model":"m","messages":[{"role":"user"}],"x":[%s,{"y":%s}]}' % (sibling.text(), unsafe)
    with pytest.raises(InvalidRequest, match=r"is not valid JSON|contains an unpaired surrogate"):
        requests.bind_chat(text)


@given(st.integers(80, 120), st.sampled_from(["[]", ('{"x":', "}")]), values())
def test_body_may_be_nested_100_levels(levels: int, brackets: tuple[str, str], sibling: Tree) -> None:
    deep = brackets[0] * (levels - 1) + '"[{"' + brackets[1] * (levels - 1)
    text = '{"model":"m","messages":[{"role":"user"}],"x":%s,"y":%s}' % (deep, sibling.text())
    if levels <= 100:
        assert requests.bind_chat(text).body.decode() == text
    else:
        with pytest.raises(InvalidRequest, match="is nested more than 100 levels deep"):
            requests.bind_chat(text)
