"""Validation of Gemini requests by the SDK's types and by the rules of Gemini 3.

Source: https://ai.google.dev/api/generate-content
"""

import json
import re
from typing import Any
from urllib.parse import unquote

import google.genai.types as sdk
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from aiserver.providers.request import ProviderRequest

PATH = re.compile(r"/models/([^/:]+):(generateContent|streamGenerateContent\?alt=sse)")


class Body(BaseModel):
    """GenerateContentRequest, for which the SDK has no type."""

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


def check_request(request: ProviderRequest) -> tuple[str, bool, dict[str, Any]]:
    """Return model, whether it streams, and body. Raises: AssertionError, when Gemini would reject the request."""
    path = PATH.fullmatch(request.path)
    assert path is not None
    assert (request.method, request.headers.get("content-type")) == ("POST", "application/json")
    try:
        Body.model_validate_json(request.body or b"")
    except ValidationError as error:
        raise AssertionError(str(error)) from None
    body = json.loads(request.body or b"")
    _check_turns(body["contents"])
    return unquote(path[1]), path[2] != "generateContent", body


def _check_turns(contents: list[dict[str, Any]]) -> None:
    """Rules of Gemini 3: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs"""
    open_calls: list[str] = []
    for turn in contents:
        calls = [part for part in turn["parts"] if "functionCall" in part]
        results = [part["functionResponse"] for part in turn["parts"] if "functionResponse" in part]
        assert turn["parts"], "contents.parts must not be empty."
        assert not calls or "thoughtSignature" in calls[0], "Function call is missing a thought_signature"
        assert len(results) in (0, len(turn["parts"])), "text beside function responses"
        assert not results or [result["id"] for result in results] == open_calls, "function responses of other calls"
        open_calls = [part["functionCall"]["id"] for part in calls]
