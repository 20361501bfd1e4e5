"""Whatever the body, in whatever white space and spelling: binding makes of its text what a tree of it tells."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.wire import requests
from aiserver.wire.validation import ChatBody, check
from tests.bodies import BODIES, Tree, bound, folded, values

QUEUED = ("stream", "stream_options")  # what nobody waits to read


def outcome(make: Callable[[], str]) -> Any:
    """What is made, or all that the caller is told when it is refused."""
    try:
        return make()
    except InvalidRequest as error:
        return error.message, error.param, [field.message for field in error.fields]


def told(body: Tree, drop: tuple[str, ...] = ()) -> str:
    tree = bound(body, drop)
    check(tree.value, ChatBody)
    return tree.text()


@given(BODIES)
def test_a_body_is_bound_as_its_tree_tells(body: Tree) -> None:
    assert outcome(lambda: requests.chat(body.text()).body.decode()) == outcome(lambda: told(body))


@given(BODIES)
def test_a_queued_body_is_bound_as_its_tree_tells_without_its_stream(body: Tree) -> None:
    options = requests.Options()
    queued = outcome(lambda: requests.openai_queue_chat(body.text(), options).body.decode())
    assert queued == outcome(lambda: told(body, QUEUED))


@given(BODIES)
def test_our_own_members_are_read_whatever_their_spelling(body: Tree) -> None:
    assume(isinstance(outcome(lambda: told(body)), str))
    own = {folded(member.key): member.value.value for member in body.members or ()}
    provider = own.get("provider") if isinstance(own.get("provider"), str) else None
    request = requests.chat(body.text())
    assert request.options == requests.Options(
        own.get("refid"), own.get("tag"), own.get("replyto"), own.get("deadline"), provider or None
    )
    sent = bound(body).value
    assert (request.model, request.stream) == (sent["model"], bool(sent.get("stream")))


@given(values(), st.sampled_from(["NaN", "-Infinity", '"\\ud83d"', '"\\ude00\\ud83d"', '"\\\\\\ud83d"', "01", "'x'"]))
def test_what_may_not_be_passed_on_is_refused_wherever_it_stands(beside: Tree, bad: str) -> None:
    text = '{"model":"m","messages":[{"role":"user"}],"x":[%s,{"y":%s}]}' % (beside.text(), bad)
    with pytest.raises(InvalidRequest, match=r"is not valid JSON|holds an unpaired surrogate"):
        requests.chat(text)


@given(st.integers(80, 120), st.sampled_from(["[]", ('{"x":', "}")]), values())
def test_a_body_may_be_nested_a_hundred_levels(levels: int, around: tuple[str, str], beside: Tree) -> None:
    deep = around[0] * (levels - 1) + '"[{"' + around[1] * (levels - 1)
    text = '{"model":"m","messages":[{"role":"user"}],"x":%s,"y":%s}' % (deep, beside.text())
    problem = "The request body is nested more than 100 levels deep"
    assert outcome(lambda: requests.chat(text).body.decode()) == (text if levels <= 100 else (problem, None, []))
