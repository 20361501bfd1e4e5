"""Tools and tool calls of clients as sent to the vendors: ids, schemas, tool choice and arguments."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.request import ProviderRequest
from tests.vendors.conversations import TIME, WEATHER, user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.semantics import Request, ToolCall, ToolResult

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
VALID_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
VENDOR_TOOLS: dict[str, Any] = {
    "anthropic": {"anthropic": {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}},
    "google": {"google": {"tools": [{"googleSearch": {}}]}},
    "bedrock": {"bedrock": {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}},
}
NO_TOOLS: list[dict[str, Any]] = [{}, {"tools": []}, {"tools": None}]


def build_request(dialect: Dialect, *messages: Any, **members: Any) -> ProviderRequest:
    body = {"model": dialect.model, "messages": list(messages) or [user()], **members}
    return dialect.translator.build_request(parse_chat(json.dumps(body).encode(), dialect.translator.capabilities))


def request_body(dialect: Dialect, *messages: Any, **members: Any) -> Any:
    return json.loads(build_request(dialect, *messages, **members).body or b"")


def read_request(dialect: Dialect, *messages: Any, **members: Any) -> Request:
    """The request as the vendor's types parse it."""
    return dialect.parse_request(build_request(dialect, *messages, **members))


def rejected_field(dialect: Dialect, *messages: Any, **members: Any) -> str | None:
    with pytest.raises(InvalidRequest) as rejection:
        build_request(dialect, *messages, **members)
    return rejection.value.param


def tool_call(id: str | None, tool: str = "get_time", arguments: str | None = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}}


def tool_calls(*call_list: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(call_list), **members}


def tool_result(id: str | None, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


def results_by_call(request: Request) -> list[tuple[str, list[str]]]:
    """The id of each call with the texts of its results."""
    parts = [part for turn in request.turns for part in turn.parts]
    results = [part for part in parts if isinstance(part, ToolResult)]
    call_ids = [part.id for part in parts if isinstance(part, ToolCall)]
    return [(id, [part.text for part in results if part.id == id]) for id in call_ids]


@every_vendor
def test_tool_call_ids_repeated_across_turns_become_distinct(dialect: Dialect) -> None:
    turns = [m for n in range(3) for m in (user(), tool_calls(tool_call("call_0")), tool_result("call_0", f"r{n}"))]
    results = results_by_call(read_request(dialect, *turns, tools=[TIME]))
    assert len({id for id, _ in results}) == 3
    assert [texts for _, texts in results] == [["r0"], ["r1"], ["r2"]]


@every_vendor
@pytest.mark.parametrize("id", ["", None, "same"])
def test_tool_call_ids_empty_or_repeated_in_a_turn_become_distinct(id: str | None, dialect: Dialect) -> None:
    turn = tool_calls(tool_call(id), tool_call(id, "get_weather"), tool_call(id))
    messages = [user(), turn, tool_result(id, "r0"), tool_result(id, "r1"), tool_result(id, "r2")]
    results = results_by_call(read_request(dialect, *messages, tools=[TIME, WEATHER]))
    assert len({call_id for call_id, _ in results}) == 3
    assert all(VALID_ID.fullmatch(call_id) for call_id, _ in results)
    assert [texts for _, texts in results] == [["r0"], ["r1"], ["r2"]]


@every_vendor
@pytest.mark.parametrize(
    ("first", "second"), [("a b", "a_b"), ("a/b", "a b"), ("x" * 65, "x" * 65), ("é", "ü"), ("a", "a_2")]
)
def test_tool_call_ids_equal_after_sanitizing_become_distinct(first: str, second: str, dialect: Dialect) -> None:
    messages = [user(), tool_calls(tool_call(first), tool_call(first), tool_call(second))]
    messages += [
        tool_result(second, "two") if first != second else tool_result(first, "two"),
        tool_result(first, "one"),
        tool_result(first, "last"),
    ]
    results = results_by_call(read_request(dialect, *messages, tools=[TIME])) if dialect.type != "google" else []
    assert len({id for id, _ in results}) == len(results)
    expected = [["one"], ["last"], ["two"]] if first != second else [["two"], ["one"], ["last"]]
    assert [texts for _, texts in results] in (expected, [])


@every_vendor
def test_tool_call_id_of_a_result_without_a_call_is_kept(dialect: Dialect) -> None:
    orphan = {**tool_result("call_7", "x"), "name": "get_time"}
    assert "call_7" in json.dumps(request_body(dialect, user(), orphan, tools=[TIME]))
    assert rejected_field(dialect, user(), tool_result("", "x"), tools=[TIME]) == "messages[1].tool_call_id"


@every_vendor
@settings(deadline=None, max_examples=40)
@given(ids=st.lists(st.lists(st.sampled_from(["", "a", "a_2", "a b", "b"]), min_size=1, max_size=3), max_size=4))
def test_tool_call_ids_are_distinct_and_match_their_results(dialect: Dialect, ids: list[list[str]]) -> None:
    messages, expected = [user()], list[list[str]]()
    for turn, turn_ids in enumerate(ids):
        texts = [f"{turn}.{place}" for place in range(len(turn_ids))]
        messages += [
            tool_calls(*map(tool_call, turn_ids)),
            *(tool_result(id, text) for id, text in zip(turn_ids, texts, strict=True)),
        ]
        expected += [[text] for text in texts]
    results = results_by_call(read_request(dialect, *messages, tools=[TIME]))
    assert [texts for _, texts in results] == expected
    assert len({id for id, _ in results}) == len(expected)
    assert request_body(dialect, *messages, tools=[TIME]) == request_body(dialect, *messages, tools=[TIME])


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS if dialect.type != "google"], ids=dialect_type)
def test_tool_call_ids_in_vendor_blocks_match_their_results(dialect: Dialect) -> None:
    block: dict[str, Any] = {"name": "get_time", "input": {}}
    vendor_block: Any = {"type": "tool_use", "id": "c", **block}
    if dialect.type == "bedrock":
        vendor_block = {"toolUse": {"toolUseId": "c", **block}}
    turn = tool_calls(tool_call("c"), **{dialect.type: {"content": [vendor_block]}})
    results = results_by_call(
        read_request(dialect, user(), turn, tool_result("c", "r0"), user(), turn, tool_result("c", "r1"), tools=[TIME])
    )
    assert [texts for _, texts in results] == [["r0"], ["r1"]]


