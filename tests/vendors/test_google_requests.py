"""What of a request is Gemini's alone, but for its turns: how it is asked, and what it cannot be."""

import json
from typing import Any

import pytest

from aiserver.providers.google import GOOGLE
from tests.vendors.conversations import TIME, WEATHER, text, user
from tests.vendors.google_calls import MODEL, OLDER, assistant, chat, refused, sent


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3.8-flash", "/models/gemini-3.8-flash:generateContent"),
        ("models/gemini-3.8-flash", "/models/gemini-3.8-flash:generateContent"),
        ("tunedModels/mine", "/tunedModels/mine:generateContent"),
        ("a/../b?c#d", "/models/a%2F..%2Fb%3Fc%23d:generateContent"),
    ],
)
def test_a_model_s_name_stands_in_the_path_and_leads_nowhere_else(model: str, path: str) -> None:
    assert GOOGLE.build_request(chat(model=model)).path == path
    assert GOOGLE.build_request(chat(model=model, stream=True)).path.endswith(":streamGenerateContent?alt=sse")
    assert {"model", "stream"}.isdisjoint(sent(model=model, stream=True))


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
def test_tools_are_held_to_their_schemas_where_one_is_strict(choice: Any, strict: bool, expected: Any) -> None:
    tools = [TIME, {"type": "function", "function": {"name": "f", "strict": strict}}]
    config = sent(tools=tools, tool_choice=choice).get("toolConfig")
    assert config == (expected and {"functionCallingConfig": expected})


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_among_no_tools_is_not_told(choice: str) -> None:
    assert "toolConfig" not in sent(tool_choice=choice)


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        (MODEL, "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
        (MODEL, "xhigh", {"thinkingLevel": "XHIGH", "includeThoughts": True}),
        (OLDER, "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        (OLDER, "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        (OLDER, "none", {"thinkingBudget": 0}),
    ],
)
def test_it_reasons_as_much_as_asked(model: str, effort: str, thinking: dict[str, Any]) -> None:
    assert sent(model=model, reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == thinking


@pytest.mark.parametrize(
    ("model", "effort"), [(MODEL, "none"), ("gemini-2.5-pro", "none"), (OLDER, "xhigh"), (MODEL, "some")]
)
def test_an_effort_that_a_model_cannot_make_is_refused(model: str, effort: str) -> None:
    assert refused(model=model, reasoning_effort=effort) == "reasoning_effort"


def test_json_without_a_schema_is_asked_for_by_its_media_type() -> None:
    assert sent(response_format={"type": "json_object"})["generationConfig"] == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(("tier", "told"), [("auto", None), ("default", "standard"), ("flex", "flex")])
def test_a_tier_has_google_s_name(tier: str, told: str | None) -> None:
    assert sent(service_tier=tier).get("serviceTier") == told
    assert refused(service_tier="scale") == "service_tier"


def test_what_only_gemini_has_goes_beside_what_is_asked() -> None:
    own = {
        "cachedContent": "cachedContents/1",
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "generationConfig": {"topK": 40, "mediaResolution": "MEDIA_RESOLUTION_LOW"},
    }
    body = sent(user([text("x") | {"google": {"thought": True}}]), temperature=0.5, google=own)
    assert body["generationConfig"] == {"temperature": 0.5, **own["generationConfig"]}
    assert {name: body[name] for name in ("cachedContent", "safetySettings")} == {
        name: own[name] for name in ("cachedContent", "safetySettings")
    }
    assert body["contents"][0]["parts"] == [{"text": "x", "thought": True}]
    tool = WEATHER | {"google": {"responseJsonSchema": {"type": "string"}}}
    searching = GOOGLE.build_request(chat(tools=[tool], google={"tools": [{"googleSearch": {}}]}))
    tools = json.loads(searching.body or b"")["tools"]
    assert tools[0]["functionDeclarations"][0]["responseJsonSchema"] == {"type": "string"}
    assert tools[1] == {"googleSearch": {}}


def test_what_only_gemini_has_is_refused_where_it_says_something_twice_or_nothing() -> None:
    assert refused(temperature=1, google={"generationConfig": {"temperature": 2}}) == (
        "google.generationConfig.temperature"
    )
    assert refused(user([text("x") | {"google": {"text": "y"}}])) == "messages[0].content[0].google.text"
    assert refused(user(google={"parts": []})) == "messages[0].google.parts"
    assert refused(assistant(content="x", google={"parts": 1})) == "messages[0].google.parts"
    assert refused(assistant(content="x", google={"mood": 1})) == "messages[0].google.mood"


def test_what_it_caches_by_itself_is_not_sent() -> None:
    marked = {"cache_control": {"type": "ephemeral"}}
    plain = sent(user([text("x")]), tools=[WEATHER])
    assert sent(user([text("x") | marked]), tools=[WEATHER | marked], prompt_cache_key="k") == plain


def test_tools_of_google_s_own_are_not_called_where_none_shall_be() -> None:
    own = {"tools": [{"googleSearch": {}}]}
    made = sent(user(), tool_choice="none", google=own)
    assert made["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}
