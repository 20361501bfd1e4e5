"""What clients write where they mean nothing: white space, nulls, and members that another provider added."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from tests.vendors.conversations import CITY, PDF, PIXEL, TIME, image, text, user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.test_tool_calls import call, calls, refusal, result, sent

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)
refuses_blank = pytest.mark.parametrize("dialect", [one for one in DIALECTS if one.type != "google"], ids=name)
BLANK = pytest.mark.parametrize(
    "blank", ["", " ", "\n\n", "\t\r\n", "\x0b\x0c", "\u00a0", "\u2003\u3000", "\u2028\u0085"]
)
ASSISTANT = {"role": "assistant", "content": "Yes."}
# As OpenRouter, LiteLLM, DeepSeek, Mistral, Cohere, vLLM and the OpenAI SDK write them.
MEMBERS: dict[str, Any] = {
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


@refuses_blank
@BLANK
def test_white_space_only_texts_are_left_out_in_every_role(blank: str, dialect: Dialect) -> None:
    plain = [user("a"), ASSISTANT, user("b")]
    for role in ("system", "developer", "user", "assistant"):
        for content in (blank, [text(blank)], [text(blank), text(blank)]):
            blanks = [{"role": role, "content": content}, *plain[:2], {"role": role, "content": content}, plain[2]]
            assert sent(dialect, *blanks) == sent(dialect, *plain)
        words = [{"role": role, "content": [text(blank), text("w"), text(blank)]}, *plain]
        assert sent(dialect, *words) == sent(dialect, {"role": role, "content": [text("w")]}, *plain)
    refused = {"role": "assistant", "content": None, "refusal": blank}
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": blank}]}
    assert sent(dialect, user("a"), refused, part, user("b")) == sent(dialect, user("a"), user("b"))


@refuses_blank
@BLANK
def test_white_space_beside_tool_calls_is_left_out(blank: str, dialect: Dialect) -> None:
    for content in (blank, [text(blank)]):
        turn = calls(call("c")) | {"content": content}
        messages = [user(), turn, result("c", "noon")]
        assert sent(dialect, *messages, tools=[TIME]) == sent(
            dialect, user(), calls(call("c")), result("c", "noon"), tools=[TIME]
        )
    cached = {**text(blank), "cache_control": {"type": "ephemeral"}}
    assert sent(dialect, user([cached, text("a")])) == sent(dialect, user([text("a")]))


@refuses_blank
@BLANK
def test_white_space_only_tool_results_are_empty_results(blank: str, dialect: Dialect) -> None:
    def told(content: Any) -> Any:
        return sent(dialect, user(), calls(call("c")), {**result("c", ""), "content": content}, tools=[TIME])

    assert told(blank) == told("")
    assert told([text(blank)]) == told([])
    assert told([text(blank), text("noon")]) == told([text("noon")])


@refuses_blank
@BLANK
def test_white_space_within_the_vendor_s_own_blocks_is_left_out(blank: str, dialect: Dialect) -> None:
    is_claude = dialect.type == "anthropic"
    blocks: list[Any] = [{"type": "text", "text": blank}] if is_claude else [{"text": blank}]
    said = [{"type": "text", "text": "So."}] if is_claude else [{"text": "So."}]
    odd = (
        [{"type": "redacted_thinking", "data": "eHl6"}]
        if is_claude
        else [{"reasoningContent": {"redactedContent": "YQ=="}}]
    )
    message = ASSISTANT | {dialect.type: {"content": [*odd, *blocks, *said]}}
    assert dialect.turns(sent(dialect, user(), message, user())) == [[*odd, *said]]


@every_vendor
@pytest.mark.parametrize("blank", ["", "\n", "\u3000"])
def test_chat_of_white_space_only_is_refused_where_the_vendor_refuses_it(blank: str, dialect: Dialect) -> None:
    if blank and dialect.type == "google":
        assert sent(dialect, user(blank))["contents"] == [{"role": "user", "parts": [{"text": blank}]}]
    else:
        assert refusal(dialect, user(blank)) == "messages"


@every_vendor
@pytest.mark.parametrize("member", MEMBERS)
def test_assistant_members_of_other_providers_are_not_forwarded(member: str, dialect: Dialect) -> None:
    said = ASSISTANT | {member: MEMBERS[member]}
    assert sent(dialect, user(), said, user()) == sent(dialect, user(), ASSISTANT, user())
    for role in ("user", "system"):
        messages = [user(), {"role": role, "content": "x", member: MEMBERS[member]}]
        if MEMBERS[member] is not None:
            assert refusal(dialect, *messages) == f"messages[1].{member}"


@every_vendor
def test_tool_call_members_of_other_providers_are_not_forwarded(dialect: Dialect) -> None:
    plain = call("c")
    odd = {
        **plain,
        "index": "0",
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "provider_specific_fields": None,
    }
    odd["function"] = {**plain["function"], "parsed_arguments": {"a": 1}, "thought_signature": "c2ln"}
    messages = [user(), calls(odd), result("c", "noon")]
    assert sent(dialect, *messages, tools=[TIME]) == sent(dialect, user(), calls(plain), messages[2], tools=[TIME])
    custom = {**result("c", "noon"), "is_error": True}
    assert refusal(dialect, *messages[:2], custom, tools=[TIME]) == "messages[2].is_error"


@every_vendor
def test_assistant_parts_of_other_providers_are_not_forwarded(dialect: Dialect) -> None:
    parts = [
        {"type": "thinking", "thinking": [text("Hm.")], "signature": "c2ln"},
        {"type": "reasoning", "text": "Hm."},
        {**text("Yes."), "annotations": [], "citations": [{"url": "x"}], "cache_control": None},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        {"type": "reference", "reference_ids": [1]},
    ]
    said = {"role": "assistant", "content": parts}
    assert sent(dialect, user(), said, user()) == sent(dialect, user(), ASSISTANT, user())
    assert refusal(dialect, user([{**text("x"), "annotations": []}])) == "messages[0].content[0].annotations"


@every_vendor
def test_null_is_absent_at_every_depth_that_is_read(dialect: Dialect) -> None:
    nulls = dict.fromkeys(("name", "refusal", "cache_control", "anthropic", "google", "bedrock", "of_next_year"))
    function = {**TIME["function"], **dict.fromkeys(("parameters", "strict", "description", "odd"))}
    tool = {**TIME, **nulls, "function": function}
    file = {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf", "file_id": None, "odd": None}}
    seen = {"type": "image_url", "image_url": {"url": PIXEL, "detail": None, "odd": None}, **nulls}
    called = {**call("c"), **nulls, "index": None, "type": None}
    called["function"] = {**called["function"], **nulls, "name": "get_time"}
    schema: dict[str, Any] = {"name": "n", "schema": CITY, "strict": None, "description": None, "odd": None}
    with_nulls = sent(
        dialect,
        user([text("x") | nulls, seen, file | nulls]) | nulls,
        calls(called, **nulls, tool_call_id=None, audio=None, function_call=None),
        result("c", "noon") | nulls | {"tool_calls": None},
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "get_time", "odd": None}, "odd": None},
        response_format={"type": "json_schema", "json_schema": schema, "odd": None},
        stream_options={"include_usage": None, "include_obfuscation": None, "odd": None},
    )
    assert with_nulls == sent(
        dialect,
        user([text("x"), image(PIXEL), {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}]),
        calls(call("c")),
        result("c", "noon"),
        tools=[{"type": "function", "function": {"name": "get_time"}}],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}},
    )


@every_vendor
def test_nulls_within_the_caller_s_own_json_are_kept(dialect: Dialect) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": ["a", None], "default": None}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "odd": None}}
    turn = calls(call("c", "f", '{"x": null}'), name=None)
    own = {dialect.type: {"of_next_year": {"a": None}}}
    body = sent(dialect, user(), turn, result("c", "null"), tools=[tool], **own)
    assert body["of_next_year"] == {"a": None}
    assert json.dumps({"x": None}) in json.dumps(body)
    assert '"default": null' in json.dumps(body)
    assert "null" in json.dumps(body["messages" if "messages" in body else "contents"])


@every_vendor
def test_null_in_place_of_what_is_required_is_refused(dialect: Dialect) -> None:
    for wrong in (user(None), user([{"type": "text", "text": None}]), {"role": None, "content": "x"}):
        with pytest.raises(InvalidRequest):
            sent(dialect, wrong)
    nameless = calls({"id": "c", "type": "function", "function": {"name": None, "arguments": "{}"}})
    with pytest.raises(InvalidRequest):
        sent(dialect, user(), nameless)
