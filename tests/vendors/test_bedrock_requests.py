"""What Bedrock's models are told to do: how to reason, what to call, in what form to answer, and for whom."""

from typing import Any

import pytest

from tests.vendors.bedrock_events import (
    CALLED,
    GPT,
    GPT_OSS,
    HAIKU_4_5,
    NOVA,
    NOVA_2,
    OF_AN_APPLICATION,
    OPUS_4,
    RESULTS,
    SONNET_4_6,
    SONNET_5,
    refusal,
    sent,
)
from tests.vendors.conversations import TIME, user


def fields(model: str, effort: str, **more: Any) -> Any:
    return sent(model, reasoning_effort=effort, **more).get("additionalModelRequestFields")


@pytest.mark.parametrize("model", [SONNET_5, SONNET_4_6])
def test_claude_is_told_an_effort(model: str) -> None:
    made = sent(model, reasoning_effort="max")
    assert made["additionalModelRequestFields"] == {"thinking": {"type": "adaptive", "display": "summarized"}}
    assert made["outputConfig"] == {"effort": "max"}
    assert sent(model, reasoning_effort="minimal")["outputConfig"] == {"effort": "low"}
    assert fields(model, "none") == {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize("model", [HAIKU_4_5, OPUS_4])
def test_an_older_claude_is_told_a_budget_below_what_it_may_write(model: str) -> None:
    made = sent(model, reasoning_effort="high")
    thinking = {"type": "enabled", "budget_tokens": 24_576}
    assert (made["additionalModelRequestFields"], made["inferenceConfig"]) == (
        {"thinking": thinking},
        {"maxTokens": 32_000},
    )
    assert fields(model, "high", max_tokens=2000) == {"thinking": {"type": "enabled", "budget_tokens": 1999}}
    assert "1024" in refusal(model, reasoning_effort="low", max_tokens=1024).message
    assert fields(model, "max") == {"thinking": {"type": "enabled", "budget_tokens": 31_999}}


def test_others_are_told_in_a_field_of_their_own() -> None:
    assert fields(NOVA_2, "medium") == {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}
    assert fields(NOVA_2, "none") == {"reasoningConfig": {"type": "disabled"}}
    assert fields(GPT_OSS, "minimal") == {"reasoning_effort": "low"}
    assert fields(GPT, "xhigh") == {"reasoning": {"effort": "xhigh"}}
    assert fields(GPT, "none") == {"reasoning": {"effort": "none"}}


@pytest.mark.parametrize(
    ("model", "effort"),
    [(NOVA_2, "xhigh"), (GPT_OSS, "none"), (NOVA, "low"), (OF_AN_APPLICATION, "low"), ("deepseek.r1-v1:0", "low")],
)
def test_what_a_model_has_no_words_for_is_refused(model: str, effort: str) -> None:
    told = refusal(model, reasoning_effort=effort)
    assert told.param == "reasoning_effort"
    own = {"additionalModelRequestFields": {"x": {"y": [1, 2.5]}}}
    assert sent(model, bedrock=own)["additionalModelRequestFields"] == {"x": {"y": [1, 2.5]}}


def test_a_schema_and_an_effort_stand_side_by_side() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}}}
    made = sent(reasoning_effort="low", response_format=form)["outputConfig"]
    schema = {"name": "n", "description": "d", "schema": '{"type": "object"}'}
    assert made == {"effort": "low", "textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
    assert refusal(response_format={"type": "json_object"}).param == "response_format.type"
    wrong = {"type": "json_schema", "json_schema": {"name": "n", "schema": [1]}}
    assert refusal(response_format=wrong).param == "response_format.json_schema.schema"


def test_none_leaves_the_tools_out_and_is_refused_where_some_were_called() -> None:
    assert sent(tools=[TIME], tool_choice="none") == sent() == sent(tool_choice="auto")
    assert refusal(tool_choice="required").param == "tool_choice"
    assert refusal(messages=CALLED, tools=[TIME], tool_choice="none").param == "tool_choice"


def test_calls_need_their_tools() -> None:
    assert refusal(messages=CALLED).param == "tools"
    assert refusal(messages=[user(), RESULTS[0]]).param == "tools"
    own = {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}
    assert sent(messages=CALLED, bedrock=own)["toolConfig"] == own["toolConfig"]
    assert len(sent(tools=[TIME], bedrock=own)["toolConfig"]["tools"]) == 2
    assert sent(bedrock=own, tool_choice="required")["toolConfig"] == {**own["toolConfig"], "toolChoice": {"any": {}}}
    assert refusal(bedrock=own, tool_choice="none").param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"type": "tool", "name": "get_time"}),
    ],
)
def test_claude_calls_one_tool_at_a_time_by_one_choice(choice: Any, told: dict[str, str]) -> None:
    made = sent(tools=[TIME], tool_choice=choice, parallel_tool_calls=False)
    assert made["additionalModelRequestFields"] == {"tool_choice": {**told, "disable_parallel_tool_use": True}}
    assert list(made["toolConfig"]) == ["tools"]


