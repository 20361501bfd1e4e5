"""Request parameters for Gemini: path, tool config, thinking, response format and extensions."""

import json
from typing import Any

import pytest

from aiserver.providers.adapters.google import GOOGLE
from tests.vendors.conversations import TIME, WEATHER, text, user
from tests.vendors.google_calls import MODEL, OLDER_MODEL, assistant, chat, rejected_field, request_body


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3.8-flash", "/models/gemini-3.8-flash:generateContent"),
        ("models/gemini-3.8-flash", "/models/gemini-3.8-flash:generateContent"),
        ("tunedModels/mine", "/tunedModels/mine:generateContent"),
        ("a/../b?c#d", "/models/a%2F..%2Fb%3Fc%23d:generateContent"),
    ],
)
def test_model_name_is_escaped_in_the_path(model: str, path: str) -> None:
    assert GOOGLE.build_request(chat(model=model)).path == path
    assert GOOGLE.build_request(chat(model=model, stream=True)).path.endswith(":streamGenerateContent?alt=sse")
    assert {"model", "stream"}.isdisjoint(request_body(model=model, stream=True))


@pytest.mark.parametrize(
    ("choice", "strict", "expected"),
    [
        (None, False, None),
        ("auto", False, {"mode": "AUTO"}),
        (None, True, {"mode": "VALIDATED"}),
        ("auto", True, {"mode": "VALIDATED"}),
        ("required", True, {"mode": "ANY"}),
        ("none", True, {"mode": "NONE"}),
        ({"type": "function", "function": {"name": "f"}}, True, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_strict_tool_is_sent_as_validated_mode(choice: Any, strict: bool, expected: Any) -> None:
    tools = [TIME, {"type": "function", "function": {"name": "f", "strict": strict}}]
    config = request_body(tools=tools, tool_choice=choice).get("toolConfig")
    assert config == (expected and {"functionCallingConfig": expected})


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_tool_choice_without_tools_is_not_sent(choice: str) -> None:
    assert "toolConfig" not in request_body(tool_choice=choice)


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        (MODEL, "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
        (MODEL, "xhigh", {"thinkingLevel": "XHIGH", "includeThoughts": True}),
        (OLDER_MODEL, "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        (OLDER_MODEL, "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        (OLDER_MODEL, "none", {"thinkingBudget": 0}),
    ],
)
def test_reasoning_effort_is_sent_as_thinking_config(model: str, effort: str, thinking: dict[str, Any]) -> None:
    assert request_body(model=model, reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == thinking


@pytest.mark.parametrize(
    ("model", "effort"), [(MODEL, "none"), ("gemini-2.5-pro", "none"), (OLDER_MODEL, "xhigh"), (MODEL, "some")]
)
def test_reasoning_effort_unsupported_by_the_model_is_rejected(model: str, effort: str) -> None:
    assert rejected_field(model=model, reasoning_effort=effort) == "reasoning_effort"


def test_json_object_format_is_sent_as_response_mime_type() -> None:
    assert request_body(response_format={"type": "json_object"})["generationConfig"] == {
        "responseMimeType": "application/json"
    }


@pytest.mark.parametrize(("tier", "google_tier"), [("auto", None), ("default", "standard"), ("flex", "flex")])
def test_service_tier_is_mapped(tier: str, google_tier: str | None) -> None:
    assert request_body(service_tier=tier).get("serviceTier") == google_tier
    assert rejected_field(service_tier="scale") == "service_tier"


def test_vendor_specific_fields_are_forwarded() -> None:
    extension = {
        "cachedContent": "cachedContents/1",
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "generationConfig": {"topK": 40, "mediaResolution": "MEDIA_RESOLUTION_LOW"},
    }
    body = request_body(user([text("x") | {"google": {"thought": True}}]), temperature=0.5, google=extension)
    assert body["generationConfig"] == {"temperature": 0.5, **extension["generationConfig"]}
    assert {name: body[name] for name in ("cachedContent", "safetySettings")} == {
        name: extension[name] for name in ("cachedContent", "safetySettings")
    }
    assert body["contents"][0]["parts"] == [{"text": "x", "thought": True}]
    tool = WEATHER | {"google": {"responseJsonSchema": {"type": "string"}}}
    request = GOOGLE.build_request(chat(tools=[tool], google={"tools": [{"googleSearch": {}}]}))
    tools = json.loads(request.body or b"")["tools"]
    assert tools[0]["functionDeclarations"][0]["responseJsonSchema"] == {"type": "string"}
    assert tools[1] == {"googleSearch": {}}


def test_conflicting_or_unusable_vendor_specific_fields_are_rejected() -> None:
    assert rejected_field(temperature=1, google={"generationConfig": {"temperature": 2}}) == (
        "google.generationConfig.temperature"
    )
    assert rejected_field(user([text("x") | {"google": {"text": "y"}}])) == "messages[0].content[0].google.text"
    assert rejected_field(user(google={"parts": []})) == "messages[0].google.parts"
    assert rejected_field(assistant(content="x", google={"parts": 1})) == "messages[0].google.parts"
    assert rejected_field(assistant(content="x", google={"mood": 1})) == "messages[0].google.mood"


def test_cache_control_is_not_sent() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    expected = request_body(user([text("x")]), tools=[WEATHER])
    assert request_body(user([text("x") | cached]), tools=[WEATHER | cached], prompt_cache_key="k") == expected


def test_tool_choice_none_applies_to_vendor_specific_tools() -> None:
    extension = {"tools": [{"googleSearch": {}}]}
    body = request_body(user(), tool_choice="none", google=extension)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}
