"""What both sides know is lost by no translation: of a request there, of an answer back, whole or in pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.chat import Chat
from aiserver.wire import sse
from tests.examples import examples
from tests.vendors import calls
from tests.vendors.dialect import Dialect, told_by
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.semantics import of_chunks, of_completion, of_openai

UNTIMED = settings(max_examples=examples(60))
BORN = ResponseContext(1_700_000_000, lambda: "call_born", id="chatcmpl-born", model="model-born")
every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)


def chat(dialect: Dialect, body: dict[str, Any]) -> Chat:
    return Chat(json.dumps(body).encode(), dialect.vendor.capabilities)


@every_vendor
@UNTIMED
@given(data=st.data())
def test_a_vendor_hears_all_that_was_asked(dialect: Dialect, data: st.DataObject) -> None:
    body = data.draw(calls.requests(dialect))
    heard = dialect.read(dialect.vendor.build_request(chat(dialect, body)))
    assert heard == of_openai(body)


@every_vendor
@UNTIMED
@given(answer=calls.answers())
def test_a_caller_hears_all_that_was_answered(dialect: Dialect, answer: Any) -> None:
    told = dialect.vendor.map_response(dialect.message(answer), BORN)
    completion = json.loads(told.body)
    assert of_completion(completion) == told_by(dialect, answer)
    assert ChatCompletion.model_validate(completion, strict=True).created == BORN.created_s
    assert json.loads(told.usage or "") == completion["usage"]


@every_vendor
@UNTIMED
@given(answer=calls.answers(), shows_usage=st.booleans())
def test_a_caller_hears_all_of_a_stream(dialect: Dialect, answer: Any, shows_usage: bool) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [], "stream": True}
    options = {"stream_options": {"include_usage": True}} if shows_usage else {}
    events = dialect.vendor.create_event_mapper(chat(dialect, body | options), BORN)
    told = [events.on_event(event) for event in dialect.events(answer)]
    told += [] if events.is_done else [events.on_end()]
    *chunks, last = [sse.event_data(event) for event in sse.EventSplitter().split(b"".join(told))]
    assert (events.is_complete, last) == (True, sse.DONE)
    said = [json.loads(chunk) for chunk in chunks]
    for chunk in said:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert ("usage" in said[0], said[-1]["choices"] == []) == (shows_usage, shows_usage)
    pieces = [chunk for chunk in said if chunk["choices"] and chunk["choices"][0]["finish_reason"] is None]
    assert events.content_events == len(pieces)
    whole = said if shows_usage else [*said, {"choices": [], "usage": json.loads(events.usage or "")}]
    assert of_chunks(whole) == told_by(dialect, answer)


@every_vendor
@UNTIMED
@given(answer=calls.answers())
def test_a_turn_that_is_sent_back_as_it_was_answered_is_the_same_again(dialect: Dialect, answer: Any) -> None:
    turn = json.loads(dialect.vendor.map_response(dialect.message(answer), BORN).body)["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in answer.calls]
    asked = {"role": "user", "content": "go"}
    body = {"model": dialect.model, "max_tokens": 9, "messages": [asked, turn, *results, asked]}
    if answer.calls:
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in {c.name for c in answer.calls}]
    sent = json.loads(dialect.vendor.build_request(chat(dialect, body)).body or b"")
    assert dialect.turn(json.loads(dialect.message(answer))) in dialect.turns(sent)
