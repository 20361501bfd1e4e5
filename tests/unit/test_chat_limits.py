"""A chat parsed for translation, condition by condition: its fields, a vendor's capabilities, and merged turns."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import Raw

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.capabilities import Capabilities, Mapped, PassThrough, Rule, Unsupported
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.messages import Message
from aiserver.providers.adapters.base.turns import (
    check_tool_choice,
    content_parts,
    has_tools,
    merge_turns,
    parse_data_url,
    system_blocks,
)
from aiserver.providers.adapters.base.validate import parse_chat

USER: dict[str, Any] = {"role": "user", "content": "hi"}
CALL = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
EMPTY: dict[str, Any] = {}
ROLES = ("system", "developer", "user", "assistant", "tool")
SUPPORTED: dict[str, Rule] = {
    path: Mapped("")
    for path in (
        *("model", "messages", "tools", "messages[].content[].text", "messages[].content[].refusal"),
        *("messages[].content[].image_url", "messages[].content[].file", "messages[].content[].input_audio"),
        *(f"messages[].role: {role}" for role in ROLES),
    )
}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "x"}}
FILE: dict[str, Any] = {"type": "file", "file": {"file_data": "x"}}


def capabilities(rules: Mapping[str, Rule] = SUPPORTED, **options: Any) -> Capabilities:
    return Capabilities("Vendor", "anthropic", rules, **options)


def encode(*messages: object, **fields: Any) -> bytes:
    return json.dumps({"messages": messages or (USER,)} | fields).encode()


def chat(*messages: object, **fields: Any) -> Chat:
    return Chat(encode(*messages, **fields), capabilities())


def rejection(*messages: object, rules: Mapping[str, Rule] = SUPPORTED, **fields: Any) -> str | None:
    """Return the path of the field for which the vendor rejects a chat, None when it is supported."""
    try:
        parse_chat(encode(*messages, **fields), capabilities(rules))
    except InvalidRequest as error:
        return error.param
    return None


# --- fields of a chat ---


def test_absent_and_null_fields_are_empty() -> None:
    fields = ("model", "tools", "tool_choice", "response_format", "parallel_tool_calls", "stop", "stream", "max_tokens")
    for parsed in (chat(), chat(**dict.fromkeys((*fields, "stream_options", "anthropic")))):
        assert set(parsed.members) == {"messages"}
        assert (parsed.model, parsed.tools, parsed.stop, parsed.extensions) == ("", [], [], {})
        assert (parsed.tool_choice, parsed.response_format, parsed.max_tokens) == (None, None, None)
        assert (parsed.single_tool_call, parsed.stream, parsed.include_usage) == (False, False, False)
    assert Chat(b"{}", capabilities()).messages == []


def test_set_fields_are_read() -> None:
    parsed = chat(
        model="m",
        tools=[{"function": {"name": "f"}}],
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        anthropic={"top_k": 1},
    )
    assert (parsed.model, len(parsed.messages), len(parsed.tools), parsed.stop) == ("m", 1, 1, ["a", "b"])
    assert (parsed.stream, parsed.include_usage, parsed.extensions) == (True, True, {"top_k": Raw(b"1")})
    assert chat(stop="a").stop == ["a"]


@pytest.mark.parametrize(("model", "expected"), [(None, "m"), ("x", "x"), ("", "")])
def test_model_of_the_provider_replaces_the_one_of_the_caller(model: str | None, expected: str) -> None:
    assert Chat(encode(model="m"), capabilities(), model).model == expected


@pytest.mark.parametrize(("parallel", "is_single"), [(False, True), (True, False), (None, False)])
def test_single_tool_call_only_without_parallel_calls(parallel: bool | None, is_single: bool) -> None:
    assert chat(parallel_tool_calls=parallel).single_tool_call == is_single


@pytest.mark.parametrize("options", [{}, {"include_usage": None}, {"include_usage": False}])
def test_usage_is_included_only_if_requested(options: dict[str, Any]) -> None:
    assert not chat(stream_options=options).include_usage
    assert not chat(stream_options=options | {"include_obfuscation": False}).include_usage
    with pytest.raises(InvalidRequest, match="stream events are not padded"):
        chat(stream_options=options | {"include_obfuscation": True})


@pytest.mark.parametrize(
    ("messages", "lacks_reasoning"),
    [
        ([USER], False),
        ([USER, {"role": "assistant", "content": "x"}], False),
        ([{"role": "assistant", "tool_calls": list[Any]()}], False),
        ([{"role": "assistant", "tool_calls": [CALL]}], True),
        ([{"role": "assistant", "tool_calls": [CALL], "anthropic": EMPTY}], True),
        ([{"role": "assistant", "tool_calls": [CALL], "anthropic": {"content": 1}}], False),
        ([{"role": "assistant", "content": "x", "anthropic": {"content": 1}}], False),
        ([{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "1", "content": "x"}], True),
        ([{"role": "assistant", "tool_calls": [CALL]}, USER], False),
        ([{"role": "system", "content": "x"}], False),
    ],
)
def test_reasoning_is_lacking_only_of_the_last_turn_with_calls(messages: list[Any], lacks_reasoning: bool) -> None:
    assert chat(*messages).lacks_reasoning == lacks_reasoning


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 5}, 5),
        ({"max_completion_tokens": 5, "max_tokens": 5}, 5),
        ({"max_completion_tokens": 0, "max_tokens": None}, 0),
    ],
)
def test_maximum_of_tokens_has_two_names(fields: dict[str, Any], expected: int | None) -> None:
    assert chat(**fields).max_tokens == expected
    with pytest.raises(InvalidRequest, match="'max_tokens' must equal 'max_completion_tokens'"):
        assert chat(max_completion_tokens=5, max_tokens=6).max_tokens


def test_extensions_are_merged_into_objects_and_lists_only() -> None:
    extensions = {"new": Raw(b"1"), "object": Raw(b'{"y":2,"z":{"w":3}}'), "list": Raw(b"[3]")}
    request: dict[str, Any] = {"object": {"x": 1, "z": {}}, "list": [1]}
    chat().merge(request, extensions)
    assert request == {
        "new": Raw(b"1"),
        "object": {"x": 1, "y": Raw(b"2"), "z": {"w": Raw(b"3")}},
        "list": [1, Raw(b"3")],
    }
    with pytest.raises(InvalidRequest, match="must not override another request field") as raised:
        chat().merge({"object": {"x": 1}}, {"object": Raw(b'{"x":2}')})
    assert raised.value.param == "anthropic.object.x"


# --- capabilities ---


@pytest.mark.parametrize(
    ("rule", "value", "is_rejected"),
    [
        (Mapped(""), 1, False),
        (PassThrough("n"), 1, False),
        (Unsupported(), 1, True),
        (Unsupported("", ("0",)), 1, True),
        (Unsupported("", ("0", "1")), 1, False),
        (Unsupported("", ("1.0",)), 1, False),
        (Unsupported(), None, False),
        (None, 1, True),
    ],
)
def test_unsupported_field_may_have_an_allowed_value(rule: Rule | None, value: object, is_rejected: bool) -> None:
    rules = SUPPORTED | ({"n": rule} if rule else {})
    assert rejection(rules=rules, n=value) == ("n" if is_rejected else None)


@pytest.mark.parametrize(
    ("rule_path", "messages", "tool", "path"),
    [
        ("messages[].role: user", [USER], {}, "messages[0].role"),
        ("messages[].name", [USER | {"name": "n"}], {}, "messages[0].name"),
        ("messages[].function_call", [{"role": "assistant", "function_call": EMPTY}], {}, "messages[0].function_call"),
        ("messages[].audio", [{"role": "assistant", "audio": {"id": "1"}}], {}, "messages[0].audio"),
        ("tools[].cache_control", [USER], {"cache_control": EMPTY}, "tools[0].cache_control"),
        (
            "tools[].function.strict",
            [USER],
            {"function": {"name": "f", "strict": True}},
            "tools[0].function.strict",
        ),
    ],
)
def test_set_member_of_a_message_or_tool_needs_its_rule(
    rule_path: str, messages: list[Any], tool: dict[str, Any], path: str
) -> None:
    tools = [{"function": {"name": "f"}} | tool]
    assert rejection(*messages, tools=tools, rules=SUPPORTED | {rule_path: Mapped("")}) is None
    for rule in (Unsupported(), Unsupported("", ("{}", "true"))):
        assert rejection(*messages, tools=tools, rules=SUPPORTED | {rule_path: rule}) == path


def test_absent_members_of_messages_and_tools_need_no_rule() -> None:
    assistant = {"role": "assistant", "content": "x", "function_call": None, "audio": None, "tool_calls": None}
    tool = {"function": {"name": "f", "strict": False}, "cache_control": None}
    assert rejection(USER | {"name": ""}, assistant, {"role": "assistant", "tool_calls": []}, tools=[tool]) is None
    assert rejection({"role": "assistant", "content": "x", "tool_calls": [CALL]}) is None
    invalid = {"id": "2", "function": {"name": "f", "arguments": "[1"}}
    path = "messages[0].tool_calls[1].function.arguments"
    assert rejection({"role": "assistant", "tool_calls": [CALL, invalid]}) == path


@pytest.mark.parametrize(
    ("part", "path"),
    [
        (IMAGE, None),
        ({"type": "image_url", "image_url": {"url": "x", "detail": None}}, None),
        ({"type": "image_url", "image_url": {"url": "x", "detail": "auto"}}, None),
        ({"type": "image_url", "image_url": {"url": "x", "detail": "low"}}, "image_url.detail"),
        (IMAGE | {"cache_control": None}, None),
        (IMAGE | {"cache_control": EMPTY}, "cache_control"),
        (FILE, None),
        ({"type": "file", "file": {"file_id": ""}}, None),
        ({"type": "file", "file": {"file_id": "f"}}, "file.file_id"),
        ({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}, None),
        ({"type": "text", "text": "x"}, None),
        ({"type": "text", "text": "x", "cache_control": EMPTY}, "cache_control"),
    ],
)
def test_member_of_a_part_needs_its_rule_only_when_set(part: dict[str, Any], path: str | None) -> None:
    parts = [{"type": "text", "text": "x"}, part]
    assert rejection({"role": "user", "content": parts}) == (path and f"messages[0].content[1].{path}")


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
@pytest.mark.parametrize("part", [IMAGE, {"type": "text", "text": "x"}, {"type": "refusal", "refusal": "x"}])
def test_media_of_assistants_and_tools_have_their_own_rule(role: str, part: dict[str, Any]) -> None:
    message = {"role": role, "content": [part]} | ({"tool_call_id": "1"} if role == "tool" else {})
    rule_path = f"messages[].content[].image_url ({role})"
    needs_rule = part is IMAGE and role != "user"
    assert rejection(message) == ("messages[0].content[0].image_url" if needs_rule else None)
    assert rejection(message, rules=SUPPORTED | {rule_path: Mapped("")}) is None


# --- turns ---


def texts(parsed: Chat, index: int = 0) -> list[tuple[str, str]]:
    """Return the path and the text of each content part of a message."""
    parts = content_parts(parsed, f"messages[{index}]", parsed.messages[index])
    return [
        (path, getattr(part, "text", None) or getattr(part, "refusal", part.__struct_config__.tag))
        for path, part in parts
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (USER, [("content", "hi")]),
        (USER | {"content": ""}, []),
        (USER | {"content": " \n"}, []),
        ({"role": "assistant"}, []),
        ({"role": "assistant", "content": None, "refusal": "no"}, [("refusal", "no")]),
        ({"role": "assistant", "content": "x", "refusal": ""}, [("content", "x")]),
        ({"role": "assistant", "content": "x", "refusal": "no"}, [("content", "x"), ("refusal", "no")]),
        (USER | {"content": [{"type": "text", "text": ""}, IMAGE]}, [("content[1]", "image_url")]),
        (USER | {"content": [{"type": "text", "text": " ", "anthropic": {"x": 1}}]}, [("content[0]", " ")]),
        (USER | {"content": [{"type": "text", "text": " ", "anthropic": EMPTY}]}, []),
        (USER | {"content": [{"type": "text", "text": "x", "anthropic": EMPTY}]}, [("content[0]", "x")]),
    ],
)
def test_blank_texts_without_extensions_are_skipped(message: Any, expected: list[tuple[str, str]]) -> None:
    assert texts(chat(message)) == [(f"messages[0].{path}", text) for path, text in expected]


def test_blank_text_is_kept_where_the_vendor_accepts_it() -> None:
    body = encode(USER | {"content": " "}, USER | {"content": ""})
    lenient = Chat(body, capabilities(accepts_blank_text=True))
    assert [texts(lenient, 0), texts(lenient, 1)] == [[("messages[0].content", " ")], []]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (USER | {"name": "n"}, ["n: hi"]),
        (USER | {"name": ""}, ["hi"]),
        (USER | {"name": "n", "content": ""}, ["n:"]),
        (USER | {"name": "n", "content": [IMAGE]}, ["n:", "image_url"]),
        (USER | {"name": "n", "content": [{"type": "text", "text": "a"}, IMAGE]}, ["n: a", "image_url"]),
        ({"role": "assistant", "name": "n", "content": "x"}, ["n: x"]),
        ({"role": "assistant", "name": "n"}, []),
        ({"role": "tool", "name": "n", "tool_call_id": "1", "content": "x"}, ["x"]),
    ],
)
def test_name_of_a_message_precedes_its_first_text(message: Any, expected: list[str]) -> None:
    assert [text for _, text in texts(chat(message))] == expected


def map_content(parsed: Chat, path: str, message: Message) -> list[Any]:
    return [part.text for _, part in content_parts(parsed, path, message)]


def test_consecutive_turns_of_one_role_are_merged() -> None:
    assistant, system = {"role": "assistant", "content": "b"}, {"role": "system", "content": "s"}
    parsed = chat(
        *(system, assistant | {"content": ""}, USER, system, USER | {"content": "2"}, assistant | {"content": None}),
        *({"role": "tool", "tool_call_id": "1", "content": "3"}, assistant, assistant, USER),
    )
    assert merge_turns(parsed, map_content) == [
        {"role": "user", "content": ["hi", "2", "3"]},
        {"role": "assistant", "content": ["b", "b"]},
        {"role": "user", "content": ["hi"]},
    ]
    assert system_blocks(parsed, map_content) == ["s", "s"]


@pytest.mark.parametrize("messages", [[{"role": "system", "content": "s"}], [USER | {"content": " "}]])
def test_chat_without_any_turn_is_rejected(messages: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="must contain at least one user message"):
        merge_turns(chat(*messages), map_content)


@pytest.mark.parametrize(
    ("tools", "extensions", "expected"),
    [
        ([], {}, False),
        ([{"function": {"name": "f"}}], {}, True),
        ([], {"tools": Raw(b"[]")}, False),
        ([], {"tools": Raw(b"null")}, False),
        ([], {"tools": Raw(b'[{"x":1}]')}, True),
        ([{"function": {"name": "f"}}], {"tools": Raw(b"[{}]")}, True),
    ],
)
def test_tools_are_offered_in_either_place(tools: list[Any], extensions: dict[str, Raw], expected: bool) -> None:
    assert has_tools(chat(tools=tools), extensions) == expected


@pytest.mark.parametrize(
    ("choice", "is_rejected"),
    [(None, False), ("auto", False), ("none", False), ("required", True)],
)
def test_required_call_without_tools_is_rejected(choice: str | None, is_rejected: bool) -> None:
    if is_rejected:
        with pytest.raises(InvalidRequest, match="the request offers no tools"):
            check_tool_choice(chat(tool_choice=choice))
    else:
        check_tool_choice(chat(tool_choice=choice))


def test_data_url_has_a_media_type_and_base64() -> None:
    assert parse_data_url("data:image/jpg;x=1;base64,QQ==") == ("image/jpeg", "QQ==")
    assert parse_data_url("data:image/png,QQ==") is None
