"""What only Gemini's streams do: each event is a whole answer of what is new, and none says that it was the last."""

import json
from typing import Any

import pytest

from aiserver.errors import ProviderResponse
from aiserver.providers.google import GOOGLE
from aiserver.providers.google.stream import GoogleEvents
from aiserver.providers.translation.adapter import ResponseContext, VendorError
from aiserver.wire import sse
from tests.vendors.google_calls import chat

BORN = ResponseContext(1_700_000_000, lambda: "call_born")
USED = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"text": said, **more}


def candidate(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": list(parts)}, **more}


def event(*candidates: dict[str, Any], **more: Any) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps({"responseId": "r", "candidates": list(candidates), **more}).encode()


def begun(**more: Any) -> GoogleEvents:
    return GOOGLE.create_event_mapper(chat(stream=True, **more), BORN)


def chunks(told: bytes) -> list[dict[str, Any]]:
    events = [sse.event_data(one) for one in sse.EventSplitter().split(told)]
    return [json.loads(one) for one in events if one != sse.DONE]


def heard(*events: bytes, **more: Any) -> list[dict[str, Any]]:
    """All that is told of a whole stream."""
    stream = begun(**more)
    told = b"".join(stream.on_event(one) for one in events)
    assert stream.is_complete
    return chunks(told + stream.on_end())


def deltas(told: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in told for choice in chunk["choices"] if choice["index"] == index]


def test_nothing_is_told_before_the_first_word() -> None:
    stream = begun()
    assert stream.on_event(event(usageMetadata=USED)) == b""
    assert stream.on_event(event(candidate(text("")))) == b""
    assert (stream.content_events, stream.request_id) == (0, "r")
    [first] = chunks(stream.on_event(event(candidate(text("It")))))
    assert (first["id"], first["choices"][0]["delta"]) == ("r", {"role": "assistant", "content": "It"})


def test_it_goes_on_where_a_reason_to_end_stands_in_each_event() -> None:
    told = heard(event(candidate(text("It"), finishReason="STOP")), event(candidate(text(" is"), finishReason="STOP")))
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in told]
    assert ("".join(delta.get("content", "") for delta in deltas(told)), finishes) == ("It is", [None, None, "stop"])


def test_an_answer_without_a_reason_to_end_is_not_whole() -> None:
    stream = begun()
    stream.on_event(event(candidate(text("It"))))
    assert not stream.is_complete


def test_calls_come_whole_with_their_place_and_their_signature() -> None:
    first = {"functionCall": {"name": "f", "args": {"a": 1.5}}, "thoughtSignature": "c2ln"}
    second = {"functionCall": {"id": "c2", "name": "g"}}
    told = heard(event(candidate(first, second)), event(candidate(text(""), finishReason="STOP")))
    calls = [call for delta in deltas(told) for call in delta.get("tool_calls", ())]
    assert calls[0] == {
        "index": 0,
        "id": "call_born",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": 1.5}'},
        "google": {"thoughtSignature": "c2ln"},
    }
    assert (calls[1]["index"], calls[1]["id"], calls[1]["function"]["arguments"]) == (1, "c2", "{}")
    assert told[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "google" not in deltas(told)[-1]


def test_parts_come_whole_at_the_end_and_texts_are_joined_up_to_a_signature() -> None:
    told = heard(
        event(candidate(text("Hm", thought=True))),
        event(candidate(text(".", thought=True), text("It"))),
        event(candidate(text(" is"))),
        event(candidate(text("", thoughtSignature="c2ln"), finishReason="STOP")),
    )
    assert deltas(told)[-1]["google"]["parts"] == [
        {"text": "Hm.", "thought": True},
        {"text": "It is"},
        {"text": "", "thoughtSignature": "c2ln"},
    ]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas(told)) == "Hm."


def test_several_candidates_end_each_by_itself() -> None:
    stream = begun(n=2)
    said = stream.on_event(event(candidate(text("A"), index=0), candidate(text("B"), index=1)))
    said += stream.on_event(event(candidate(index=0, finishReason="STOP")))
    assert not stream.is_complete
    said += stream.on_event(event(candidate(index=1, finishReason="SAFETY"), usageMetadata=USED))
    assert stream.is_complete
    told = chunks(said + stream.on_end())
    assert [deltas(told, i)[0]["content"] for i in (0, 1)] == ["A", "B"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in told[-2:]] == ["stop", "content_filter"]
    assert told[-1]["google"] == {"candidates": [{"index": 1, "finishReason": "SAFETY"}]}
    assert stream.usage is not None
    assert json.loads(stream.usage)["total_tokens"] == 8


