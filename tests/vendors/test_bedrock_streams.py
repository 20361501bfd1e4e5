"""Streams of Bedrock's: when they begin and end, and blocks that come in pieces."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiserver.providers.bedrock import BEDROCK
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.chat import Chat
from aiserver.wire import sse
from tests.vendors.bedrock_events import BEGIN, BORN, delta, start, stop


def streamed(*events: dict[str, Any], ended: bool = True, born: ResponseContext = BORN) -> list[dict[str, Any]]:
    """The chunks that a caller gets."""
    told = BEDROCK.create_event_mapper(Chat(b'{"messages":[]}', BEDROCK.capabilities), born)
    came = b"".join(told.on_event(sse.format_event(json.dumps(event).encode())) for event in events)
    assert told.is_complete == ended
    came += b"" if told.is_done or not ended else told.on_end()
    chunks = [sse.event_data(event) for event in sse.EventSplitter().split(came)]
    assert not ended or chunks.pop() == sse.DONE
    return [json.loads(chunk) for chunk in chunks]


def test_nothing_is_told_before_the_first_word() -> None:
    before = [BEGIN, {"ofNextYear": {}}, start(0), delta(0, text=""), delta(0, ofNextYear={"a": 1})]
    assert streamed(*before, ended=False) == []


def test_the_end_waits_for_the_metadata_and_comes_without_it_all_the_same() -> None:
    fields = {"additionalModelResponseFields": {"stop_sequence": "X"}}
    usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    metadata = {"metadata": {"usage": usage, "metrics": {"latencyMs": 9}, "p": "abc"}}
    said = [BEGIN, delta(0, text="Hi"), stop("stop_sequence", p="abcd", **fields)]
    _, end = streamed(*said, metadata)
    assert end["bedrock"] == {"stopReason": "stop_sequence", "metrics": {"latencyMs": 9}, **fields}
    _, end = streamed(*said)
    assert (end["bedrock"], end["choices"][0]["finish_reason"]) == (
        {"stopReason": "stop_sequence", **fields},
        "stop",
    )


def test_metadata_before_the_end_does_not_end_it() -> None:
    told = streamed({"metadata": {"metrics": {"latencyMs": 9}}}, delta(0, text="Hi"), stop())
    assert [chunk["choices"][0]["finish_reason"] for chunk in told] == [None, "stop"]


def test_a_call_of_nothing_is_told_whole_though_its_block_does_not_stop() -> None:
    called = start(1, toolUse={"toolUseId": "t", "name": "get_time"})
    _, begun, argued, _ = streamed(BEGIN, delta(0, text="So"), called, stop("tool_use"))
    assert begun["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "get_time", "arguments": ""}
    assert argued["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": "{}"}}]
    again = streamed(called, {"contentBlockStop": {"contentBlockIndex": 1}}, stop("tool_use"))
    assert len(again) == 3


def test_an_input_that_breaks_off_is_told_as_it_came_and_is_in_no_event_that_is_no_json() -> None:
    thought = delta(0, reasoningContent={"text": "Hm.", "signature": "c2ln"})
    called = start(1, toolUse={"toolUseId": "t", "name": "f"})
    told = streamed(BEGIN, thought, called, delta(1, toolUse={"input": '{"a": "lon'}), stop("max_tokens"))
    content = told[-1]["choices"][0]["delta"]["bedrock"]["content"]
    assert [next(iter(block)) for block in content] == ["reasoningContent"]
    assert told[-2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a": "lon'


@pytest.mark.parametrize(
    ("events", "block"),
    [
        (
            [
                delta(0, reasoningContent={"redactedContent": "YQ=="}),
                delta(0, reasoningContent={"redactedContent": "Yg=="}),
            ],
            {"reasoningContent": {"redactedContent": "YWI="}},
        ),
        (
            [delta(0, reasoningContent={"signature": "c2ln"})],
            {"reasoningContent": {"reasoningText": {"text": "", "signature": "c2ln"}}},
        ),
        (
            [delta(0, citation={"title": "t"}), delta(0, citation={"title": "u"})],
            {"citationsContent": {"content": [{"text": ""}], "citations": [{"title": "t"}, {"title": "u"}]}},
        ),
        (
            [
                start(0, toolUse={"toolUseId": "s", "name": "g", "type": "server_tool_use"}),
                delta(0, toolUse={"input": '{"q": '}),
                delta(0, toolUse={"input": "1.50}"}),
            ],
            {"toolUse": {"toolUseId": "s", "name": "g", "type": "server_tool_use", "input": {"q": 1.5}}},
        ),
        (
            [
                start(0, toolResult={"toolUseId": "s", "status": "success"}),
                delta(0, toolResult=[{"text": "a"}]),
                delta(0, toolResult=[{"json": {"b": 1}}]),
            ],
            {"toolResult": {"toolUseId": "s", "status": "success", "content": [{"text": "a"}, {"json": {"b": 1}}]}},
        ),
        (
            [
                start(0, image={"format": "png"}),
                delta(0, image={"source": {"bytes": "YQ=="}}),
                delta(0, image={"source": {"bytes": "Yg=="}}),
            ],
            {"image": {"format": "png", "source": {"bytes": "YWI="}}},
        ),
        (
            [start(0, image={"format": "png"}), delta(0, image={"source": {"s3Location": {"uri": "s3://b/c"}}})],
            {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/c"}}}},
        ),
    ],
)
def test_a_block_that_openai_has_no_words_for_is_put_together(events: list[Any], block: Any) -> None:
    *_, end = streamed(BEGIN, *events, delta(1, text="Hi"), start(2), stop())
    message = {"role": "assistant", "content": "Hi", **end["choices"][0]["delta"]}
    assert message["bedrock"]["content"] == [block, {"text": "Hi"}]
    assert all("tool_calls" not in chunk["choices"][0]["delta"] for chunk in [end])


def test_reasoning_that_nothing_is_signed_of_is_told_in_words_only() -> None:
    first, _, end = streamed(delta(0, reasoningContent={"text": "Hm."}), delta(1, text="Yes"), stop())
    assert first["choices"][0]["delta"]["reasoning_content"] == "Hm."
    assert end["choices"][0]["delta"] == {}


@pytest.mark.parametrize("one_call", [False, True])
def test_of_several_calls_the_first_is_told_to_who_wants_one(one_call: bool) -> None:
    called = [start(i, toolUse={"toolUseId": id, "name": "f"}) for i, id in ((1, "a"), (2, "b"))]
    argued = [delta(i, toolUse={"input": '{"x": 1}'}) for i in (1, 2)]
    signed = delta(0, reasoningContent={"signature": "c2ln"})
    told = streamed(signed, *called, *argued, stop("tool_use"), born=replace(BORN, single_tool_call=one_call))
    calls = [call for chunk in told for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert {call["index"] for call in calls} == ({0} if one_call else {0, 1})
    assert len(told[-1]["choices"][0]["delta"]["bedrock"]["content"]) == (2 if one_call else 3)
