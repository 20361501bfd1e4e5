"""Binding of request bodies: unknown fields reach the provider in order, with their exact numbers."""

import contextlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.wire import requests
from aiserver.wire.json_text import check_json, encode_utf8, parse_members, without_members
from aiserver.wire.schemas import CHAT, ObjectSchema, fold_name

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'


def bind(body: str) -> str:
    return requests.bind_chat(body).body.decode()


def test_openai_body_is_forwarded_byte_for_byte() -> None:
    body = ' {"model" : "m",\n "temperature":2.50, "x":1E400,"y":1e3, %s, "seed": 0 } ' % MESSAGES
    assert bind(body) == body


def test_gateway_fields_are_removed_and_other_fields_pass() -> None:
    body = '{"refId":"r","model":"m","tag":"t",%s,"provider":"p","unknown":[1.0,2.50],"replyTo":"https://x.io"}'
    request = requests.bind_chat(body % MESSAGES)
    assert request.body.decode() == '{"model":"m",%s,"unknown":[1.0,2.50]}' % MESSAGES
    assert request.options == requests.Options("r", "t", "https://x.io", None, "p")


def test_provider_object_is_forwarded_to_upstream() -> None:
    body = '{"model":"m",%s,"provider":{"order":["a"]}}' % MESSAGES
    assert bind(body) == body


@pytest.mark.parametrize("spelling", ["maxTokens", "MaxTokens", "max-tokens", "MAX_TOKENS"])
def test_field_names_bind_in_every_naming_style(spelling: str) -> None:
    assert bind('{"model":"m",%s,"%s":50}' % (MESSAGES, spelling)) == '{"model":"m",%s,"max_tokens":50}' % MESSAGES


def test_field_names_are_normalized_only_where_the_schema_is_known() -> None:
    body = """{"Model":"m","Messages":[{"Role":"assistant","toolCalls":[{"Id":"1","Type":"function",
        "Function":{"Name":"f","Arguments":"{\\"maxTokens\\":1}"}}]},{"role":"tool","toolCallId":"1","content":"x"}],
        "tools":[{"type":"function","function":{"Name":"f","Parameters":{"maxTokens":{"Type":"integer"}}}}],
        "responseFormat":{"type":"json_schema","jsonSchema":{"name":"n","schema":{"topP":1}}},
        "metadata":{"maxTokens":"mine"},"logitBias":{"topP":1},"streamOptions":{"includeUsage":true}}"""
    forwarded = json.loads(bind(body))
    assert forwarded["messages"][0]["tool_calls"] == [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"maxTokens":1}'}}
    ]
    assert forwarded["messages"][1]["tool_call_id"] == "1"
    assert forwarded["tools"][0]["function"] == {"name": "f", "parameters": {"maxTokens": {"Type": "integer"}}}
    assert forwarded["response_format"]["json_schema"]["schema"] == {"topP": 1}
    assert (forwarded["metadata"], forwarded["logit_bias"]) == ({"maxTokens": "mine"}, {"topP": 1})
    assert forwarded["stream_options"] == {"include_usage": True}


def field_names(shape: ObjectSchema) -> set[str]:
    return set(shape.names).union(*(field_names(nested) for nested in shape.nested.values()))


def test_schema_has_one_spelling_per_field_name() -> None:
    assert len({fold_name(name) for name in field_names(CHAT)}) == len(field_names(CHAT))


@pytest.mark.parametrize("text", ['"toolCalls"', '{"toolCalls":1}', '{"toolCalls":"","toolCalls":0}', '"\\"toolCalls"'])
def test_field_names_in_unknown_objects_and_strings_are_unchanged(text: str) -> None:
    body = '{"model":"m","messages":[{"role":"user","toolCalls":[]}],"metadata":[%s]}' % text
    assert bind(body) == body.replace('"toolCalls":[]', '"tool_calls":[]')


@pytest.mark.parametrize(
    ("key", "similar_text", "name"),
    [("respons\\u0065Format", "responseFormat", "response_format"), ("u\\u017fer", "u\u017fer", "user")],
)
def test_escaped_key_is_normalized_and_equal_text_is_not(key: str, similar_text: str, name: str) -> None:
    body = '{"model":"m",%s,"metadata":"%s","%s":null}'
    assert bind(body % (MESSAGES, similar_text, key)) == body % (MESSAGES, similar_text, name)