@pytest.mark.parametrize("model", [NOVA_2, GPT_OSS, OF_AN_APPLICATION])
def test_others_are_not_told_to(model: str) -> None:
    told = sent(model, tools=[TIME], tool_choice="required")
    assert sent(model, tools=[TIME], tool_choice="required", parallel_tool_calls=False) == told
    assert sent(model, parallel_tool_calls=False) == sent(model)


def test_an_id_is_one_that_may_be_and_the_same_for_call_and_result() -> None:
    for id, told in [
        ("functions.f:0", "functions.f:0"),
        ("a b/c", "a_b_c"),
        ("x" * 65, None),
        ("x" * 64, "x" * 64),
    ]:
        call = {"id": id, "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
        turns = [user(), {"role": "assistant", "tool_calls": [call]}, {**RESULTS[0], "tool_call_id": id}]
        _, called, result = sent(messages=turns, tools=[TIME])["messages"]
        used = called["content"][0]["toolUse"]["toolUseId"]
        assert used == result["content"][0]["toolResult"]["toolUseId"]
        assert used == told or (told is None and len(used) == 64)


def test_a_tier_is_named_and_auto_says_nothing() -> None:
    assert sent(service_tier="flex")["serviceTier"] == {"type": "flex"}
    assert sent(service_tier="auto") == sent()
    assert refusal(service_tier="scale").param == "service_tier"


def test_metadata_is_kept_to_what_a_log_takes() -> None:
    made = sent(metadata={"team": "a b"}, user="u-1", safety_identifier="s@x")
    assert made["requestMetadata"] == {"team": "a b", "user": "u-1", "safety_identifier": "s@x"}
    assert sent(metadata={}) == sent()
    assert sent(metadata={"user": "u"}, user="u")["requestMetadata"] == {"user": "u"}
    assert refusal(metadata={"user": "v"}, user="u").param == "metadata.user"
    assert refusal(metadata={"a": "ü"}).param == "metadata.a"
    assert refusal(metadata={"a": "x" * 257}).param == "metadata.a"
    assert refusal(user="<u>").param == "user"
    assert refusal(metadata={str(i): "" for i in range(16)}, user="u").param == "metadata"


def test_it_is_never_hotter_than_one() -> None:
    assert refusal(temperature=1.5).param == "temperature"


def test_what_only_bedrock_has_goes_out_as_it_came() -> None:
    own = {
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
        "performanceConfig": {"latency": "optimized"},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "inferenceConfig": {"maxTokens": 7},
    }
    assert sent(bedrock=own) == sent() | own
    assert refusal(bedrock={"inferenceConfig": {"maxTokens": 7}}, max_tokens=8).param == (
        "bedrock.inferenceConfig.maxTokens"
    )
