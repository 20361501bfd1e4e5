"""Requests of chats as Gemini's server takes them, for tests."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from aiserver.providers.google import GOOGLE
from aiserver.providers.translation.chat import Chat
from tests.vendors.conversations import user
from tests.vendors.google_body import taken

MODEL = "gemini-3.8-flash"
OLDER = "gemini-2.5-flash"


def sent(*messages: dict[str, Any], model: str = MODEL, **more: Any) -> dict[str, Any]:
    """The body, of which the SDK's types say that Gemini takes it."""
    asked = GOOGLE.build_request(chat(*messages, model=model, **more))
    return taken(asked)[2] if model == MODEL else json.loads(asked.body or b"")


def chat(*messages: dict[str, Any], model: str = MODEL, **more: Any) -> Chat:
    body = {"model": model, "messages": list(messages) or [user()], **more}
    return Chat(json.dumps(body).encode(), GOOGLE.capabilities)


def refused(*messages: dict[str, Any], **more: Any) -> str:
    """The place of what is refused."""
    with pytest.raises(InvalidRequest) as refusal:
        sent(*messages, **more)
    assert "Google Gemini cannot be told" in refusal.value.message
    return refusal.value.param or ""


def assistant(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **({"tool_calls": list(calls)} if calls else {}), **more}


def result(id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content, **more}
