"""What tests of Bedrock say and hear: requests that the service would take, and the events of its streams."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from aiserver.providers.bedrock import BEDROCK
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.chat import Chat
from tests.vendors.bedrock import ASKED
from tests.vendors.botocore_validator import problems
from tests.vendors.conversations import CALLS, user

BORN = ResponseContext(1_700_000_000, lambda: "call_born", id="chatcmpl-born", model="model-born")
SONNET_5, SONNET_4_6 = "us.anthropic.claude-sonnet-5", "anthropic.claude-sonnet-4-6"
HAIKU_4_5 = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
OPUS_4 = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-20250514-v1:0"
NOVA_2, NOVA = "us.amazon.nova-2-lite-v1:0", "amazon.nova-pro-v1:0"
GPT_OSS, GPT = "openai.gpt-oss-120b-1:0", "us.openai.gpt-5.6-sol"
OF_AN_APPLICATION = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
RESULTS = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in CALLS]
CALLED = [user(), {"role": "assistant", "content": None, "tool_calls": CALLS}, *RESULTS]
BEGIN = {"messageStart": {"role": "assistant"}}


def sent(model: str = SONNET_5, **more: Any) -> Any:
    """The body of the request, which the service would take."""
    body = {"model": model, "messages": [user()], **more}
    made = json.loads(BEDROCK.build_request(Chat(json.dumps(body).encode(), BEDROCK.capabilities)).body or b"")
    assert problems({"modelId": model, **made}, ASKED) == []
    return made


def refusal(model: str = SONNET_5, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        sent(model, **more)
    return refused.value


def start(index: int, **said: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": said}}


def delta(index: int, **said: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": said}}


def stop(reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    return {"messageStop": {"stopReason": reason, **more}}
