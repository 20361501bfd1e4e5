"""Request parameters for Bedrock: reasoning, tools, response format, metadata and extensions."""

from typing import Any

import pytest

from tests.vendors.bedrock_events import (
    APPLICATION_PROFILE,
    GPT,
    GPT_OSS,
    HAIKU_4_5,
    NOVA,
    NOVA_2,
    OPUS_4,
    RESULTS,
    SONNET_4_6,
    SONNET_5,
    TOOL_TURNS,
    refusal,
    request_body,
)
from tests.vendors.conversations import TIME, user


def additional_fields(model: str, effort: str, **members: Any) -> Any:
    return request_body(model, reasoning_effort=effort, **members).get("additionalModelRequestFields")


@pytest.mark.parametrize("model", [SONNET_5, SONNET_4_6])
def test_claude_reasoning_effort_is_sent_as_effort(model: str) -> None:
    body = request_body(model, reasoning_effort="max")
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "adaptive", "display": "summarized"}}
    assert body["outputConfig"] == {"effort": "max"}
    assert request_body(model, reasoning_effort="minimal")["outputConfig"] == {"effort": "low"}
    assert additional_fields(model, "none") == {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize("model", [HAIKU_4_5, OPUS_4])
def test_older_claude_reasoning_budget_is_below_max_tokens(model: str) -> None:
    body = request_body(model, reasoning_effort="high")
    thinking = {"type": "enabled", "budget_tokens": 24_576}
    assert (body["additionalModelRequestFields"], body["inferenceConfig"]) == (
        {"thinking": thinking},
        {"maxTokens": 32_000},
    )
    assert additional_fields(model, "high", max_tokens=2000) == {"thinking": {"type": "enabled", "budget_tokens": 1999}}
    assert "1024" in refusal(model, reasoning_effort="low", max_tokens=1024).message
    assert additional_fields(model, "max") == {"thinking": {"type": "enabled", "budget_tokens": 31_999}}


def test_other_models_get_reasoning_in_their_own_field() -> None:
    assert additional_fields(NOVA_2, "medium") == {
        "reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}
    }
    assert additional_fields(NOVA_2, "none") == {"reasoningConfig": {"type": "disabled"}}
    assert additional_fields(GPT_OSS, "minimal") == {"reasoning_effort": "low"}
    assert additional_fields(GPT, "xhigh") == {"reasoning": {"effort": "xhigh"}}
    assert additional_fields(GPT, "none") == {"reasoning": {"effort": "none"}}


@pytest.mark.parametrize(
    ("model", "effort"),
    [(NOVA_2, "xhigh"), (GPT_OSS, "none"), (NOVA, "low"), (APPLICATION_PROFILE, "low"), ("deepseek.r1-v1:0", "low")],
)
def test_reasoning_effort_unsupported_by_the_model_is_rejected(model: str, effort: str) -> None:
    error = refusal(model, reasoning_effort=effort)
    assert error.param == "reasoning_effort"
    extension = {"additionalModelRequestFields": {"x": {"y": [1, 2.5]}}}
    assert request_body(model, bedrock=extension)["additionalModelRequestFields"] == {"x": {"y": [1, 2.5]}}


def test_response_schema_and_reasoning_effort_share_output_config() -> None:
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}},
    }
    output_config = request_body(reasoning_effort="low", response_format=response_format)["outputConfig"]
    schema = {"name": "n", "description": "d", "schema": '{"type": "object"}'}
    assert output_config == {
        "effort": "low",
        "textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}},
    }
    assert refusal(response_format={"type": "json_object"}).param == "response_format.type"
    invalid_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": [1]}}
    assert refusal(response_format=invalid_format).param == "response_format.json_schema.schema"


def test_tool_choice_none_drops_tools_and_is_rejected_after_calls() -> None:
    assert request_body(tools=[TIME], tool_choice="none") == request_body() == request_body(tool_choice="auto")
    assert refusal(tool_choice="required").param == "tool_choice"
    assert refusal(messages=TOOL_TURNS, tools=[TIME], tool_choice="none").param == "tool_choice"


