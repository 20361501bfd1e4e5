"""Insignificant parts of requests: white space, nulls, and message members of other providers."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from tests.vendors.conversations import CITY, PDF, PIXEL, TIME, image, text, user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.test_tool_calls import rejected_field, request_body, tool_call, tool_calls, tool_result

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
rejects_blank_text = pytest.mark.parametrize(
    "dialect", [dialect for dialect in DIALECTS if dialect.type != "google"], ids=dialect_type
)
BLANK = pytest.mark.parametrize(
    "blank", ["", " ", "\n\n", "\t\r\n", "\x0b\x0c", "\u00a0", "\u2003\u3000", "\u2028\u0085"]
)
ASSISTANT = {"role": "assistant", "content": "Yes."}
# As OpenRouter, LiteLLM, DeepSeek, Mistral, Cohere, vLLM and the OpenAI SDK write them.
PROVIDER_MEMBERS: dict[str, Any] = {
    "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}],
    "provider_specific_fields": {"citations": None},
    "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}],
    "prefix": True,
    "reasoning_signature": "c2ln",
    "reasoning_content": ["Hm."],
    "reasoning": {"text": "Hm."},
    "tool_plan": "I will look.",
    "citations": [{"url": "https://example.com"}],
    "annotations": {"odd": 1},
    "images": [{"type": "image_url", "image_url": {"url": PIXEL}}],
    "parsed": {"a": 1},
    "function_call": None,
    "audio": None,
    "of_next_year": {"a": [None]},
}


@rejects_blank_text
@BLANK
def test_blank_texts_are_dropped_in_every_role(blank: str, dialect: Dialect) -> None:
    expected = [user("a"), ASSISTANT, user("b")]
    for role in ("system", "developer", "user", "assistant"):
        for content in (blank, [text(blank)], [text(blank), text(blank)]):
            blanks = [
                {"role": role, "content": content},
                *expected[:2],
                {"role": role, "content": content},
                expected[2],
            ]
            assert request_body(dialect, *blanks) == request_body(dialect, *expected)
        mixed = [{"role": role, "content": [text(blank), text("w"), text(blank)]}, *expected]
        assert request_body(dialect, *mixed) == request_body(dialect, {"role": role, "content": [text("w")]}, *expected)
    refusal_turn = {"role": "assistant", "content": None, "refusal": blank}
    refusal_part = {"role": "assistant", "content": [{"type": "refusal", "refusal": blank}]}
    assert request_body(dialect, user("a"), refusal_turn, refusal_part, user("b")) == request_body(
        dialect, user("a"), user("b")
    )


@rejects_blank_text
@BLANK
def test_blank_text_beside_tool_calls_is_dropped(blank: str, dialect: Dialect) -> None:
    for content in (blank, [text(blank)]):
        turn = tool_calls(tool_call("c")) | {"content": content}
        messages = [user(), turn, tool_result("c", "noon")]
        assert request_body(dialect, *messages, tools=[TIME]) == request_body(
            dialect, user(), tool_calls(tool_call("c")), tool_result("c", "noon"), tools=[TIME]
        )
    cached = {**text(blank), "cache_control": {"type": "ephemeral"}}
    assert request_body(dialect, user([cached, text("a")])) == request_body(dialect, user([text("a")]))


@rejects_blank_text
@BLANK
def test_blank_tool_results_are_empty_results(blank: str, dialect: Dialect) -> None:
    def with_result(content: Any) -> Any:
        return request_body(
            dialect, user(), tool_calls(tool_call("c")), {**tool_result("c", ""), "content": content}, tools=[TIME]
        )

    assert with_result(blank) == with_result("")
    assert with_result([text(blank)]) == with_result([])
    assert with_result([text(blank), text("noon")]) == with_result([text("noon")])


@rejects_blank_text
@BLANK
def test_blank_text_in_vendor_blocks_is_dropped(blank: str, dialect: Dialect) -> None:
    is_claude = dialect.type == "anthropic"
    blank_blocks: list[Any] = [{"type": "text", "text": blank}] if is_claude else [{"text": blank}]
    text_blocks = [{"type": "text", "text": "So."}] if is_claude else [{"text": "So."}]
    vendor_blocks = (
        [{"type": "redacted_thinking", "data": "eHl6"}]
        if is_claude
        else [{"reasoningContent": {"redactedContent": "YQ=="}}]
    )
    message = ASSISTANT | {dialect.type: {"content": [*vendor_blocks, *blank_blocks, *text_blocks]}}
    assert dialect.model_turns(request_body(dialect, user(), message, user())) == [[*vendor_blocks, *text_blocks]]


@every_vendor
@pytest.mark.parametrize("blank", ["", "\n", "\u3000"])
def test_blank_chat_is_rejected_where_the_vendor_rejects_it(blank: str, dialect: Dialect) -> None:
    if blank and dialect.type == "google":
        assert request_body(dialect, user(blank))["contents"] == [{"role": "user", "parts": [{"text": blank}]}]
    else:
        assert rejected_field(dialect, user(blank)) == "messages"


@every_vendor
@pytest.mark.parametrize("member", PROVIDER_MEMBERS)
def test_assistant_members_of_other_providers_are_not_forwarded(member: str, dialect: Dialect) -> None:
    message = ASSISTANT | {member: PROVIDER_MEMBERS[member]}
    assert request_body(dialect, user(), message, user()) == request_body(dialect, user(), ASSISTANT, user())
    for role in ("user", "system"):
        messages = [user(), {"role": role, "content": "x", member: PROVIDER_MEMBERS[member]}]
        if PROVIDER_MEMBERS[member] is not None:
            assert rejected_field(dialect, *messages) == f"messages[1].{member}"


@every_vendor
def test_tool_call_members_of_other_providers_are_not_forwarded(dialect: Dialect) -> None:
    plain_call = tool_call("c")
    extended_call = {
        **plain_call,
        "index": "0",
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "provider_specific_fields": None,
    }
    extended_call["function"] = {**plain_call["function"], "parsed_arguments": {"a": 1}, "thought_signature": "c2ln"}
    messages = [user(), tool_calls(extended_call), tool_result("c", "noon")]
    assert request_body(dialect, *messages, tools=[TIME]) == request_body(
        dialect, user(), tool_calls(plain_call), messages[2], tools=[TIME]
    )
    custom = {**tool_result("c", "noon"), "is_error": True}
    assert rejected_field(dialect, *messages[:2], custom, tools=[TIME]) == "messages[2].is_error"


@every_vendor
def test_assistant_parts_of_other_providers_are_not_forwarded(dialect: Dialect) -> None:
    parts = [
        {"type": "thinking", "thinking": [text("Hm.")], "signature": "c2ln"},
        {"type": "reasoning", "text": "Hm."},
        {**text("Yes."), "annotations": [], "citations": [{"url": "x"}], "cache_control": None},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        {"type": "reference", "reference_ids": [1]},
    ]
    message = {"role": "assistant", "content": parts}
    assert request_body(dialect, user(), message, user()) == request_body(dialect, user(), ASSISTANT, user())
    assert rejected_field(dialect, user([{**text("x"), "annotations": []}])) == "messages[0].content[0].annotations"


@every_vendor
def test_null_is_absent_at_every_depth(dialect: Dialect) -> None:
    nulls = dict.fromkeys(("name", "refusal", "cache_control", "anthropic", "google", "bedrock", "of_next_year"))
    function = {**TIME["function"], **dict.fromkeys(("parameters", "strict", "description", "odd"))}
    tool = {**TIME, **nulls, "function": function}
    file = {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf", "file_id": None, "odd": None}}
    image_part = {"type": "image_url", "image_url": {"url": PIXEL, "detail": None, "odd": None}, **nulls}
    call = {**tool_call("c"), **nulls, "index": None, "type": None}
    call["function"] = {**call["function"], **nulls, "name": "get_time"}
    schema: dict[str, Any] = {"name": "n", "schema": CITY, "strict": None, "description": None, "odd": None}
    with_nulls = request_body(
        dialect,
        user([text("x") | nulls, image_part, file | nulls]) | nulls,
        tool_calls(call, **nulls, tool_call_id=None, audio=None, function_call=None),
        tool_result("c", "noon") | nulls | {"tool_calls": None},
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "get_time", "odd": None}, "odd": None},
        response_format={"type": "json_schema", "json_schema": schema, "odd": None},
        stream_options={"include_usage": None, "include_obfuscation": None, "odd": None},
    )
    assert with_nulls == request_body(
        dialect,
        user([text("x"), image(PIXEL), {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}]),
        tool_calls(tool_call("c")),
        tool_result("c", "noon"),
        tools=[{"type": "function", "function": {"name": "get_time"}}],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}},
    )


@every_vendor
def test_nulls_in_the_caller_s_json_values_pass_through(dialect: Dialect) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": ["a", None], "default": None}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "odd": None}}
    turn = tool_calls(tool_call("c", "f", '{"x": null}'), name=None)
    extension = {dialect.type: {"of_next_year": {"a": None}}}
    body = request_body(dialect, user(), turn, tool_result("c", "null"), tools=[tool], **extension)
    assert body["of_next_year"] == {"a": None}
    assert json.dumps({"x": None}) in json.dumps(body)
    assert '"default": null' in json.dumps(body)
    assert "null" in json.dumps(body["messages" if "messages" in body else "contents"])


@every_vendor
def test_null_in_a_required_field_is_rejected(dialect: Dialect) -> None:
    for message in (user(None), user([{"type": "text", "text": None}]), {"role": None, "content": "x"}):
        with pytest.raises(InvalidRequest):
            request_body(dialect, message)
    call_turn = tool_calls({"id": "c", "type": "function", "function": {"name": None, "arguments": "{}"}})
    with pytest.raises(InvalidRequest):
        request_body(dialect, user(), call_turn)
