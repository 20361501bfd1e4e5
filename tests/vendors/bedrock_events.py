"""Requests that Bedrock would accept, and the events of its streams."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.adapters.bedrock import BEDROCK
from tests.vendors.bedrock import REQUEST_SHAPE
from tests.vendors.botocore_validator import problems
from tests.vendors.conversations import CALLS, user

CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born", id="chatcmpl-born", model="model-born")
SONNET_5, SONNET_4_6 = "us.anthropic.claude-sonnet-5", "anthropic.claude-sonnet-4-6"
HAIKU_4_5 = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
OPUS_4 = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-20250514-v1:0"
NOVA_2, NOVA = "us.amazon.nova-2-lite-v1:0", "amazon.nova-pro-v1:0"
GPT_OSS, GPT = "openai.gpt-oss-120b-1:0", "us.openai.gpt-5.6-sol"
APPLICATION_PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
RESULTS = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in CALLS]
TOOL_TURNS = [user(), {"role": "assistant", "content": None, "tool_calls": CALLS}, *RESULTS]
MESSAGE_START = {"messageStart": {"role": "assistant"}}


def request_body(model: str = SONNET_5, **members: Any) -> Any:
    """The request body, validated by botocore's model."""
    body = {"model": model, "messages": [user()], **members}
    request = json.loads(BEDROCK.build_request(parse_chat(json.dumps(body).encode(), BEDROCK.capabilities)).body or b"")
    assert problems({"modelId": model, **request}, REQUEST_SHAPE) == []
    return request


def refusal(model: str = SONNET_5, **members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as rejection:
        request_body(model, **members)
    return rejection.value


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": block}}


def delta(index: int, **content: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": content}}


def stop(reason: str = "end_turn", **members: Any) -> dict[str, Any]:
    return {"messageStop": {"stopReason": reason, **members}}
