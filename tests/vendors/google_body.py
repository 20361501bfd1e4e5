"""What Gemini's own server takes of a request: judged by its SDK's types, and by what Gemini 3 refuses.

Source: https://ai.google.dev/api/generate-content
"""

import json
import re
from typing import Any
from urllib.parse import unquote

import google.genai.types as sdk
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from aiserver.providers.http import ProviderRequest

PATH = re.compile(r"/models/([^/:]+):(generateContent|streamGenerateContent\?alt=sse)")


class Body(BaseModel):
    """GenerateContentRequest, which the SDK has no type of its own for."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    contents: list[sdk.Content]
    system_instruction: sdk.Content | None = None
    tools: list[sdk.Tool] | None = None
    tool_config: sdk.ToolConfig | None = None
    safety_settings: list[sdk.SafetySetting] | None = None
    generation_config: sdk.GenerationConfig | None = None
    cached_content: str | None = None
    service_tier: sdk.ServiceTier | None = None
    store: bool | None = None


def taken(asked: ProviderRequest) -> tuple[str, bool, dict[str, Any]]:
    """The model, whether it shall stream, and the body. Raises: AssertionError."""
    place = PATH.fullmatch(asked.path)
    assert place is not None
    assert (asked.method, asked.headers.get("content-type")) == ("POST", "application/json")
    try:
        Body.model_validate_json(asked.body or b"")
    except ValidationError as wrong:
        raise AssertionError(str(wrong)) from None
    body = json.loads(asked.body or b"")
    _check_turns(body["contents"])
    return unquote(place[1]), place[2] != "generateContent", body


def _check_turns(contents: list[dict[str, Any]]) -> None:
    """What Gemini 3 refuses: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs"""
    open_calls: list[str] = []
    for turn in contents:
        calls = [part for part in turn["parts"] if "functionCall" in part]
        results = [part["functionResponse"] for part in turn["parts"] if "functionResponse" in part]
        assert turn["parts"], "contents.parts must not be empty."
        assert not calls or "thoughtSignature" in calls[0], "Function call is missing a thought_signature"
        assert len(results) in (0, len(turn["parts"])), "words beside what tools answered"
        assert not results or [result["id"] for result in results] == open_calls, "results of other calls"
        open_calls = [part["functionCall"]["id"] for part in calls]
