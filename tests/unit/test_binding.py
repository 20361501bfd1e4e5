"""A request body is bound without being bent: whatever we do not know arrives in order, number for number."""

import contextlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.wire import requests
from aiserver.wire.json_text import check_json, encode_utf8, parse_members, without_members
from aiserver.wire.schemas import CHAT, ObjectSchema, fold_name

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'


def bound(body: str) -> str:
    return requests.bind_chat(body).body.decode()


def test_a_body_in_openai_s_own_form_passes_byte_for_byte() -> None:
    body = ' {"model" : "m",\n "temperature":2.50, "x":1E400,"y":1e3, %s, "seed": 0 } ' % MESSAGES
    assert bound(body) == body


def test_own_members_are_taken_out_and_the_rest_stays() -> None:
    body = '{"refId":"r","model":"m","tag":"t",%s,"provider":"p","unknown":[1.0,2.50],"replyTo":"https://x.io"}'
    request = requests.bind_chat(body % MESSAGES)
    assert request.body.decode() == '{"model":"m",%s,"unknown":[1.0,2.50]}' % MESSAGES
    assert request.options == requests.Options("r", "t", "https://x.io", None, "p")


def test_a_provider_that_is_an_object_belongs_to_the_upstream() -> None:
    body = '{"model":"m",%s,"provider":{"order":["a"]}}' % MESSAGES
    assert bound(body) == body


@pytest.mark.parametrize("spelling", ["maxTokens", "MaxTokens", "max-tokens", "MAX_TOKENS"])
def test_every_naming_style_binds(spelling: str) -> None:
    assert bound('{"model":"m",%s,"%s":50}' % (MESSAGES, spelling)) == '{"model":"m",%s,"max_tokens":50}' % MESSAGES


def test_names_are_mended_where_the_shape_is_known_and_nowhere_else() -> None:
    body = """{"Model":"m","Messages":[{"Role":"assistant","toolCalls":[{"Id":"1","Type":"function",
        "Function":{"Name":"f","Arguments":"{\\"maxTokens\\":1}"}}]},{"role":"tool","toolCallId":"1","content":"x"}],
        "tools":[{"type":"function","function":{"Name":"f","Parameters":{"maxTokens":{"Type":"integer"}}}}],
        "responseFormat":{"type":"json_schema","jsonSchema":{"name":"n","schema":{"topP":1}}},
        "metadata":{"maxTokens":"mine"},"logitBias":{"topP":1},"streamOptions":{"includeUsage":true}}"""
    sent = json.loads(bound(body))
    assert sent["messages"][0]["tool_calls"] == [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"maxTokens":1}'}}
    ]
    assert sent["messages"][1]["tool_call_id"] == "1"
    assert sent["tools"][0]["function"] == {"name": "f", "parameters": {"maxTokens": {"Type": "integer"}}}
    assert sent["response_format"]["json_schema"]["schema"] == {"topP": 1}
    assert (sent["metadata"], sent["logit_bias"]) == ({"maxTokens": "mine"}, {"topP": 1})
    assert sent["stream_options"] == {"include_usage": True}


def known_names(shape: ObjectSchema) -> set[str]:
    return set(shape.names).union(*(known_names(below) for below in shape.nested.values()))


def test_a_name_is_written_one_way_wherever_it_is_known() -> None:
    assert len({fold_name(name) for name in known_names(CHAT)}) == len(known_names(CHAT))


@pytest.mark.parametrize("text", ['"toolCalls"', '{"toolCalls":1}', '{"toolCalls":"","toolCalls":0}', '"\\"toolCalls"'])
def test_what_is_spelled_like_a_known_name_stays_where_it_is_the_caller_s_own(text: str) -> None:
    body = '{"model":"m","messages":[{"role":"user","toolCalls":[]}],"metadata":[%s]}' % text
    assert bound(body) == body.replace('"toolCalls":[]', '"tool_calls":[]')


@pytest.mark.parametrize(
    ("key", "looks_like_it", "name"),
    [("respons\\u0065Format", "responseFormat", "response_format"), ("u\\u017fer", "u\u017fer", "user")],
)
def test_an_escaped_key_is_renamed_and_what_looks_like_it_is_not(key: str, looks_like_it: str, name: str) -> None:
    body = '{"model":"m",%s,"metadata":"%s","%s":null}'
    assert bound(body % (MESSAGES, looks_like_it, key)) == body % (MESSAGES, looks_like_it, name)


def test_a_hundred_spellings_of_one_name_are_all_known() -> None:
    messages = ",".join('{"r%sole":"user"}' % ("-" * i) for i in range(100))
    expected = ",".join(['{"role":"user"}'] * 100)
    assert bound('{"model":"m","messages":[%s]}' % messages) == '{"model":"m","messages":[%s]}' % expected


def test_a_spelling_stays_as_it_is_beside_the_exact_name() -> None:
    body = '{"model":"m",%s,"top_p":1,"topP":2}' % MESSAGES
    assert bound(body) == body


