"""Builders of chat requests for Gemini, validated as its server does."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.adapters.google import GOOGLE
from tests.vendors.conversations import user
from tests.vendors.google_body import check_request

MODEL = "gemini-3.8-flash"
OLDER_MODEL = "gemini-2.5-flash"


def request_body(*messages: dict[str, Any], model: str = MODEL, **members: Any) -> dict[str, Any]:
    """The request body for Gemini, validated by the SDK's types for Gemini 3 models."""
    request = GOOGLE.build_request(chat(*messages, model=model, **members))
    return check_request(request)[2] if model == MODEL else json.loads(request.body or b"")


def chat(*messages: dict[str, Any], model: str = MODEL, **members: Any) -> Chat:
    body = {"model": model, "messages": list(messages) or [user()], **members}
    return parse_chat(json.dumps(body).encode(), GOOGLE.capabilities)


def rejected_field(*messages: dict[str, Any], **members: Any) -> str:
    """The path of the rejected field."""
    with pytest.raises(InvalidRequest) as refusal:
        request_body(*messages, **members)
    assert "Google Gemini" in refusal.value.message
    return refusal.value.param or ""


def assistant(*calls: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **({"tool_calls": list(calls)} if calls else {}), **members}


def tool_result(id: str, content: Any, **members: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content, **members}