def test_hundred_spellings_of_one_field_are_normalized() -> None:
    messages = ",".join('{"r%sole":"user"}' % ("-" * i) for i in range(100))
    expected = ",".join(['{"role":"user"}'] * 100)
    assert bind('{"model":"m","messages":[%s]}' % messages) == '{"model":"m","messages":[%s]}' % expected


def test_alternative_spelling_beside_exact_name_is_unchanged() -> None:
    body = '{"model":"m",%s,"top_p":1,"topP":2}' % MESSAGES
    assert bind(body) == body


@pytest.mark.parametrize("route", [requests.bind_chat, lambda body: requests.bind_queue_chat('{"request":%s}' % body)])
@pytest.mark.parametrize(
    ("name", "spelling", "text"),
    [
        *(("model", spelling, '"dear"') for spelling in ("Model", "MODEL", "mod_el", "m\\u006fdel_")),
        *(("stream", spelling, "true") for spelling in ("Stream", "\u017ftream", "STREAM")),
        *(("max_tokens", spelling, "9") for spelling in ("maxTokens", "MaxTokens", "max-tokens", "MAX_TOKENS")),
        *[("max_completion_tokens", "maxCompletionTokens", "9"), ("n", "N", "9"), ("tools", "Tools", "[]")],
        *[("messages", "Messages", "[]"), ("stream_options", "streamOptions", "{}")],
    ],
)
def test_second_spelling_of_a_checked_field_is_rejected(route: Any, name: str, spelling: str, text: str) -> None:
    first = {"model": '"m"', "messages": '[{"role":"user"}]', name: text}
    members = [*(f'"{key}":{value}' for key, value in first.items()), f'"{spelling}":{text}']
    for ordered in (members, members[::-1]):
        with pytest.raises(InvalidRequest, match=f"'{name}' is given more than once") as exc_info:
            route("{" + ",".join(ordered) + "}")
        assert exc_info.value.param == name


@pytest.mark.parametrize(
    ("bind", "body", "name"),
    [
        (requests.bind_embeddings, '{"model":"m","input":"x","Model":"dear"}', "model"),
        (requests.bind_embeddings, '{"model":"m","input":"x","Input":"y"}', "input"),
        (requests.bind_responses, '{"model":"m","input":"x","MODEL":"dear"}', "model"),
        (requests.bind_responses, '{"model":"m","stream":false,"Stream":true}', "stream"),
        (requests.bind_responses, '{"model":"m","max_output_tokens":1,"maxOutputTokens":9}', "max_output_tokens"),
    ],
)
def test_second_spelling_is_rejected_in_every_operation(bind: Any, body: str, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' is given more than once"):
        bind(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"model":"m","model":"n",%s}' % MESSAGES, "model"),
        ('{"model":"m",%s,"topP":1,"TopP":0}' % MESSAGES, "top_p"),
        ('{"model":"m",%s,"refId":"a","RefId":"b"}' % MESSAGES, "refId"),
        ('{"model":"m","messages":[{"role":"user","role":"system"}]}', "role"),
    ],
)
def test_duplicate_known_field_is_rejected(body: str, param: str) -> None:
    with pytest.raises(InvalidRequest, match="more than once") as exc_info:
        requests.bind_chat(body)
    assert exc_info.value.param == param


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1,]", '{"a":}', "nul", "{'a':1}", '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}', "\ud800"),
        '{"a":"\\ud800"}',
        '{"a":"\\udc00\\ud800"}',
        "[" * 101 + "]" * 101,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' + "[" * 101 + "]" * 101 + ',"a":1}',
    ],
)
def test_unsafe_json_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest):
        check_json(encode_utf8(text))


def test_nesting_up_to_the_limit_and_brackets_in_strings_are_valid() -> None:
    check_json(b"[" * 100 + b"]" * 100)
    check_json(json.dumps(["[" * 300]).encode())
    check_json(rb'{"pair":"\ud83d\ude00"}')


def test_numbers_of_any_length_are_forwarded() -> None:
    body = '{"model":"m",%s,"seed":%s,"a":%s}' % (MESSAGES, "9" * 5000, "1" * 9000)
    assert bind(body) == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.data())
