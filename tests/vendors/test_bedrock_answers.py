"""Response fields of Bedrock without an OpenAI equivalent: returned as extension and accepted in the next request."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiserver.providers.adapters.bedrock import BEDROCK
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.bedrock_events import CONTEXT, request_body
from tests.vendors.conversations import user
from tests.vendors.semantics import Response


def map_response(**members: Any) -> Any:
    response = json.loads(BedrockDialect().encode_response(Response("Hi"))) | members
    return json.loads(BEDROCK.map_response(json.dumps(response).encode(), CONTEXT).body)


def message_with(*content: Any) -> dict[str, Any]:
    return {"output": {"message": {"role": "assistant", "content": list(content)}}}


def test_usage_counts_all_input_tokens_and_keeps_vendor_fields() -> None:
    details = [{"ttl": "1h", "inputTokens": 30}]
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 65, "cacheReadInputTokens": 20}
    cache_usage = {"cacheWriteInputTokens": 30, "cacheDetails": details}
    response = map_response(usage=usage | cache_usage, serviceTier={"type": "flex"}, trace={})
    assert response["usage"] == {
        "prompt_tokens": 60,
        "completion_tokens": 5,
        "total_tokens": 65,
        "prompt_tokens_details": {"cached_tokens": 20},
    }
    assert response["bedrock"] == {"metrics": {"latencyMs": 12}, "serviceTier": {"type": "flex"}, "usage": cache_usage}


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("stop_sequence", "stop"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("of_next_year", "stop"),
    ],
)
def test_stop_reason_without_openai_equivalent_is_kept_as_extension(stop_reason: str, finish: str) -> None:
    response = map_response(stopReason=stop_reason)
    assert (response["choices"][0]["finish_reason"], response["bedrock"]["stopReason"]) == (finish, stop_reason)


def test_unsigned_reasoning_is_returned_as_reasoning_content_only() -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "Hm."}}}
    message = map_response(**message_with(thought, {"text": "Yes"}))["choices"][0]["message"]
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
def test_block_without_openai_equivalent_round_trips(block: Any) -> None:
    message = map_response(**message_with({"text": "Yes"}, block))["choices"][0]["message"]
    assert (message["content"], message.get("tool_calls")) == (
        "Yes" + ("So" if "citationsContent" in block else ""),
        None,
    )
    assert message["bedrock"]["content"] == [{"text": "Yes"}, block]
    assert request_body(messages=[user(), message])["messages"][1]["content"] == [{"text": "Yes"}, block]


def test_single_tool_call_keeps_only_the_first_of_several() -> None:
    first, second = ({"toolUse": {"toolUseId": id, "name": "f", "input": {}}} for id in "ab")
    reasoning = {"reasoningContent": {"reasoningText": {"text": "", "signature": "c2ln"}}}
    response = json.loads(BedrockDialect().encode_response(Response("Hi"))) | message_with(
        reasoning, first, second, {"text": "So"}
    )
    for is_single in (False, True):
        mapped = BEDROCK.map_response(json.dumps(response).encode(), replace(CONTEXT, single_tool_call=is_single))
        message = json.loads(mapped.body)["choices"][0]["message"]
        calls = [first] if is_single else [first, second]
        assert [call["id"] for call in message["tool_calls"]] == [call["toolUse"]["toolUseId"] for call in calls]
        assert message["bedrock"]["content"] == [reasoning, *calls, {"text": "So"}]