def test_fewer_candidates_than_asked_for_are_an_answer_and_words_that_are_blocked_end_so() -> None:
    stream = begun(n=2)
    stream.on_event(event(candidate(text("A"), finishReason="STOP")))
    assert stream.is_complete
    told = heard(event(candidate(text("A"))), event(promptFeedback={"blockReason": "SAFETY"}))
    assert [choice["finish_reason"] for chunk in told for choice in chunk["choices"]] == [None, "content_filter"]


@pytest.mark.parametrize(
    ("before", "billed"),
    [
        ([], False),
        ([event(candidate({"executableCode": {"code": "1"}}))], True),
        ([event(candidate(), usageMetadata={"candidatesTokenCount": 5})], True),
        ([event(candidate(), usageMetadata={"promptTokenCount": 5})], False),
    ],
)
def test_what_fails_after_work_was_done_may_be_billed(before: list[bytes], billed: bool) -> None:
    stream = begun()
    for one in before:
        stream.on_event(one)
    with pytest.raises(VendorError) as failed:
        stream.on_event(event(error={"code": 503, "message": "x", "status": "UNAVAILABLE"}))
    assert failed.value.has_content is billed


def test_an_error_that_is_null_is_none() -> None:
    assert heard(event(candidate(text("A"), finishReason="STOP"), error=None))


def test_a_blocked_prompt_ends_the_stream_without_a_word() -> None:
    feedback = {"blockReason": "SAFETY"}
    told = heard(event(promptFeedback=feedback, usageMetadata={"promptTokenCount": 3}))
    assert [choice["finish_reason"] for chunk in told for choice in chunk["choices"]] == ["content_filter"]
    assert told[0]["google"] == {"promptFeedback": feedback}


def test_log_probabilities_come_with_the_words_they_are_of() -> None:
    result = {"chosenCandidates": [{"token": "It", "logProbability": -0.25}]}
    late = {"chosenCandidates": [{"token": ".", "logProbability": -1}]}
    told = heard(
        event(candidate(text("It"), logprobsResult=result)),
        event(candidate(text(""), logprobsResult=late, finishReason="STOP")),
        logprobs=True,
    )
    words = [[one["token"] for one in chunk["choices"][0]["logprobs"]["content"]] for chunk in told]
    assert words == [["It"], ["."]]


@pytest.mark.parametrize("said", [b'{"error": %b}', b'[{"error": %b}]'])
def test_a_failure_in_the_middle_is_one_however_it_comes(said: bytes) -> None:
    stream = begun()
    stream.on_event(event(candidate(text("It"))))
    error = json.dumps({"code": 503, "message": "Too many", "status": "UNAVAILABLE"}).encode()
    with pytest.raises(VendorError) as failure:
        stream.on_event(b"data: %b\n\n" % (said % error))
    assert failure.value.has_content
    told = GOOGLE.map_error(ProviderResponse(200, {}, failure.value.body))
    assert (told.status, json.loads(told.body)["error"]["code"]) == (503, "UNAVAILABLE")


def test_a_turn_that_went_wrong_fails_before_the_first_word_and_after() -> None:
    with pytest.raises(VendorError) as silent:
        begun().on_event(event(candidate(finishReason="OTHER")))
    assert not silent.value.has_content
    stream = begun()
    stream.on_event(event(candidate(text("It"))))
    with pytest.raises(VendorError) as late:
        stream.on_event(event(candidate(finishReason="MALFORMED_FUNCTION_CALL", finishMessage="No such call")))
    told = json.loads(GOOGLE.map_error(ProviderResponse(200, {}, late.value.body)).body)
    assert (late.value.has_content, told["error"]["message"]) == (True, "No such call")


def test_other_reasons_after_words_are_an_end() -> None:
    told = heard(event(candidate(text("It"))), event(candidate(finishReason="OTHER")))
    assert told[-1]["google"] == {"candidates": [{"finishReason": "OTHER"}]}
