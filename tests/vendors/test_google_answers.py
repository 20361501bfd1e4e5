"""Responses specific to Gemini: parts, finish reasons, usage, and failures with status 200."""

import json
from typing import Any

import google.genai.types as sdk
import pytest
from openai.types.chat import ChatCompletion

from aiserver.providers.adapters.base.adapter import ResponseContext, VendorError
from aiserver.providers.adapters.google import GOOGLE
from aiserver.providers.response import ProviderResponse
from tests.vendors.google_calls import assistant, request_body, user

CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born")
CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}


def candidate(*parts: dict[str, Any], reason: str = "STOP", **fields: Any) -> dict[str, Any]:
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {**content, "finishReason": reason, **fields}


def map_response(*candidates: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Map a response, validated by the SDK's types, to an OpenAI chat completion."""
    body = json.dumps({"candidates": list(candidates), "responseId": "r", "modelVersion": "m", **fields}).encode()
    sdk.GenerateContentResponse.model_validate_json(body)
    mapped = GOOGLE.map_response(body, CONTEXT)
    assert mapped.request_id == "r"
    completion = json.loads(mapped.body)
    ChatCompletion.model_validate(completion, strict=True)
    return completion


def map_failure(*candidates: dict[str, Any], **fields: Any) -> ProviderResponse:
    body = json.dumps({"candidates": list(candidates), "responseId": "r", **fields}).encode()
    with pytest.raises(VendorError) as failure:
        GOOGLE.map_response(body, CONTEXT)
    assert failure.value.has_content
    return GOOGLE.map_error(ProviderResponse(200, {}, failure.value.body))


def test_function_call_without_id_gets_one_in_tool_calls_and_parts() -> None:
    message = map_response(candidate({"text": "1", "thoughtSignature": "c2ln"}, CALL))["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "call_born", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    assert message["google"]["parts"][1]["functionCall"] == {"name": "f", "args": {"a": 1}, "id": "call_born"}


def test_function_call_arguments_keep_their_numbers() -> None:
    body = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"x": 1.50}}}]}}]}'
    call = json.loads(GOOGLE.map_response(body, CONTEXT).body)["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"x": 1.50}'


def test_null_part_fields_are_ignored() -> None:
    call_part = {"functionCall": {"name": "f", "args": None}, "thoughtSignature": None, "text": None, "thought": None}
    message = json.loads(GOOGLE.map_response(json.dumps({"candidates": [candidate(call_part)]}).encode(), CONTEXT).body)
    assert message["choices"][0]["message"]["tool_calls"] == [
        {"id": "call_born", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_parts_without_openai_equivalent_round_trip() -> None:
    parts = [
        {"text": "Let me see.", "thought": True},
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "c2ln"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"text": "It is 1."},
    ]
    message = map_response(candidate(*parts))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("It is 1.", "Let me see.")
    assert message["google"] == {"parts": parts}
    assert request_body(user(), message)["contents"][1] == {"role": "model", "parts": parts}


def test_unsigned_thoughts_are_returned_and_not_sent_back() -> None:
    message = map_response(candidate({"text": "Hm.", "thought": True}, {"text": "Yes", "thought": False}))["choices"][0]
    assert message["message"] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm.",
        "refusal": None,
    }
    assert request_body(user(), message["message"])["contents"][1]["parts"] == [{"text": "Yes"}]
    assert request_body(user(), assistant(content="Yes", reasoning_content="Hm."))["contents"][1]["parts"] == [
        {"text": "Yes"}
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("OTHER", "stop"),
    ],
)
def test_finish_reason_is_mapped_and_kept_as_extension(reason: str, finish: str) -> None:
    completion = map_response(candidate({"text": "I"}, reason=reason, index=0))
    assert completion["choices"][0]["finish_reason"] == finish
    extension = completion.get("google", {}).get("candidates")
    assert extension == (
        None if finish == "length" and reason == "MAX_TOKENS" else [{"finishReason": reason, "index": 0}]
    )


