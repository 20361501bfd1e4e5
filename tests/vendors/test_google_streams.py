"""Gemini's streams: each event is a complete response with the new parts, and no event marks the end."""

import json
from typing import Any

import pytest

from aiserver.providers.adapters.base.adapter import ResponseContext, VendorError
from aiserver.providers.adapters.google import GOOGLE
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import EventMapper
from aiserver.wire import sse

CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born")
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}


def text(content: str, **fields: Any) -> dict[str, Any]:
    return {"text": content, **fields}


def candidate(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": list(parts)}, **fields}


def event(*candidates: dict[str, Any], **fields: Any) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps({"responseId": "r", "candidates": list(candidates), **fields}).encode()


def create_mapper() -> EventMapper:
    return GOOGLE.create_event_mapper(CONTEXT)


def chunks(output: bytes) -> list[dict[str, Any]]:
    events = [sse.event_data(data) for data in sse.EventSplitter().split(output)]
    return [json.loads(data) for data in events if data != sse.DONE]


def map_stream(*events: bytes) -> list[dict[str, Any]]:
    """The chunks of a complete stream of these events."""
    mapper = create_mapper()
    output = b"".join(mapper.on_event(event) for event in events)
    assert mapper.is_complete
    return chunks(output + mapper.on_end())


def deltas(chunk_list: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunk_list for choice in chunk["choices"] if choice["index"] == index]


def test_events_before_the_first_text_produce_no_chunk() -> None:
    mapper = create_mapper()
    assert mapper.on_event(event(usageMetadata=USAGE)) == b""
    assert mapper.on_event(event(candidate(text("")))) == b""
    assert (mapper.content_events, mapper.request_id) == (0, "r")
    [first] = chunks(mapper.on_event(event(candidate(text("It")))))
    assert (first["id"], first["choices"][0]["delta"]) == ("r", {"role": "assistant", "content": "It"})


def test_finish_reason_in_each_event_does_not_end_the_stream() -> None:
    chunk_list = map_stream(
        event(candidate(text("It"), finishReason="STOP")), event(candidate(text(" is"), finishReason="STOP"))
    )
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunk_list]
    assert ("".join(delta.get("content", "") for delta in deltas(chunk_list)), finishes) == (
        "It is",
        [None, None, "stop"],
    )


def test_stream_without_finish_reason_is_incomplete() -> None:
    mapper = create_mapper()
    mapper.on_event(event(candidate(text("It"))))
    assert not mapper.is_complete


def test_function_calls_are_sent_with_index_and_signature() -> None:
    first = {"functionCall": {"name": "f", "args": {"a": 1.5}}, "thoughtSignature": "c2ln"}
    second = {"functionCall": {"id": "c2", "name": "g"}}
    chunk_list = map_stream(event(candidate(first, second)), event(candidate(text(""), finishReason="STOP")))
    calls = [call for delta in deltas(chunk_list) for call in delta.get("tool_calls", ())]
    assert calls[0] == {
        "index": 0,
        "id": "call_born",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": 1.5}'},
        "google": {"thoughtSignature": "c2ln"},
    }
    assert (calls[1]["index"], calls[1]["id"], calls[1]["function"]["arguments"]) == (1, "c2", "{}")
    assert chunk_list[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "google" not in deltas(chunk_list)[-1]


def test_parts_are_sent_at_the_end_with_texts_joined_up_to_a_signature() -> None:
    chunk_list = map_stream(
        event(candidate(text("Hm", thought=True))),
        event(candidate(text(".", thought=True), text("It"))),
        event(candidate(text(" is"))),
        event(candidate(text("", thoughtSignature="c2ln"), finishReason="STOP")),
    )
    assert deltas(chunk_list)[-1]["google"]["parts"] == [
        {"text": "Hm.", "thought": True},
        {"text": "It is"},
        {"text": "", "thoughtSignature": "c2ln"},
    ]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas(chunk_list)) == "Hm."


def test_candidates_finish_independently() -> None:
    mapper = create_mapper()
    output = mapper.on_event(event(candidate(text("A"), index=0), candidate(text("B"), index=1)))
    output += mapper.on_event(event(candidate(index=0, finishReason="STOP")))
    assert not mapper.is_complete
    output += mapper.on_event(event(candidate(index=1, finishReason="SAFETY"), usageMetadata=USAGE))
    assert mapper.is_complete
    chunk_list = chunks(output + mapper.on_end())
    assert [deltas(chunk_list, i)[0]["content"] for i in (0, 1)] == ["A", "B"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunk_list[-2:]] == ["stop", "content_filter"]
    assert chunk_list[-1]["google"] == {"candidates": [{"index": 1, "finishReason": "SAFETY"}]}
    assert mapper.usage is not None
    assert json.loads(mapper.usage)["total_tokens"] == 8