@every_vendor
@pytest.mark.parametrize("parameters", [None, {}, "absent"])
def test_tool_without_parameters_takes_an_object(parameters: Any, dialect: Dialect) -> None:
    function = {"name": "f"} if parameters == "absent" else {"name": "f", "parameters": parameters}
    (tool,) = read_request(dialect, tools=[{"type": "function", "function": function}]).tools
    assert tool.schema == {"type": "object", "properties": {}}


@every_vendor
@pytest.mark.parametrize("type_member", [{}, {"type": None}])
def test_tool_parameters_without_type_are_an_object(type_member: dict[str, Any], dialect: Dialect) -> None:
    properties: dict[str, Any] = {"properties": {"x": {"type": "string", "default": None}}, "required": ["x"]}
    (tool,) = read_request(
        dialect, tools=[{"type": "function", "function": {"name": "f", "parameters": type_member | properties}}]
    ).tools
    assert tool.schema == {"type": "object", **properties}


@every_vendor
def test_tool_parameters_with_type_are_forwarded_unchanged(dialect: Dialect) -> None:
    for schema in ({"type": "object"}, {"type": "object", "properties": {"x": None}, "required": None}):
        (tool,) = read_request(
            dialect, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}]
        ).tools
        assert tool.schema == schema
    invalid_tools = [{"type": "function", "function": {"name": "f", "parameters": [1]}}]
    assert rejected_field(dialect, tools=invalid_tools) == "tools[0].function.parameters"


@every_vendor
def test_vendor_specific_tool_fields_do_not_leak_into_other_requests(dialect: Dialect) -> None:
    members = {"anthropic": {"input_schema": {"x": 1}}, "bedrock": {"inputSchema": {"json": {"x": 1}}}, "google": {}}
    before = request_body(dialect, tools=[TIME])
    request_body(dialect, tools=[TIME | {dialect.type: members[dialect.type]}])
    assert request_body(dialect, tools=[TIME]) == before


@every_vendor
@pytest.mark.parametrize("type_member", [{}, {"type": None}])
def test_response_schema_with_properties_is_an_object(type_member: dict[str, Any], dialect: Dialect) -> None:
    schema = {"properties": {"x": {"type": "string"}}, **type_member}
    response_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert read_request(dialect, response_format=response_format).schema == {
        "type": "object",
        "properties": {"x": {"type": "string"}},
    }


@every_vendor
@pytest.mark.parametrize("tools", NO_TOOLS)
@pytest.mark.parametrize("choice", ["auto", "none", None])
@pytest.mark.parametrize("parallel", [False, True, None])
def test_tool_choice_without_tools_is_not_sent(parallel: Any, choice: Any, tools: Any, dialect: Dialect) -> None:
    assert request_body(dialect, tool_choice=choice, parallel_tool_calls=parallel, **tools) == request_body(dialect)


@every_vendor
@pytest.mark.parametrize("tools", NO_TOOLS)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_tool_choice_that_needs_tools_is_rejected_without_them(choice: Any, tools: Any, dialect: Dialect) -> None:
    assert rejected_field(dialect, tool_choice=choice, **tools) == "tool_choice"


@every_vendor
def test_tool_choice_counts_vendor_specific_tools(dialect: Dialect) -> None:
    vendor_tools = VENDOR_TOOLS[dialect.type]
    assert request_body(dialect, tool_choice="required", **vendor_tools) != request_body(dialect, **vendor_tools)
    empty_tools = {"toolConfig": {"tools": []}} if dialect.type == "bedrock" else {"tools": []}
    assert rejected_field(dialect, tool_choice="required", **{dialect.type: empty_tools}) == "tool_choice"


@every_vendor
@pytest.mark.parametrize("arguments", ["null", "", " \n", " null ", None])
def test_tool_call_arguments_empty_or_null_are_an_empty_object(arguments: Any, dialect: Dialect) -> None:
    messages = [user(), tool_calls(tool_call("c", arguments=arguments)), tool_result("c", "noon")]
    plain = [user(), tool_calls(tool_call("c")), tool_result("c", "noon")]
    assert request_body(dialect, *messages, tools=[TIME]) == request_body(dialect, *plain, tools=[TIME])


@every_vendor
@pytest.mark.parametrize("arguments", ["[]", "1", '"x"', "true", "nullx", "None"])
def test_tool_call_arguments_other_than_an_object_are_rejected(arguments: str, dialect: Dialect) -> None:
    messages = [user(), tool_calls(tool_call("c", arguments=arguments))]
    assert rejected_field(dialect, *messages, tools=[TIME]) == "messages[1].tool_calls[0].function.arguments"
