"""Each request member is forwarded, mapped or rejected as documented in docs/providers.md, for each vendor."""

import json
from typing import Any, get_type_hints

import pytest
from openai.types.chat import completion_create_params

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.capabilities import Mapped, PassThrough, Unsupported
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.wire import errors as wire_errors
from aiserver.wire.schemas import CHAT
from aiserver.wire.upstream_body import VENDORS
from tests.vendors.conversations import CITY, PDF, PIXEL, TIME, WEATHER, image, text, user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type

NOT_SENT = "not sent"  # description prefix of members that are accepted and dropped
every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)

RESULT = {"role": "tool", "tool_call_id": "c", "content": "noon"}
# A value of each member, and the members it requires.
VALUES: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "logit_bias": {"1": 2},
    "logprobs": True,
    "max_completion_tokens": 77,
    "max_tokens": 77,
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "moderation": {},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}},
    "safety_identifier": "s",
    "seed": 7,
    "service_tier": "default",
    "stop": "x",
    "store": True,
    "stream": True,
    "temperature": 0.25,
    "tool_choice": "required",
    "tools": [TIME],
    "top_logprobs": 3,
    "top_p": 0.25,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {},
}
REQUIRED_WITH: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": [WEATHER]},
    "parallel_tool_calls": {"tools": [WEATHER]},
    "top_logprobs": {"logprobs": True},
}
# A request with each nested member.
NESTED: dict[str, dict[str, Any]] = {
    "messages[].name": {"messages": [user(name="alice")]},
    "messages[].refusal": {"messages": [{"role": "assistant", "refusal": "No."}]},
    "messages[].audio": {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
    "messages[].function_call": {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
    "messages[].content[].image_url": {"messages": [user([image(PIXEL)])]},
    "messages[].content[].image_url.detail": {
        "messages": [user([{"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}}])]
    },
    "messages[].content[].image_url (assistant)": {"messages": [{"role": "assistant", "content": [image(PIXEL)]}]},
    "messages[].content[].file": {
        "messages": [user([{"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}])]
    },
    "messages[].content[].file.file_id": {"messages": [user([{"type": "file", "file": {"file_id": "f"}}])]},
    "messages[].content[].input_audio": {
        "messages": [user([{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}])]
    },
    "messages[].content[].cache_control": {
        "messages": [user([{**text("long"), "cache_control": {"type": "ephemeral"}}])]
    },
    "tools[].cache_control": {"tools": [{**WEATHER, "cache_control": {"type": "ephemeral"}}]},
    "tools[].function.strict": {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
}


def translate(dialect: Dialect, **members: Any) -> Any:
    """Path, headers and body of the vendor's request for these members."""
    body = {"model": dialect.model, "messages": [user()], **members}
    request = dialect.translator.build_request(parse_chat(json.dumps(body).encode(), dialect.translator.capabilities))
    return request.path, request.headers, json.loads(request.body or b"")


def refusal(dialect: Dialect, **members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as rejection:
        translate(dialect, **members)
    return rejection.value


def value_at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value[step]
    return value


def test_each_member_of_the_openai_client_or_the_wire_has_a_value_here() -> None:
    members = {*get_type_hints(completion_create_params.CompletionCreateParamsNonStreaming), *CHAT.names}
    assert members - {"model", "messages", "stream_options"} == VALUES.keys()


@every_vendor
def test_each_member_has_a_capability_rule(dialect: Dialect) -> None:
    rules = dialect.translator.capabilities.rules
    assert rules.keys() == DIALECTS[0].translator.capabilities.rules.keys()
    assert {*VALUES, *NESTED, "model", "messages", "stream_options"} <= rules.keys()
    assert {rule for rule in rules if "[" not in rule} == {*VALUES, "model", "messages", "stream_options"}


@pytest.mark.parametrize("member", VALUES)
@every_vendor
def test_root_member_is_forwarded_mapped_or_rejected_by_name(dialect: Dialect, member: str) -> None:
    rule, value, required = dialect.translator.capabilities.rules[member], VALUES[member], REQUIRED_WITH.get(member, {})
    request: dict[str, Any] = {member: value} | required
    match rule:
        case PassThrough(to):
            assert value_at(translate(dialect, **request)[2], to) == value
        case Mapped(description):
            is_sent = not description.startswith(NOT_SENT)
            assert (translate(dialect, **request) != translate(dialect, **required)) is is_sent
        case Unsupported(_, unless):
            error = refusal(dialect, **request)
            assert (error.param, error.status) == (member, 400)
            assert f"'{member}' is not supported by {dialect.translator.capabilities.vendor}" in error.message
            for neutral in unless:
                assert translate(dialect, **{member: json.loads(neutral)}) == translate(dialect)


@pytest.mark.parametrize("path", NESTED)
@every_vendor
def test_nested_member_is_mapped_or_rejected_with_its_path(dialect: Dialect, path: str) -> None:
    rule, body = dialect.translator.capabilities.rules[path], NESTED[path]
    if isinstance(rule, Mapped) and rule.description.startswith(NOT_SENT):
        translate(dialect, **body)
        return
    if not isinstance(rule, Unsupported):
        expected = translate(dialect, tools=[WEATHER]) if "tools" in body else translate(dialect)
        assert translate(dialect, **body) != expected
        return
    error = refusal(dialect, **body)
    error_path = path.partition(" (")[0].replace("messages[]", "messages[0]").replace("content[]", "content[0]")
    assert error.param == error_path.replace("tools[]", "tools[0]")


@every_vendor
def test_unknown_member_is_rejected_by_name(dialect: Dialect) -> None:
    member = dialect.translator.capabilities.extension_member
    error = refusal(dialect, frobnicate=1)
    assert (error.param, member in error.message) == ("frobnicate", True)
    assert refusal(dialect, messages=[user(frobnicate=1)]).param == "messages[0].frobnicate"
    assert refusal(dialect, messages=[user([{"type": "hologram"}])]).param == "messages[0].content[0].type"
    assert refusal(dialect, messages=[{"role": "oracle", "content": "x"}]).param == "messages[0].role"
    assert refusal(dialect, messages=[{"role": "function", "name": "f", "content": "x"}]).param == "messages[0].role"
    custom_tool = {"type": "custom", "custom": {"name": "c"}}
    assert (refusal(dialect, tools=[custom_tool]).param or "").startswith("tools[0]")


@every_vendor
def test_null_members_are_ignored(dialect: Dialect) -> None:
    assert translate(dialect, **dict.fromkeys(VALUES)) == translate(dialect)


@every_vendor
def test_unsupported_member_is_reported_in_both_error_formats(dialect: Dialect) -> None:
    unsupported = [
        member for member, rule in dialect.translator.capabilities.rules.items() if isinstance(rule, Unsupported)
    ]
    member = next(member for member in unsupported if member in VALUES)
    envelope = json.loads(wire_errors.render_error(refusal(dialect, **{member: VALUES[member]})))
    assert (envelope["error"]["param"], envelope["error"]["type"]) == (member, "invalid_request_error")
    assert envelope["responseStatus"]["errors"][0]["message"] == envelope["error"]["message"]
    nested_error = refusal(dialect, messages=[user([{"type": "hologram"}])])
    assert nested_error.fields[0].field_name == "Messages[0].Content[0].Type"


@every_vendor
def test_extension_of_another_vendor_is_not_sent(dialect: Dialect) -> None:
    extensions = {member: {"x": 1} for member in VENDORS if member != dialect.translator.capabilities.extension_member}
    message = user([text("Is it?") | extensions], **extensions)
    assert translate(dialect, messages=[message], **extensions) == translate(dialect, messages=[user([text("Is it?")])])


@every_vendor
def test_extension_is_sent_and_cannot_override_mapped_fields(dialect: Dialect) -> None:
    member = dialect.translator.capabilities.extension_member
    assert translate(dialect, **{member: {"some_new_option": [1, 2.50]}})[2]["some_new_option"] == [1, 2.5]
    mapped_field = next(iter(translate(dialect)[2]))
    assert refusal(dialect, **{member: {mapped_field: "x"}}).param == f"{member}.{mapped_field}"


CHATS_WITHOUT_CONTENT: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": "hi"}],
    [{"role": "system", "content": "hi"}, user("")],
    [user([text("")]), {"role": "assistant", "content": None}],
    [{"role": "assistant", "content": "", "name": "agent"}],
]


@pytest.mark.parametrize("messages", CHATS_WITHOUT_CONTENT)
@every_vendor
def test_chat_without_content_is_rejected(dialect: Dialect, messages: list[dict[str, Any]]) -> None:
    assert refusal(dialect, messages=messages).param == "messages"


@every_vendor
def test_empty_turns_and_parts_are_dropped(dialect: Dialect) -> None:
    empty_turns: list[Any] = [{"role": "assistant", "content": None}, {"role": "assistant", "content": [text("")]}]
    user_turns = [user([text("a")]), user([text("b")])]
    assert translate(dialect, messages=[user_turns[0], *empty_turns, user_turns[1]]) == translate(
        dialect, messages=user_turns
    )
    assert translate(dialect, messages=[user([text(""), text("a"), text("")])]) == translate(
        dialect, messages=[user([text("a")])]
    )
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    with_name = translate(dialect, messages=[user(), turn | {"name": "agent"}, RESULT], tools=[TIME])
    assert with_name == translate(dialect, messages=[user(), turn, RESULT], tools=[TIME])


@every_vendor
def test_null_message_members_are_ignored(dialect: Dialect) -> None:
    nulls = dict.fromkeys(("name", "tool_calls", "tool_call_id", "refusal", "audio", "reasoning_details"))
    assert translate(dialect, messages=[user() | nulls]) == translate(dialect, messages=[user()])
    assert refusal(dialect, messages=[user() | {"content": None}]).param == "messages[0]"


@every_vendor
def test_unusable_nested_member_is_rejected_with_its_path(dialect: Dialect) -> None:
    member = dialect.translator.capabilities.extension_member
    for role in ("system", "user", "assistant"):
        error = refusal(dialect, messages=[{"role": role, "content": "x", member: {"odd": 1}}])
        assert error.param == f"messages[0].{member}.odd"
    assert refusal(dialect, stream=True, stream_options={"include_obfuscation": True}).status == 400
    assert refusal(dialect, stream=True, stream_options={"odd": 1}).param == "stream_options.odd"


@every_vendor
def test_extension_cannot_set_stream_model_or_messages(dialect: Dialect) -> None:
    member = dialect.translator.capabilities.extension_member
    for field, value in (("stream", True), ("model", "other"), ("messages", [])):
        assert refusal(dialect, **{member: {field: value}}).param == f"{member}.{field}"


@every_vendor
def test_neutral_values_are_accepted_in_any_spelling(dialect: Dialect) -> None:
    body = '{"model": "%s", "messages": [{"role": "user", "content": "Is it?"}], "modalities": [ "text" ], "n": 1.0}'
    if not isinstance(dialect.translator.capabilities.rules["n"], Unsupported):
        body = body.replace(', "n": 1.0', "")
    chat = parse_chat((body % dialect.model).encode(), dialect.translator.capabilities)
    request = dialect.translator.build_request(chat)
    assert json.loads(request.body or b"") == translate(dialect)[2]


@every_vendor
def test_tool_call_arguments_must_be_an_object(dialect: Dialect) -> None:
    for arguments in ("[1]", "{", "nonsense", '{"a": 1} x'):
        call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": arguments}}
        error = refusal(dialect, messages=[user(), {"role": "assistant", "tool_calls": [call]}], tools=[TIME])
        assert error.param == "messages[1].tool_calls[0].function.arguments"


@every_vendor
def test_schema_and_arguments_keep_their_numbers(dialect: Dialect) -> None:
    schema = '{"type": "object", "properties": {"x": {"maximum": 1.50e400}}}'
    tool = '{"type": "function", "function": {"name": "f", "parameters": %s}}' % schema
    function = '{"name": "f", "arguments": "{\\"x\\": 10000000000000000000001.50}"}'
    turn = '{"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": %s}]}' % function
    messages = '[{"role": "user", "content": "x"}, %s]' % turn
    body = '{"model": "%s", "messages": %s, "tools": [%s]}' % (dialect.model, messages, tool)
    request = dialect.translator.build_request(parse_chat(body.encode(), dialect.translator.capabilities))
    assert request.body is not None
    assert b"1.50e400" in request.body
    assert b"10000000000000000000001.50" in request.body