@pytest.mark.parametrize("route", [requests.bind_chat, lambda body: requests.bind_queue_chat('{"request":%s}' % body)])
@pytest.mark.parametrize(
    ("name", "other", "value"),
    [
        *(("model", spelling, '"dear"') for spelling in ("Model", "MODEL", "mod_el", "m\\u006fdel_")),
        *(("stream", spelling, "true") for spelling in ("Stream", "\u017ftream", "STREAM")),
        *(("max_tokens", spelling, "9") for spelling in ("maxTokens", "MaxTokens", "max-tokens", "MAX_TOKENS")),
        *[("max_completion_tokens", "maxCompletionTokens", "9"), ("n", "N", "9"), ("tools", "Tools", "[]")],
        *[("messages", "Messages", "[]"), ("stream_options", "streamOptions", "{}")],
    ],
)
def test_second_spelling_of_a_member_we_act_on_is_refused(route: Any, name: str, other: str, value: str) -> None:
    first = {"model": '"m"', "messages": '[{"role":"user"}]', name: value}
    members = [*(f'"{key}":{text}' for key, text in first.items()), f'"{other}":{value}']
    for written in (members, members[::-1]):
        with pytest.raises(InvalidRequest, match=f"'{name}' is given more than once") as refused:
            route("{" + ",".join(written) + "}")
        assert refused.value.param == name


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
def test_second_spelling_is_refused_in_every_operation(bind: Any, body: str, name: str) -> None:
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
def test_a_known_member_given_twice_is_refused(body: str, param: str) -> None:
    with pytest.raises(InvalidRequest, match="more than once") as refused:
        requests.bind_chat(body)
    assert refused.value.param == param


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
def test_what_is_not_safe_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        check_json(encode_utf8(text))


def test_deep_but_bearable_nesting_and_brackets_in_strings_pass() -> None:
    check_json(b"[" * 100 + b"]" * 100)
    check_json(json.dumps(["[" * 300]).encode())
    check_json(rb'{"pair":"\ud83d\ude00"}')


def test_a_number_of_any_length_reaches_the_provider() -> None:
    body = '{"model":"m",%s,"seed":%s,"a":%s}' % (MESSAGES, "9" * 5000, "1" * 9000)
    assert bound(body) == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.data())
def test_removing_members_leaves_exactly_the_others(given_object: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(given_object, indent=data.draw(st.sampled_from([None, 1]))).encode()
    assert {m.key: json.loads(text[m.value_start : m.value_end]) for m in parse_members(text)} == given_object
    unwanted = data.draw(st.sets(st.sampled_from(["", *given_object])))
    left = json.loads(without_members(text, unwanted))
    assert left == {key: value for key, value in given_object.items() if key not in unwanted}


@given(st.dictionaries(st.text().map("x ".__add__), json_values, max_size=5))
def test_whatever_we_do_not_know_arrives_as_it_was(unknown: dict[str, object]) -> None:
    body = json.dumps({"tag": "t", **unknown, "model": "m", "messages": [{"role": "user"}], "refId": "r"})
    assert json.loads(bound(body)) == {**unknown, "model": "m", "messages": [{"role": "user"}]}


@given(st.text(alphabet='{}[]",:\\ \n0123456789.eE+-truefalsn"aud8\ufeff', max_size=40))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
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
def test_a_wrong_member_is_named_in_both_vocabularies(body: str, param: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        requests.bind_chat(body)
    assert refused.value.param == param
    assert [f.field_name for f in refused.value.fields] == [field]


def test_falsy_values_and_nulls_reach_the_provider() -> None:
    body = '{"model":"m",%s,"temperature":0,"stream":false,"stop":null,"tools":[]}' % MESSAGES
    assert bound(body) == body


def test_the_queue_request_binds_in_every_style_and_drops_the_stream() -> None:
    request = requests.bind_queue_chat(
        '{"RefId":"r","request":{"model":"m",%s,"stream":true,"streamOptions":{"includeUsage":true}},"Tag":"t"}'
        % MESSAGES
    )
    assert request.body.decode() == '{"model":"m",%s}' % MESSAGES
    assert (request.operation, request.model, request.options.ref_id, request.options.tag) == (
        "chat.completions",
        "m",
        "r",
        "t",
    )


def test_a_stream_that_nobody_reads_may_be_of_any_type() -> None:
    request = requests.bind_queue_chat('{"request":{"model":"m",%s,"stream":"yes"}}' % MESSAGES)
    assert request.body.decode() == '{"model":"m",%s}' % MESSAGES


def test_a_queue_request_without_its_request_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        requests.bind_queue_chat('{"refId":"r"}')
    assert refused.value.param == "request"


def test_a_long_string_among_many_brackets_costs_little() -> None:
    tracemalloc.start()
    check_json(b'["%b",%b]' % (b"x" * 5_000_000, b",".join([b"[]"] * 101)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_a_batch_is_split_into_its_own_texts() -> None:
    assert requests.split_batch(' [ {"a": 1} , {"b":[2, 3]} ,4] ') == [b'{"a": 1}', b'{"b":[2, 3]}', b"4"]
    assert requests.split_batch("[]") == []


def test_query_names_bind_in_any_case_and_zero_means_absent() -> None:
    assert requests.query_integer({"JobId": "12"}, "jobId") == 12
    assert requests.query_integer({"jobId": "0"}, "jobId") is None
    assert requests.query_value({"ref_id": "x"}, "refId") == "x"
    with pytest.raises(InvalidRequest):
        requests.query_integer({"take": "ten"}, "take")