def test_missing_candidate_or_blocked_output_completes_the_stream() -> None:
    mapper = create_mapper()
    mapper.on_event(event(candidate(text("A"), finishReason="STOP")))
    assert mapper.is_complete
    chunk_list = map_stream(event(candidate(text("A"))), event(promptFeedback={"blockReason": "SAFETY"}))
    assert [choice["finish_reason"] for chunk in chunk_list for choice in chunk["choices"]] == [None, "content_filter"]


@pytest.mark.parametrize(
    ("events", "may_be_billed"),
    [
        ([], False),
        ([event(candidate({"executableCode": {"code": "1"}}))], True),
        ([event(candidate(), usageMetadata={"candidatesTokenCount": 5})], True),
        ([event(candidate(), usageMetadata={"promptTokenCount": 5})], False),
    ],
)
def test_stream_error_is_billable_only_after_output(events: list[bytes], may_be_billed: bool) -> None:
    mapper = create_mapper()
    for earlier_event in events:
        mapper.on_event(earlier_event)
    with pytest.raises(VendorError) as failed:
        mapper.on_event(event(error={"code": 503, "message": "x", "status": "UNAVAILABLE"}))
    assert failed.value.has_content is may_be_billed


def test_null_error_is_ignored() -> None:
    assert map_stream(event(candidate(text("A"), finishReason="STOP"), error=None))


def test_blocked_prompt_ends_the_stream_without_content() -> None:
    feedback = {"blockReason": "SAFETY"}
    chunk_list = map_stream(event(promptFeedback=feedback, usageMetadata={"promptTokenCount": 3}))
    assert [choice["finish_reason"] for chunk in chunk_list for choice in chunk["choices"]] == ["content_filter"]
    assert chunk_list[0]["google"] == {"promptFeedback": feedback}


def test_logprobs_are_sent_with_their_tokens() -> None:
    first_logprobs = {"chosenCandidates": [{"token": "It", "logProbability": -0.25}]}
    last_logprobs = {"chosenCandidates": [{"token": ".", "logProbability": -1}]}
    chunk_list = map_stream(
        event(candidate(text("It"), logprobsResult=first_logprobs)),
        event(candidate(text(""), logprobsResult=last_logprobs, finishReason="STOP")),
    )
    token_lists = [[entry["token"] for entry in chunk["choices"][0]["logprobs"]["content"]] for chunk in chunk_list]
    assert token_lists == [["It"], ["."]]


@pytest.mark.parametrize("template", [b'{"error": %b}', b'[{"error": %b}]'])
def test_error_within_a_stream_is_raised_in_either_form(template: bytes) -> None:
    mapper = create_mapper()
    mapper.on_event(event(candidate(text("It"))))
    error = json.dumps({"code": 503, "message": "Too many", "status": "UNAVAILABLE"}).encode()
    with pytest.raises(VendorError) as failure:
        mapper.on_event(b"data: %b\n\n" % (template % error))
    assert failure.value.has_content
    response = GOOGLE.map_error(ProviderResponse(200, {}, failure.value.body))
    assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "UNAVAILABLE")


def test_failed_turn_is_an_error_before_and_after_the_first_text() -> None:
    with pytest.raises(VendorError) as early:
        create_mapper().on_event(event(candidate(finishReason="OTHER")))
    assert not early.value.has_content
    mapper = create_mapper()
    mapper.on_event(event(candidate(text("It"))))
    with pytest.raises(VendorError) as late:
        mapper.on_event(event(candidate(finishReason="MALFORMED_FUNCTION_CALL", finishMessage="No such call")))
    body = json.loads(GOOGLE.map_error(ProviderResponse(200, {}, late.value.body)).body)
    assert (late.value.has_content, body["error"]["message"]) == (True, "No such call")


def test_other_finish_reason_after_text_ends_the_stream() -> None:
    chunk_list = map_stream(event(candidate(text("It"))), event(candidate(finishReason="OTHER")))
    assert chunk_list[-1]["google"] == {"candidates": [{"finishReason": "OTHER"}]}