def test_removing_members_keeps_all_others(document: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(document, indent=data.draw(st.sampled_from([None, 1]))).encode()
    assert {m.key: json.loads(text[m.value_start : m.value_end]) for m in parse_members(text)} == document
    unwanted = data.draw(st.sets(st.sampled_from(["", *document])))
    remaining = json.loads(without_members(text, unwanted))
    assert remaining == {key: value for key, value in document.items() if key not in unwanted}


@given(st.dictionaries(st.text().map("x ".__add__), json_values, max_size=5))
def test_unknown_fields_are_forwarded_unchanged(unknown: dict[str, object]) -> None:
    body = json.dumps({"tag": "t", **unknown, "model": "m", "messages": [{"role": "user"}], "refId": "r"})
    assert json.loads(bind(body)) == {**unknown, "model": "m", "messages": [{"role": "user"}]}


@given(st.text(alphabet='{}[]",:\\ \n0123456789.eE+-truefalsn"aud8\ufeff', max_size=40))
def test_any_text_is_bound_or_rejected(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        requests.bind_chat(text)


@pytest.mark.parametrize(
    ("body", "param", "field"),
    [
        ("[]", None, ""),
        ('{"messages":[{"role":"user"}]}', "model", "Model"),
        ('{"model":"","messages":[{"role":"user"}]}', "model", "Model"),
        ('{"model":"m"}', "messages", "Messages"),
        ('{"model":"m","messages":[]}', "messages", "Messages"),
        ('{"model":"m","messages":"hi"}', "messages", "Messages"),
        ('{"model":"m","messages":[{"content":"x"}]}', "messages[0].role", "Messages[0].Role"),
        ('{"model":"m","messages":[{"role":"user","content":5}]}', "messages[0].content", "Messages[0].Content"),
        ('{"model":"m",%s,"maxTokens":"50"}' % MESSAGES, "max_tokens", "MaxTokens"),
        ('{"model":"m",%s,"temperature":"hot"}' % MESSAGES, "temperature", "Temperature"),
        ('{"model":"m",%s,"stream":"yes"}' % MESSAGES, "stream", "Stream"),
        ('{"model":"m",%s,"refId":5}' % MESSAGES, "refId", "RefId"),
        ('{"model":"m",%s,"tag":"a\\nb"}' % MESSAGES, "tag", "Tag"),
        ('{"model":"m",%s,"refId":"%s"}' % (MESSAGES, "r" * 257), "refId", "RefId"),
    ],
)
def test_invalid_field_is_named_in_both_dialects(body: str, param: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as exc_info:
        requests.bind_chat(body)
    assert exc_info.value.param == param
    assert [problem.field_name for problem in exc_info.value.fields] == [field]


def test_falsy_values_and_nulls_are_forwarded() -> None:
    body = '{"model":"m",%s,"temperature":0,"stream":false,"stop":null,"tools":[]}' % MESSAGES
    assert bind(body) == body


def test_queue_request_binds_in_every_style_without_stream_fields() -> None:
    request = requests.bind_queue_chat(
        '{"RefId":"r","request":{"model":"m",%s,"stream":true,"streamOptions":{"includeUsage":true}},"Tag":"t"}'
        % MESSAGES
    )
    assert request.body.decode() == '{"model":"m",%s}' % MESSAGES
    assert (request.operation, request.model, request.options.ref_id, request.options.tag) == (
        operations.CHAT,
        "m",
        "r",
        "t",
    )


def test_queue_request_ignores_an_invalid_stream_field() -> None:
    request = requests.bind_queue_chat('{"request":{"model":"m",%s,"stream":"yes"}}' % MESSAGES)
    assert request.body.decode() == '{"model":"m",%s}' % MESSAGES


def test_queue_request_without_request_field_is_rejected() -> None:
    with pytest.raises(InvalidRequest) as exc_info:
        requests.bind_queue_chat('{"refId":"r"}')
    assert exc_info.value.param == "request"


def test_json_check_of_long_string_uses_little_memory() -> None:
    tracemalloc.start()
    check_json(b'["%b",%b]' % (b"x" * 5_000_000, b",".join([b"[]"] * 101)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_batch_is_split_into_the_exact_texts() -> None:
    assert requests.split_batch(' [ {"a": 1} , {"b":[2, 3]} ,4] ') == [b'{"a": 1}', b'{"b":[2, 3]}', b"4"]
    assert requests.split_batch("[]") == []


def test_query_names_bind_in_any_case_and_zero_is_absent() -> None:
    assert requests.query_integer({"JobId": "12"}, "jobId") == 12
    assert requests.query_integer({"jobId": "0"}, "jobId") is None
    assert requests.query_value({"ref_id": "x"}, "refId") == "x"
    with pytest.raises(InvalidRequest):
        requests.query_integer({"take": "ten"}, "take")
