"""Tools and their calls as clients write them, and as the vendors take them: ids, schemas, choices, arguments."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.providers.http import ProviderRequest
from aiserver.providers.translation.chat import Chat
from tests.vendors.conversations import TIME, WEATHER, user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.semantics import Called, Request, Result

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)
VALID_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
OWN_TOOLS: dict[str, Any] = {
    "anthropic": {"anthropic": {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}},
    "google": {"google": {"tools": [{"googleSearch": {}}]}},
    "bedrock": {"bedrock": {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}},
}
NO_TOOLS: list[dict[str, Any]] = [{}, {"tools": []}, {"tools": None}]


def asked(dialect: Dialect, *messages: Any, **more: Any) -> ProviderRequest:
    body = {"model": dialect.model, "messages": list(messages) or [user()], **more}
    return dialect.vendor.build_request(Chat(json.dumps(body).encode(), dialect.vendor.capabilities))


def sent(dialect: Dialect, *messages: Any, **more: Any) -> Any:
    return json.loads(asked(dialect, *messages, **more).body or b"")


def read(dialect: Dialect, *messages: Any, **more: Any) -> Request:
    """The request as the vendor's own types read it."""
    return dialect.read(asked(dialect, *messages, **more))


def refusal(dialect: Dialect, *messages: Any, **more: Any) -> str | None:
    with pytest.raises(InvalidRequest) as refused:
        asked(dialect, *messages, **more)
    return refused.value.param


def call(id: str | None, tool: str = "get_time", arguments: str | None = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}}


def calls(*each: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(each), **more}


def result(id: str | None, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


def pairs(request: Request) -> list[tuple[str, list[str]]]:
    """The ids of all calls, and what each call's result says."""
    said = [part for turn in request.turns for part in turn.said]
    results = [part for part in said if isinstance(part, Result)]
    called = [part.id for part in said if isinstance(part, Called)]
    return [(id, [part.text for part in results if part.id == id]) for id in called]


@every_vendor
def test_tool_call_ids_repeated_across_turns_become_distinct(dialect: Dialect) -> None:
    turns = [m for n in range(3) for m in (user(), calls(call("call_0")), result("call_0", f"r{n}"))]
    paired = pairs(read(dialect, *turns, tools=[TIME]))
    assert len({id for id, _ in paired}) == 3
    assert [texts for _, texts in paired] == [["r0"], ["r1"], ["r2"]]


@every_vendor
@pytest.mark.parametrize("id", ["", None, "same"])
def test_tool_call_ids_empty_or_repeated_in_one_turn_become_distinct(id: str | None, dialect: Dialect) -> None:
    turn = calls(call(id), call(id, "get_weather"), call(id))
    messages = [user(), turn, result(id, "r0"), result(id, "r1"), result(id, "r2")]
    paired = pairs(read(dialect, *messages, tools=[TIME, WEATHER]))
    assert len({one for one, _ in paired}) == 3
    assert all(VALID_ID.fullmatch(one) for one, _ in paired)
    assert [texts for _, texts in paired] == [["r0"], ["r1"], ["r2"]]


@every_vendor
@pytest.mark.parametrize(
    ("one", "two"), [("a b", "a_b"), ("a/b", "a b"), ("x" * 65, "x" * 65), ("é", "ü"), ("a", "a_2")]
)
def test_tool_call_ids_equal_once_they_are_valid_become_distinct(one: str, two: str, dialect: Dialect) -> None:
    messages = [user(), calls(call(one), call(one), call(two))]
    messages += [result(two, "two") if one != two else result(one, "two"), result(one, "one"), result(one, "last")]
    paired = pairs(read(dialect, *messages, tools=[TIME])) if dialect.type != "google" else []
    assert len({id for id, _ in paired}) == len(paired)
    expected = [["one"], ["last"], ["two"]] if one != two else [["two"], ["one"], ["last"]]
    assert [texts for _, texts in paired] in (expected, [])


@every_vendor
def test_tool_call_id_of_a_result_without_a_call_is_kept(dialect: Dialect) -> None:
    orphan = {**result("call_7", "x"), "name": "get_time"}
    assert "call_7" in json.dumps(sent(dialect, user(), orphan, tools=[TIME]))
    assert refusal(dialect, user(), result("", "x"), tools=[TIME]) == "messages[1].tool_call_id"


@every_vendor
@settings(deadline=None, max_examples=40)
@given(ids=st.lists(st.lists(st.sampled_from(["", "a", "a_2", "a b", "b"]), min_size=1, max_size=3), max_size=4))
def test_tool_call_ids_are_distinct_and_paired_whatever_they_are(dialect: Dialect, ids: list[list[str]]) -> None:
    messages, expected = [user()], list[list[str]]()
    for turn, each in enumerate(ids):
        texts = [f"{turn}.{place}" for place in range(len(each))]
        messages += [calls(*map(call, each)), *(result(id, text) for id, text in zip(each, texts, strict=True))]
        expected += [[text] for text in texts]
    paired = pairs(read(dialect, *messages, tools=[TIME]))
    assert [texts for _, texts in paired] == expected
    assert len({id for id, _ in paired}) == len(expected)
    assert sent(dialect, *messages, tools=[TIME]) == sent(dialect, *messages, tools=[TIME])


@pytest.mark.parametrize("dialect", [one for one in DIALECTS if one.type != "google"], ids=name)
def test_tool_call_ids_within_a_vendor_s_own_blocks_match_their_results(dialect: Dialect) -> None:
    block: dict[str, Any] = {"name": "get_time", "input": {}}
    own: Any = {"type": "tool_use", "id": "c", **block}
    if dialect.type == "bedrock":
        own = {"toolUse": {"toolUseId": "c", **block}}
    turn = calls(call("c"), **{dialect.type: {"content": [own]}})
    paired = pairs(read(dialect, user(), turn, result("c", "r0"), user(), turn, result("c", "r1"), tools=[TIME]))
    assert [texts for _, texts in paired] == [["r0"], ["r1"]]


@every_vendor
@pytest.mark.parametrize("given_schema", [None, {}, "absent"])
def test_tool_without_parameters_takes_an_object(given_schema: Any, dialect: Dialect) -> None:
    function = {"name": "f"} if given_schema == "absent" else {"name": "f", "parameters": given_schema}
    (tool,) = read(dialect, tools=[{"type": "function", "function": function}]).tools
    assert tool.schema == {"type": "object", "properties": {}}


@every_vendor
@pytest.mark.parametrize("untyped", [{}, {"type": None}])
def test_tool_parameters_without_a_type_are_an_object(untyped: dict[str, Any], dialect: Dialect) -> None:
    rest: dict[str, Any] = {"properties": {"x": {"type": "string", "default": None}}, "required": ["x"]}
    (tool,) = read(dialect, tools=[{"type": "function", "function": {"name": "f", "parameters": untyped | rest}}]).tools
    assert tool.schema == {"type": "object", **rest}


@every_vendor
def test_tool_parameters_with_a_type_are_sent_as_they_are(dialect: Dialect) -> None:
    for schema in ({"type": "object"}, {"type": "object", "properties": {"x": None}, "required": None}):
        (tool,) = read(dialect, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}]).tools
        assert tool.schema == schema
    odd = [{"type": "function", "function": {"name": "f", "parameters": [1]}}]
    assert refusal(dialect, tools=odd) == "tools[0].function.parameters"


