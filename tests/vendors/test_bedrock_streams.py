"""Bedrock's streams: start, end, and content blocks assembled from deltas."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.bedrock import BEDROCK
from aiserver.wire import sse
from tests.vendors.bedrock_events import CONTEXT, MESSAGE_START, delta, start, stop


def map_stream(
    *events: dict[str, Any], is_complete: bool = True, context: ResponseContext = CONTEXT
) -> list[dict[str, Any]]:
    """The chunks that a caller gets."""
    mapper = BEDROCK.create_event_mapper(context)
    output = b"".join(mapper.on_event(sse.format_event(json.dumps(event).encode())) for event in events)
    assert mapper.is_complete == is_complete
    output += b"" if mapper.is_done or not is_complete else mapper.on_end()
    chunks = [sse.event_data(event) for event in sse.EventSplitter().split(output)]
    assert not is_complete or chunks.pop() == sse.DONE
    return [json.loads(chunk) for chunk in chunks]


def test_events_before_the_first_text_produce_no_chunk() -> None:
    events = [MESSAGE_START, {"ofNextYear": {}}, start(0), delta(0, text=""), delta(0, ofNextYear={"a": 1})]
    assert map_stream(*events, is_complete=False) == []


def test_end_waits_for_the_metadata_and_is_sent_without_it() -> None:
    fields = {"additionalModelResponseFields": {"stop_sequence": "X"}}
    usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    metadata = {"metadata": {"usage": usage, "metrics": {"latencyMs": 9}, "p": "abc"}}
    events = [MESSAGE_START, delta(0, text="Hi"), stop("stop_sequence", p="abcd", **fields)]
    _, end = map_stream(*events, metadata)
    assert end["bedrock"] == {"stopReason": "stop_sequence", "metrics": {"latencyMs": 9}, **fields}
    _, end = map_stream(*events)
    assert (end["bedrock"], end["choices"][0]["finish_reason"]) == (
        {"stopReason": "stop_sequence", **fields},
        "stop",
    )


def test_metadata_before_the_stop_does_not_end_the_stream() -> None:
    chunks = map_stream({"metadata": {"metrics": {"latencyMs": 9}}}, delta(0, text="Hi"), stop())
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


def test_tool_call_without_input_gets_empty_arguments() -> None:
    tool_start = start(1, toolUse={"toolUseId": "t", "name": "get_time"})
    _, call_chunk, arguments_chunk, _ = map_stream(MESSAGE_START, delta(0, text="So"), tool_start, stop("tool_use"))
    assert call_chunk["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "get_time", "arguments": ""}
    assert arguments_chunk["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": "{}"}}]
    chunks = map_stream(tool_start, {"contentBlockStop": {"contentBlockIndex": 1}}, stop("tool_use"))
    assert len(chunks) == 3


def test_truncated_tool_input_is_forwarded_and_not_in_the_extension() -> None:
    reasoning = delta(0, reasoningContent={"text": "Hm.", "signature": "c2ln"})
    tool_start = start(1, toolUse={"toolUseId": "t", "name": "f"})
    chunks = map_stream(
        MESSAGE_START, reasoning, tool_start, delta(1, toolUse={"input": '{"a": "lon'}), stop("max_tokens")
    )
    content = chunks[-1]["choices"][0]["delta"]["bedrock"]["content"]
    assert [next(iter(block)) for block in content] == ["reasoningContent"]
    assert chunks[-2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a": "lon'


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
def test_block_without_openai_equivalent_is_assembled_from_deltas(events: list[Any], block: Any) -> None:
    *_, end = map_stream(MESSAGE_START, *events, delta(1, text="Hi"), start(2), stop())
    message = {"role": "assistant", "content": "Hi", **end["choices"][0]["delta"]}
    assert message["bedrock"]["content"] == [block, {"text": "Hi"}]
    assert all("tool_calls" not in chunk["choices"][0]["delta"] for chunk in [end])


def test_unsigned_reasoning_is_sent_as_reasoning_content_only() -> None:
    first, _, end = map_stream(delta(0, reasoningContent={"text": "Hm."}), delta(1, text="Yes"), stop())
    assert first["choices"][0]["delta"]["reasoning_content"] == "Hm."
    assert end["choices"][0]["delta"] == {}


@pytest.mark.parametrize("is_single", [False, True])
def test_single_tool_call_keeps_only_the_first_of_several(is_single: bool) -> None:
    tool_starts = [start(i, toolUse={"toolUseId": id, "name": "f"}) for i, id in ((1, "a"), (2, "b"))]
    tool_inputs = [delta(i, toolUse={"input": '{"x": 1}'}) for i in (1, 2)]
    signature = delta(0, reasoningContent={"signature": "c2ln"})
    chunks = map_stream(
        signature, *tool_starts, *tool_inputs, stop("tool_use"), context=replace(CONTEXT, single_tool_call=is_single)
    )
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert {call["index"] for call in calls} == ({0} if is_single else {0, 1})
    assert len(chunks[-1]["choices"][0]["delta"]["bedrock"]["content"]) == (2 if is_single else 3)
