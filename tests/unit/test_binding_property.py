"""Whatever the body, in whatever white space and spelling: binding makes of its text what a tree of it tells."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.wire import requests
from tests.body_strategies import BODIES, Tree, bound, folded, values
from tests.request_types import wrong_members

QUEUED = ("stream", "stream_options")  # what nobody waits to read


def outcome(make: Callable[[], str]) -> Any:
    """What is made, or why it is refused: a member given twice, or the root's members that are wrong."""
    try:
        return make()
    except InvalidRequest as error:
        if any(field.error_code == "Duplicate" for field in error.fields):
            return error.message, error.param
        return {_root_member(field.message) for field in error.fields}


def _root_member(message: str) -> str:
    found = re.match(r"'(\w+)", message)
    return found[1] if found else message


def told(body: Tree, drop: tuple[str, ...] = ()) -> Any:
    tree = bound(body, drop)
    return wrong_members(tree.value) or tree.text()


@given(BODIES)
def test_a_body_is_bound_as_its_tree_tells(body: Tree) -> None:
    assert outcome(lambda: requests.bind_chat(body.text()).body.decode()) == outcome(lambda: told(body))


@given(BODIES)
def test_a_queued_body_is_bound_as_its_tree_tells_without_its_stream(body: Tree) -> None:
    options = requests.Options()
    queued = outcome(lambda: requests.bind_openai_queue_chat(body.text(), options).body.decode())
    assert queued == outcome(lambda: told(body, QUEUED))


@given(BODIES)
def test_our_own_members_are_read_whatever_their_spelling(body: Tree) -> None:
    assume(isinstance(outcome(lambda: told(body)), str))
    own = {folded(member.key): member.value.value for member in body.members or ()}
    provider = own.get("provider") if isinstance(own.get("provider"), str) else None
    request = requests.bind_chat(body.text())
    assert request.options == requests.Options(
        own.get("refid"), own.get("tag"), own.get("replyto"), own.get("deadline"), provider or None
    )
    sent = bound(body).value
    assert (request.model, request.stream) == (sent["model"], bool(sent.get("stream")))


@given(values(), st.sampled_from(["NaN", "-Infinity", '"\\ud83d"', '"\\ude00\\ud83d"', '"\\\\\\ud83d"', "01", "'x'"]))
def test_what_may_not_be_passed_on_is_refused_wherever_it_stands(beside: Tree, bad: str) -> None:
    text = '{"model":"m","messages":[{"role":"user"}],"x":[%s,{"y":%s}]}' % (beside.text(), bad)
    with pytest.raises(InvalidRequest, match=r"is not valid JSON|holds an unpaired surrogate"):
        requests.bind_chat(text)


@given(st.integers(80, 120), st.sampled_from(["[]", ('{"x":', "}")]), values())
def test_a_body_may_be_nested_a_hundred_levels(levels: int, around: tuple[str, str], beside: Tree) -> None:
    deep = around[0] * (levels - 1) + '"[{"' + around[1] * (levels - 1)
    text = '{"model":"m","messages":[{"role":"user"}],"x":%s,"y":%s}' % (deep, beside.text())
    if levels <= 100:
        assert requests.bind_chat(text).body.decode() == text
    else:
        with pytest.raises(InvalidRequest, match="is nested more than 100 levels deep"):
            requests.bind_chat(text)
