"""Translation keeps everything that both protocols support, in requests, responses and streams."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.wire import sse
from tests.examples import examples
from tests.vendors import calls
from tests.vendors.dialect import Dialect, expected_response
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.semantics import parse_chunks, parse_completion, parse_request

PROPERTY_SETTINGS = settings(max_examples=examples(60))
CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born", id="chatcmpl-born", model="model-born")
every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)


def chat(dialect: Dialect, body: dict[str, Any]) -> Chat:
    return parse_chat(json.dumps(body).encode(), dialect.translator.capabilities)


@every_vendor
@PROPERTY_SETTINGS
@given(data=st.data())
def test_request_keeps_everything_both_protocols_support(dialect: Dialect, data: st.DataObject) -> None:
    body = data.draw(calls.requests(dialect))
    parsed = dialect.parse_request(dialect.translator.build_request(chat(dialect, body)))
    assert parsed == parse_request(body)


@every_vendor
@PROPERTY_SETTINGS
@given(response=calls.responses())
def test_response_keeps_everything_both_protocols_support(dialect: Dialect, response: Any) -> None:
    mapped = dialect.translator.map_response(dialect.encode_response(response), CONTEXT)
    completion = json.loads(mapped.body)
    assert parse_completion(completion) == expected_response(dialect, response)
    assert ChatCompletion.model_validate(completion, strict=True).created == CONTEXT.created_s
    assert json.loads(mapped.usage or "") == completion["usage"]


@every_vendor
@PROPERTY_SETTINGS
@given(response=calls.responses(), shows_usage=st.booleans())
def test_stream_keeps_everything_both_protocols_support(dialect: Dialect, response: Any, shows_usage: bool) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [], "stream": True}
    options = {"stream_options": {"include_usage": True}} if shows_usage else {}
    include_usage = chat(dialect, body | options).include_usage
    mapper = dialect.translator.create_event_mapper(replace(CONTEXT, include_usage=include_usage))
    output = [mapper.on_event(event) for event in dialect.encode_events(response)]
    output += [] if mapper.is_done else [mapper.on_end()]
    *chunks, last_event = [sse.event_data(event) for event in sse.EventSplitter().split(b"".join(output))]
    assert (mapper.is_complete, last_event) == (True, sse.DONE)
    chunk_bodies = [json.loads(chunk) for chunk in chunks]
    for chunk in chunk_bodies:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert ("usage" in chunk_bodies[0], chunk_bodies[-1]["choices"] == []) == (shows_usage, shows_usage)
    content_chunks = [
        chunk for chunk in chunk_bodies if chunk["choices"] and chunk["choices"][0]["finish_reason"] is None
    ]
    assert mapper.content_events == len(content_chunks)
    all_chunks = (
        chunk_bodies if shows_usage else [*chunk_bodies, {"choices": [], "usage": json.loads(mapper.usage or "")}]
    )
    assert parse_chunks(all_chunks) == expected_response(dialect, response)


@every_vendor
@PROPERTY_SETTINGS
@given(response=calls.responses())
def test_assistant_turn_sent_back_equals_the_vendor_s_turn(dialect: Dialect, response: Any) -> None:
    turn = json.loads(dialect.translator.map_response(dialect.encode_response(response), CONTEXT).body)["choices"][0][
        "message"
    ]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in response.calls]
    question = {"role": "user", "content": "go"}
    body = {"model": dialect.model, "max_tokens": 9, "messages": [question, turn, *results, question]}
    if response.calls:
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in {c.name for c in response.calls}]
    sent = json.loads(dialect.translator.build_request(chat(dialect, body)).body or b"")
    assert dialect.model_turn(json.loads(dialect.encode_response(response))) in dialect.model_turns(sent)