def test_tool_calls_and_results_require_tools() -> None:
    assert refusal(messages=TOOL_TURNS).param == "tools"
    assert refusal(messages=[user(), RESULTS[0]]).param == "tools"
    extension = {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}
    assert request_body(messages=TOOL_TURNS, bedrock=extension)["toolConfig"] == extension["toolConfig"]
    assert len(request_body(tools=[TIME], bedrock=extension)["toolConfig"]["tools"]) == 2
    assert request_body(bedrock=extension, tool_choice="required")["toolConfig"] == {
        **extension["toolConfig"],
        "toolChoice": {"any": {}},
    }
    assert refusal(bedrock=extension, tool_choice="none").param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"type": "tool", "name": "get_time"}),
    ],
)
def test_claude_parallel_tool_calls_false_is_sent_with_tool_choice(choice: Any, expected: dict[str, str]) -> None:
    body = request_body(tools=[TIME], tool_choice=choice, parallel_tool_calls=False)
    assert body["additionalModelRequestFields"] == {"tool_choice": {**expected, "disable_parallel_tool_use": True}}
    assert list(body["toolConfig"]) == ["tools"]


@pytest.mark.parametrize("model", [NOVA_2, GPT_OSS, APPLICATION_PROFILE])
def test_parallel_tool_calls_false_is_not_sent_to_other_models(model: str) -> None:
    body = request_body(model, tools=[TIME], tool_choice="required")
    assert request_body(model, tools=[TIME], tool_choice="required", parallel_tool_calls=False) == body
    assert request_body(model, parallel_tool_calls=False) == request_body(model)


def test_tool_call_id_is_valid_and_equal_in_call_and_result() -> None:
    for id, expected in [
        ("functions.f:0", "functions.f:0"),
        ("a b/c", "a_b_c"),
        ("x" * 65, None),
        ("x" * 64, "x" * 64),
    ]:
        call = {"id": id, "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
        turns = [user(), {"role": "assistant", "tool_calls": [call]}, {**RESULTS[0], "tool_call_id": id}]
        _, tool_turn, result = request_body(messages=turns, tools=[TIME])["messages"]
        sent_id = tool_turn["content"][0]["toolUse"]["toolUseId"]
        assert sent_id == result["content"][0]["toolResult"]["toolUseId"]
        assert sent_id == expected or (expected is None and len(sent_id) == 64)


def test_service_tier_is_mapped_and_auto_is_omitted() -> None:
    assert request_body(service_tier="flex")["serviceTier"] == {"type": "flex"}
    assert request_body(service_tier="auto") == request_body()
    assert refusal(service_tier="scale").param == "service_tier"


def test_request_metadata_is_validated_and_includes_the_user() -> None:
    body = request_body(metadata={"team": "a b"}, user="u-1", safety_identifier="s@x")
    assert body["requestMetadata"] == {"team": "a b", "user": "u-1", "safety_identifier": "s@x"}
    assert request_body(metadata={}) == request_body()
    assert request_body(metadata={"user": "u"}, user="u")["requestMetadata"] == {"user": "u"}
    assert refusal(metadata={"user": "v"}, user="u").param == "metadata.user"
    assert refusal(metadata={"a": "ü"}).param == "metadata.a"
    assert refusal(metadata={"a": "x" * 257}).param == "metadata.a"
    assert refusal(user="<u>").param == "user"
    assert refusal(metadata={str(i): "" for i in range(16)}, user="u").param == "metadata"


def test_temperature_above_one_is_rejected() -> None:
    assert refusal(temperature=1.5).param == "temperature"


def test_vendor_specific_fields_are_forwarded() -> None:
    extension = {
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
        "performanceConfig": {"latency": "optimized"},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "inferenceConfig": {"maxTokens": 7},
    }
    assert request_body(bedrock=extension) == request_body() | extension
    assert refusal(bedrock={"inferenceConfig": {"maxTokens": 7}}, max_tokens=8).param == (
        "bedrock.inferenceConfig.maxTokens"
    )
