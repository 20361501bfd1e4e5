"""What docs/providers.md says of each member of a request is what becomes of it, at each vendor."""

import json
from typing import Any, get_type_hints

import pytest
from openai.types.chat import completion_create_params

from aiserver.errors import InvalidRequest
from aiserver.providers.translation.capabilities import Mapped, PassThrough, Unsupported
from aiserver.providers.translation.chat import Chat
from aiserver.wire import errors as wire_errors
from aiserver.wire.schemas import CHAT
from aiserver.wire.upstream_body import VENDORS
from tests.vendors.conversations import CITY, PDF, PIXEL, TIME, WEATHER, image, text, user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name

NOT_SENT = "not sent"  # how the words of a rule begin by which a member is taken, and left out
every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)

RESULT = {"role": "tool", "tool_call_id": "c", "content": "noon"}
# A value of each member, and what must stand beside it.
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
BESIDE: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": [WEATHER]},
    "parallel_tool_calls": {"tools": [WEATHER]},
    "top_logprobs": {"logprobs": True},
}
# A request that has each of what stands deeper.
DEEPER: dict[str, dict[str, Any]] = {
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


def sent(dialect: Dialect, **more: Any) -> Any:
    """What the vendor gets of a request with these members."""
    body = {"model": dialect.model, "messages": [user()], **more}
    asked = dialect.vendor.build_request(Chat(json.dumps(body).encode(), dialect.vendor.capabilities))
    return asked.path, asked.headers, json.loads(asked.body or b"")


def refusal(dialect: Dialect, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        sent(dialect, **more)
    return refused.value


def deep(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value[step]
    return value


def test_each_member_that_openai_s_own_client_or_the_wire_knows_has_a_value_here() -> None:
    known = {*get_type_hints(completion_create_params.CompletionCreateParamsNonStreaming), *CHAT.names}
    assert known - {"model", "messages", "stream_options"} == VALUES.keys()


@every_vendor
def test_each_member_has_a_rule(dialect: Dialect) -> None:
    rules = dialect.vendor.capabilities.rules
    assert rules.keys() == DIALECTS[0].vendor.capabilities.rules.keys()
    assert {*VALUES, *DEEPER, "model", "messages", "stream_options"} <= rules.keys()
    assert {rule for rule in rules if "[" not in rule} == {*VALUES, "model", "messages", "stream_options"}


@pytest.mark.parametrize("member", VALUES)
@every_vendor
def test_a_member_of_the_root_passes_is_translated_or_is_refused_by_name(dialect: Dialect, member: str) -> None:
    rule, value, beside = dialect.vendor.capabilities.rules[member], VALUES[member], BESIDE.get(member, {})
    asked: dict[str, Any] = {member: value} | beside
    match rule:
        case PassThrough(to):
            assert deep(sent(dialect, **asked)[2], to) == value
        case Mapped(words):
            is_sent = not words.startswith(NOT_SENT)
            assert (sent(dialect, **asked) != sent(dialect, **beside)) is is_sent
        case Unsupported(_, unless):
            told = refusal(dialect, **asked)
            assert (told.param, told.status) == (member, 400)
            assert f"{dialect.vendor.capabilities.vendor} cannot be told '{member}'" in told.message
            for neutral in unless:
                assert sent(dialect, **{member: json.loads(neutral)}) == sent(dialect)


@pytest.mark.parametrize("path", DEEPER)
@every_vendor
def test_a_member_deeper_down_is_translated_or_is_refused_by_its_place(dialect: Dialect, path: str) -> None:
    rule, body = dialect.vendor.capabilities.rules[path], DEEPER[path]
    if isinstance(rule, Mapped) and rule.description.startswith(NOT_SENT):
        sent(dialect, **body)
        return
    if not isinstance(rule, Unsupported):
        plain = sent(dialect, tools=[WEATHER]) if "tools" in body else sent(dialect)
        assert sent(dialect, **body) != plain
        return
    told = refusal(dialect, **body)
    where = path.partition(" (")[0].replace("messages[]", "messages[0]").replace("content[]", "content[0]")
    assert told.param == where.replace("tools[]", "tools[0]")


@every_vendor
def test_what_nobody_knows_is_refused_by_name(dialect: Dialect) -> None:
    member = dialect.vendor.capabilities.extension_member
    told = refusal(dialect, frobnicate=1)
    assert (told.param, member in told.message) == ("frobnicate", True)
    assert refusal(dialect, messages=[user(frobnicate=1)]).param == "messages[0].frobnicate"
    assert refusal(dialect, messages=[user([{"type": "hologram"}])]).param == "messages[0].content[0].type"
    assert refusal(dialect, messages=[{"role": "oracle", "content": "x"}]).param == "messages[0].role"
    assert refusal(dialect, messages=[{"role": "function", "name": "f", "content": "x"}]).param == "messages[0].role"
    custom = {"type": "custom", "custom": {"name": "c"}}
    assert (refusal(dialect, tools=[custom]).param or "").startswith("tools[0]")


@every_vendor
def test_null_asks_for_nothing(dialect: Dialect) -> None:
    assert sent(dialect, **dict.fromkeys(VALUES)) == sent(dialect)


@every_vendor
def test_a_refusal_is_told_in_both_envelopes(dialect: Dialect) -> None:
    refused = [member for member, rule in dialect.vendor.capabilities.rules.items() if isinstance(rule, Unsupported)]
    member = next(member for member in refused if member in VALUES)
    told = json.loads(wire_errors.render_error(refusal(dialect, **{member: VALUES[member]})))
    assert (told["error"]["param"], told["error"]["type"]) == (member, "invalid_request_error")
    assert told["responseStatus"]["errors"][0]["message"] == told["error"]["message"]
    deeper = refusal(dialect, messages=[user([{"type": "hologram"}])])
    assert deeper.fields[0].field_name == "Messages[0].Content[0].Type"


@every_vendor
def test_what_is_for_another_vendor_is_not_sent(dialect: Dialect) -> None:
    others = {member: {"x": 1} for member in VENDORS if member != dialect.vendor.capabilities.extension_member}
    spoken = user([text("Is it?") | others], **others)
    assert sent(dialect, messages=[spoken], **others) == sent(dialect, messages=[user([text("Is it?")])])


@every_vendor
def test_what_is_for_this_vendor_only_arrives_and_says_nothing_twice(dialect: Dialect) -> None:
    member = dialect.vendor.capabilities.extension_member
    assert sent(dialect, **{member: {"some_new_option": [1, 2.50]}})[2]["some_new_option"] == [1, 2.5]
    twice = next(iter(sent(dialect)[2]))
    assert refusal(dialect, **{member: {twice: "x"}}).param == f"{member}.{twice}"


SILENT: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": "hi"}],
    [{"role": "system", "content": "hi"}, user("")],
    [user([text("")]), {"role": "assistant", "content": None}],
    [{"role": "assistant", "content": "", "name": "agent"}],
]


@pytest.mark.parametrize("messages", SILENT)
@every_vendor
def test_a_chat_in_which_nobody_speaks_is_refused(dialect: Dialect, messages: list[dict[str, Any]]) -> None:
    assert refusal(dialect, messages=messages).param == "messages"


@every_vendor
def test_a_turn_or_a_part_that_says_nothing_is_none(dialect: Dialect) -> None:
    empty: list[Any] = [{"role": "assistant", "content": None}, {"role": "assistant", "content": [text("")]}]
    full = [user([text("a")]), user([text("b")])]
    assert sent(dialect, messages=[full[0], *empty, full[1]]) == sent(dialect, messages=full)
    assert sent(dialect, messages=[user([text(""), text("a"), text("")])]) == sent(
        dialect, messages=[user([text("a")])]
    )
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    named = sent(dialect, messages=[user(), turn | {"name": "agent"}, RESULT], tools=[TIME])
    assert named == sent(dialect, messages=[user(), turn, RESULT], tools=[TIME])


@every_vendor
def test_a_member_of_a_message_that_is_null_is_not_there(dialect: Dialect) -> None:
    nulls = dict.fromkeys(("name", "tool_calls", "tool_call_id", "refusal", "audio", "reasoning_details"))
    assert sent(dialect, messages=[user() | nulls]) == sent(dialect, messages=[user()])
    assert refusal(dialect, messages=[user() | {"content": None}]).param == "messages[0]"


@every_vendor
def test_what_nothing_is_made_of_is_refused_by_its_place(dialect: Dialect) -> None:
    member = dialect.vendor.capabilities.extension_member
    for role in ("system", "user", "assistant"):
        told = refusal(dialect, messages=[{"role": role, "content": "x", member: {"odd": 1}}])
        assert told.param == f"messages[0].{member}.odd"
    assert refusal(dialect, stream=True, stream_options={"include_obfuscation": True}).status == 400
    assert refusal(dialect, stream=True, stream_options={"odd": 1}).param == "stream_options.odd"


@every_vendor
def test_what_a_caller_is_answered_by_is_openai_s_to_say(dialect: Dialect) -> None:
    member = dialect.vendor.capabilities.extension_member
    for said, value in (("stream", True), ("model", "other"), ("messages", [])):
        assert refusal(dialect, **{member: {said: value}}).param == f"{member}.{said}"


@every_vendor
def test_what_asks_for_nothing_may_be_written_in_any_way(dialect: Dialect) -> None:
    body = '{"model": "%s", "messages": [{"role": "user", "content": "Is it?"}], "modalities": [ "text" ], "n": 1.0}'
    if not isinstance(dialect.vendor.capabilities.rules["n"], Unsupported):
        body = body.replace(', "n": 1.0', "")
    asked = dialect.vendor.build_request(Chat((body % dialect.model).encode(), dialect.vendor.capabilities))
    assert json.loads(asked.body or b"") == sent(dialect)[2]


@every_vendor
def test_a_call_s_arguments_must_be_an_object(dialect: Dialect) -> None:
    for arguments in ("[1]", "{", "nonsense", '{"a": 1} x'):
        call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": arguments}}
        told = refusal(dialect, messages=[user(), {"role": "assistant", "tool_calls": [call]}], tools=[TIME])
        assert told.param == "messages[1].tool_calls[0].function.arguments"


@every_vendor
def test_a_schema_and_arguments_keep_their_numbers(dialect: Dialect) -> None:
    schema = '{"type": "object", "properties": {"x": {"maximum": 1.50e400}}}'
    tool = '{"type": "function", "function": {"name": "f", "parameters": %s}}' % schema
    function = '{"name": "f", "arguments": "{\\"x\\": 10000000000000000000001.50}"}'
    turn = '{"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": %s}]}' % function
    messages = '[{"role": "user", "content": "x"}, %s]' % turn
    body = '{"model": "%s", "messages": %s, "tools": [%s]}' % (dialect.model, messages, tool)
    asked = dialect.vendor.build_request(Chat(body.encode(), dialect.vendor.capabilities))
    assert asked.body is not None
    assert b"1.50e400" in asked.body
    assert b"10000000000000000000001.50" in asked.body
