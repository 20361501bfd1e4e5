"""What Bedrock answers beyond OpenAI's words is told beside them, and can be sent back."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiserver.providers.bedrock import BEDROCK
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.bedrock_events import BORN, sent
from tests.vendors.conversations import user
from tests.vendors.semantics import Answer


def answered(**more: Any) -> Any:
    said = json.loads(BedrockDialect().message(Answer("Hi"))) | more
    return json.loads(BEDROCK.map_response(json.dumps(said).encode(), BORN).body)


def said_by(*content: Any) -> dict[str, Any]:
    return {"output": {"message": {"role": "assistant", "content": list(content)}}}


def test_all_input_tokens_are_counted_and_what_openai_has_no_words_for_is_kept() -> None:
    details = [{"ttl": "1h", "inputTokens": 30}]
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 65, "cacheReadInputTokens": 20}
    more = {"cacheWriteInputTokens": 30, "cacheDetails": details}
    told = answered(usage=usage | more, serviceTier={"type": "flex"}, trace={})
    assert told["usage"] == {
        "prompt_tokens": 60,
        "completion_tokens": 5,
        "total_tokens": 65,
        "prompt_tokens_details": {"cached_tokens": 20},
    }
    assert told["bedrock"] == {"metrics": {"latencyMs": 12}, "serviceTier": {"type": "flex"}, "usage": more}


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("stop_sequence", "stop"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("of_next_year", "stop"),
    ],
)
def test_a_reason_that_openai_has_no_word_for_is_told_beside_its(stop_reason: str, finish: str) -> None:
    told = answered(stopReason=stop_reason)
    assert (told["choices"][0]["finish_reason"], told["bedrock"]["stopReason"]) == (finish, stop_reason)


def test_reasoning_that_nothing_is_signed_of_is_told_in_words_only() -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "Hm."}}}
    message = answered(**said_by(thought, {"text": "Yes"}))["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"], "bedrock" in message) == ("Hm.", "Yes", False)


@pytest.mark.parametrize(
    "block",
    [
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}},
        {"citationsContent": {"content": [{"text": "So"}], "citations": [{"title": "t"}]}},
        {"toolUse": {"toolUseId": "s", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
        {"toolResult": {"toolUseId": "s", "content": [{"json": {"a": 1}}], "type": "nova_grounding_result"}},
        {"image": {"format": "png", "source": {"bytes": "aGk="}}},
    ],
)
def test_a_block_that_openai_has_no_words_for_comes_back_and_goes_out_again(block: Any) -> None:
    message = answered(**said_by({"text": "Yes"}, block))["choices"][0]["message"]
    assert (message["content"], message.get("tool_calls")) == (
        "Yes" + ("So" if "citationsContent" in block else ""),
        None,
    )
    assert message["bedrock"]["content"] == [{"text": "Yes"}, block]
    assert sent(messages=[user(), message])["messages"][1]["content"] == [{"text": "Yes"}, block]


def test_of_several_calls_the_first_is_told_to_who_wants_one() -> None:
    first, second = ({"toolUse": {"toolUseId": id, "name": "f", "input": {}}} for id in "ab")
    signed = {"reasoningContent": {"reasoningText": {"text": "", "signature": "c2ln"}}}
    said = json.loads(BedrockDialect().message(Answer("Hi"))) | said_by(signed, first, second, {"text": "So"})
    for one_call in (False, True):
        told = BEDROCK.map_response(json.dumps(said).encode(), replace(BORN, single_tool_call=one_call))
        message = json.loads(told.body)["choices"][0]["message"]
        calls = [first] if one_call else [first, second]
        assert [call["id"] for call in message["tool_calls"]] == [call["toolUse"]["toolUseId"] for call in calls]
        assert message["bedrock"]["content"] == [signed, *calls, {"text": "So"}]