@every_vendor
def test_tool_s_own_members_do_not_change_another_request_s_tools(dialect: Dialect) -> None:
    members = {"anthropic": {"input_schema": {"x": 1}}, "bedrock": {"inputSchema": {"json": {"x": 1}}}, "google": {}}
    before = sent(dialect, tools=[TIME])
    sent(dialect, tools=[TIME | {dialect.type: members[dialect.type]}])
    assert sent(dialect, tools=[TIME]) == before


@every_vendor
@pytest.mark.parametrize("untyped", [{}, {"type": None}])
def test_response_format_schema_with_properties_is_an_object(untyped: dict[str, Any], dialect: Dialect) -> None:
    schema = {"properties": {"x": {"type": "string"}}, **untyped}
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert read(dialect, response_format=format).schema == {"type": "object", "properties": {"x": {"type": "string"}}}


@every_vendor
@pytest.mark.parametrize("tools", NO_TOOLS)
@pytest.mark.parametrize("choice", ["auto", "none", None])
@pytest.mark.parametrize("parallel", [False, True, None])
def test_tool_choice_without_tools_is_not_sent(parallel: Any, choice: Any, tools: Any, dialect: Dialect) -> None:
    assert sent(dialect, tool_choice=choice, parallel_tool_calls=parallel, **tools) == sent(dialect)


@every_vendor
@pytest.mark.parametrize("tools", NO_TOOLS)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_tool_choice_that_needs_tools_is_refused_without_them(choice: Any, tools: Any, dialect: Dialect) -> None:
    assert refusal(dialect, tool_choice=choice, **tools) == "tool_choice"


@every_vendor
def test_tool_choice_counts_tools_of_the_vendor_s_own(dialect: Dialect) -> None:
    own = OWN_TOOLS[dialect.type]
    assert sent(dialect, tool_choice="required", **own) != sent(dialect, **own)
    empty = {"toolConfig": {"tools": []}} if dialect.type == "bedrock" else {"tools": []}
    assert refusal(dialect, tool_choice="required", **{dialect.type: empty}) == "tool_choice"


@every_vendor
@pytest.mark.parametrize("arguments", ["null", "", " \n", " null ", None])
def test_tool_call_arguments_that_are_empty_or_null_are_an_empty_object(arguments: Any, dialect: Dialect) -> None:
    messages = [user(), calls(call("c", arguments=arguments)), result("c", "noon")]
    plain = [user(), calls(call("c")), result("c", "noon")]
    assert sent(dialect, *messages, tools=[TIME]) == sent(dialect, *plain, tools=[TIME])


@every_vendor
@pytest.mark.parametrize("arguments", ["[]", "1", '"x"', "true", "nullx", "None"])
def test_tool_call_arguments_that_are_no_object_are_refused(arguments: str, dialect: Dialect) -> None:
    messages = [user(), calls(call("c", arguments=arguments))]
    assert refusal(dialect, *messages, tools=[TIME]) == "messages[1].tool_calls[0].function.arguments"