def test_truncated_function_call_finishes_with_length() -> None:
    assert map_response(candidate(CALL))["choices"][0]["finish_reason"] == "tool_calls"
    assert map_response(candidate(CALL, reason="MAX_TOKENS"))["choices"][0]["finish_reason"] == "length"


def test_unknown_finish_reason_is_stop_and_kept_as_extension() -> None:
    body = json.dumps({"candidates": [candidate({"text": "I"}, reason="BORED")]}).encode()
    completion = json.loads(GOOGLE.map_response(body, CONTEXT).body)
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["google"] == {"candidates": [{"finishReason": "BORED"}]}


def test_blocked_prompt_is_a_content_filter_response_without_content() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
    completion = map_response(promptFeedback=feedback, usageMetadata={"promptTokenCount": 7})
    assert completion["choices"][0]["finish_reason"] == "content_filter"
    assert (completion["choices"][0]["message"]["content"], completion["usage"]["prompt_tokens"]) == (None, 7)
    assert completion["google"] == {"promptFeedback": feedback}


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("MALFORMED_FUNCTION_CALL", 500),
        ("UNEXPECTED_TOOL_CALL", 500),
        ("TOO_MANY_TOOL_CALLS", 500),
        ("MALFORMED_RESPONSE", 500),
        ("MISSING_THOUGHT_SIGNATURE", 400),
        ("OTHER", 500),
        ("NO_IMAGE", 500),
    ],
)
def test_failed_turn_is_an_error_with_its_reason(reason: str, status: int) -> None:
    error = map_failure(candidate(reason=reason, finishMessage="It went wrong"), usageMetadata=USAGE)
    body = json.loads(error.body)
    assert (error.status, body["error"]["code"], body["error"]["message"]) == (status, reason, "It went wrong")
    assert body["google"]["usageMetadata"] == USAGE


def test_error_body_with_status_200_is_an_error() -> None:
    quota = {"code": 429, "message": "Slowly", "status": "RESOURCE_EXHAUSTED"}
    assert map_failure(error=quota).status == 429


def test_candidates_become_choices() -> None:
    first, second = candidate({"text": "1"}, index=0), candidate({"text": "2"}, index=1, reason="SAFETY")
    completion = map_response(second, first)
    assert [choice["message"]["content"] for choice in completion["choices"]] == ["1", "2"]
    assert completion["google"]["candidates"][1] == {"finishReason": "SAFETY", "index": 1}


def test_usage_is_counted_as_openai_does() -> None:
    details = [{"modality": "TEXT", "tokenCount": 3}]
    usage = {**USAGE, "toolUsePromptTokenCount": 2, "thoughtsTokenCount": 4, "cachedContentTokenCount": 1}
    completion = map_response(candidate({"text": "I"}), usageMetadata={**usage, "promptTokensDetails": details})
    assert completion["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 9,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert completion["google"] == {"usageMetadata": {"promptTokensDetails": details}}


def test_grounding_metadata_is_kept_as_extension() -> None:
    grounding = {"webSearchQueries": ["rome"]}
    completion = map_response(candidate({"text": "I"}, groundingMetadata=grounding, avgLogprobs=-0.5))
    assert completion["google"]["candidates"] == [{"groundingMetadata": grounding, "avgLogprobs": -0.5}]


def test_logprobs_are_mapped_per_token() -> None:
    def token(word: str, probability: float) -> dict[str, Any]:
        return {"token": word, "logProbability": probability, "tokenId": 7}

    chosen_tokens = [token("It", -0.25), token(" is", -1.5)]
    logprobs_result = {
        "chosenCandidates": chosen_tokens,
        "topCandidates": [{"candidates": [chosen_tokens[0], token("He", -3)]}, {}],
    }
    logprobs = map_response(candidate({"text": "It is"}, logprobsResult=logprobs_result))["choices"][0]["logprobs"]
    first, second = logprobs["content"]
    assert (first["token"], first["logprob"]) == ("It", -0.25)
    assert [(candidate_token["token"], candidate_token["logprob"]) for candidate_token in first["top_logprobs"]] == [
        ("It", -0.25),
        ("He", -3),
    ]
    assert (second["token"], second["top_logprobs"], logprobs["refusal"]) == (" is", [], None)
