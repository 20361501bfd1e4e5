"""What only Gemini answers: its parts, why it ends, what it counts, and where it fails with status 200."""

import json
from typing import Any

import google.genai.types as sdk
import pytest
from openai.types.chat import ChatCompletion

from aiserver.errors import ProviderResponse
from aiserver.providers.google import GOOGLE
from aiserver.providers.translation.adapter import ResponseContext, VendorError
from tests.vendors.google_calls import assistant, sent, user

BORN = ResponseContext(1_700_000_000, lambda: "call_born")
CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
USED = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}


def candidate(*parts: dict[str, Any], reason: str = "STOP", **more: Any) -> dict[str, Any]:
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {**content, "finishReason": reason, **more}


def answer(*candidates: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An answer that the SDK's types take, in OpenAI's words."""
    said = json.dumps({"candidates": list(candidates), "responseId": "r", "modelVersion": "m", **more}).encode()
    sdk.GenerateContentResponse.model_validate_json(said)
    told = GOOGLE.map_response(said, BORN)
    assert told.request_id == "r"
    completion = json.loads(told.body)
    ChatCompletion.model_validate(completion, strict=True)
    return completion


def failed(*candidates: dict[str, Any], **more: Any) -> ProviderResponse:
    said = json.dumps({"candidates": list(candidates), "responseId": "r", **more}).encode()
    with pytest.raises(VendorError) as failure:
        GOOGLE.map_response(said, BORN)
    assert failure.value.has_content
    return GOOGLE.map_error(ProviderResponse(200, {}, failure.value.body))


def test_a_call_without_an_id_gets_one_that_stands_in_its_parts_too() -> None:
    message = answer(candidate({"text": "1", "thoughtSignature": "c2ln"}, CALL))["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "call_born", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    assert message["google"]["parts"][1]["functionCall"] == {"name": "f", "args": {"a": 1}, "id": "call_born"}


def test_the_arguments_of_a_call_keep_their_numbers() -> None:
    said = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"x": 1.50}}}]}}]}'
    call = json.loads(GOOGLE.map_response(said, BORN).body)["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"x": 1.50}'


def test_what_is_null_says_nothing() -> None:
    called = {"functionCall": {"name": "f", "args": None}, "thoughtSignature": None, "text": None, "thought": None}
    message = json.loads(GOOGLE.map_response(json.dumps({"candidates": [candidate(called)]}).encode(), BORN).body)
    assert message["choices"][0]["message"]["tool_calls"] == [
        {"id": "call_born", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_parts_that_openai_has_no_words_for_come_whole_and_can_be_sent_back() -> None:
    parts = [
        {"text": "Let me see.", "thought": True},
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "c2ln"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"text": "It is 1."},
    ]
    message = answer(candidate(*parts))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("It is 1.", "Let me see.")
    assert message["google"] == {"parts": parts}
    assert sent(user(), message)["contents"][1] == {"role": "model", "parts": parts}


def test_thoughts_without_a_signature_are_told_and_not_sent_back() -> None:
    message = answer(candidate({"text": "Hm.", "thought": True}, {"text": "Yes", "thought": False}))["choices"][0]
    assert message["message"] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm.",
        "refusal": None,
    }
    assert sent(user(), message["message"])["contents"][1]["parts"] == [{"text": "Yes"}]
    assert sent(user(), assistant(content="Yes", reasoning_content="Hm."))["contents"][1]["parts"] == [{"text": "Yes"}]


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
def test_why_it_ended_is_told_in_openai_s_words_and_its_own(reason: str, finish: str) -> None:
    completion = answer(candidate({"text": "I"}, reason=reason, index=0))
    assert completion["choices"][0]["finish_reason"] == finish
    own = completion.get("google", {}).get("candidates")
    assert own == (None if finish == "length" and reason == "MAX_TOKENS" else [{"finishReason": reason, "index": 0}])


def test_calls_that_were_cut_off_are_no_finished_calls() -> None:
    assert answer(candidate(CALL))["choices"][0]["finish_reason"] == "tool_calls"
    assert answer(candidate(CALL, reason="MAX_TOKENS"))["choices"][0]["finish_reason"] == "length"


def test_a_reason_that_is_new_is_told() -> None:
    said = json.dumps({"candidates": [candidate({"text": "I"}, reason="BORED")]}).encode()
    completion = json.loads(GOOGLE.map_response(said, BORN).body)
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["google"] == {"candidates": [{"finishReason": "BORED"}]}


def test_a_prompt_that_is_blocked_is_an_answer_without_words() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
    completion = answer(promptFeedback=feedback, usageMetadata={"promptTokenCount": 7})
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
def test_a_turn_that_went_wrong_is_a_failure_that_says_so(reason: str, status: int) -> None:
    error = failed(candidate(reason=reason, finishMessage="It went wrong"), usageMetadata=USED)
    told = json.loads(error.body)
    assert (error.status, told["error"]["code"], told["error"]["message"]) == (status, reason, "It went wrong")
    assert told["google"]["usageMetadata"] == USED


def test_an_error_with_status_200_is_a_failure() -> None:
    quota = {"code": 429, "message": "Slowly", "status": "RESOURCE_EXHAUSTED"}
    assert failed(error=quota).status == 429


def test_several_candidates_are_several_choices() -> None:
    one, two = candidate({"text": "1"}, index=0), candidate({"text": "2"}, index=1, reason="SAFETY")
    completion = answer(two, one)
    assert [choice["message"]["content"] for choice in completion["choices"]] == ["1", "2"]
    assert completion["google"]["candidates"][1] == {"finishReason": "SAFETY", "index": 1}


def test_tokens_are_counted_as_openai_does() -> None:
    details = [{"modality": "TEXT", "tokenCount": 3}]
    used = {**USED, "toolUsePromptTokenCount": 2, "thoughtsTokenCount": 4, "cachedContentTokenCount": 1}
    completion = answer(candidate({"text": "I"}), usageMetadata={**used, "promptTokensDetails": details})
    assert completion["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 9,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert completion["google"] == {"usageMetadata": {"promptTokensDetails": details}}


def test_what_it_found_on_the_web_comes_where_gemini_has_it() -> None:
    grounding = {"webSearchQueries": ["rome"]}
    completion = answer(candidate({"text": "I"}, groundingMetadata=grounding, avgLogprobs=-0.5))
    assert completion["google"]["candidates"] == [{"groundingMetadata": grounding, "avgLogprobs": -0.5}]


def test_log_probabilities_are_told_token_by_token() -> None:
    def token(word: str, probability: float) -> dict[str, Any]:
        return {"token": word, "logProbability": probability, "tokenId": 7}

    chosen = [token("It", -0.25), token(" is", -1.5)]
    result = {"chosenCandidates": chosen, "topCandidates": [{"candidates": [chosen[0], token("He", -3)]}, {}]}
    told = answer(candidate({"text": "It is"}, logprobsResult=result))["choices"][0]["logprobs"]
    first, second = told["content"]
    assert (first["token"], first["logprob"]) == ("It", -0.25)
    assert [(one["token"], one["logprob"]) for one in first["top_logprobs"]] == [("It", -0.25), ("He", -3)]
    assert (second["token"], second["top_logprobs"], told["refusal"]) == (" is", [], None)
