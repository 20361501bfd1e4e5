"""Another's idea of Bedrock, MiniStack's, is asked as Bedrock is, and answers what a caller understands."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import ProviderRejected
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.translation.client import AdapterClient
from aiserver.wire import sse
from local import aws
from tests.fakes import FakeClock

NOVA = "us.amazon.nova-2-lite-v1:0"
PROFILE = f"arn:aws:bedrock:{aws.REGION}:000000000000:inference-profile/{NOVA}"
HOW: dict[str, Any] = {"api_key": None, "model_is_configured": False}


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_REGION", aws.REGION)
    with create_client() as http:
        yield AdapterRegistry(lambda: http, FakeClock(), lambda: BedrockWire(aws.session()))["bedrock"]


@pytest.fixture
def provider(ministack: str) -> Provider:
    return Provider.model_validate({"name": "b", "type": "bedrock", "base_url": ministack, "models": {"*": ""}})


def asked(model: str, **more: Any) -> bytes:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 50, **more}).encode()


@pytest.mark.parametrize("model", [NOVA, PROFILE])
def test_it_answers(model: str, bedrock: AdapterClient, provider: Provider) -> None:
    how = {**HOW, "idempotency_key": None, "timeout_s": 10}
    answer = bedrock.call(provider, "chat.completions", asked(model), **how)
    told = ChatCompletion.model_validate_json(answer.body, strict=True)
    assert told.choices[0].message.content is not None
    assert f"mock nova {model}" in told.choices[0].message.content
    assert (told.model, told.choices[0].finish_reason) == (model, "stop")
    assert told.usage
    assert json.loads(answer.usage or "") == told.usage.model_dump(exclude_none=True)


def test_it_streams(bedrock: AdapterClient, provider: Provider) -> None:
    body = asked(NOVA, stream=True, stream_options={"include_usage": True})
    with closing(
        bedrock.stream(provider, "chat.completions", body, head_timeout_s=10, total_timeout_s=10, **HOW)
    ) as stream:
        came = b"".join(piece or b"" for piece in stream)
    *chunks, last = [sse.event_data(event) for event in sse.EventSplitter().split(came)]
    told = [ChatCompletionChunk.model_validate_json(chunk, strict=True) for chunk in chunks]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in told if chunk.choices)
    assert f"mock nova {NOVA}" in said
    assert (told[-2].choices[0].finish_reason, last) == ("stop", sse.DONE)
    assert told[-1].usage
    assert told[-1].usage.total_tokens > 0


def test_it_refuses(bedrock: AdapterClient, provider: Provider) -> None:
    how = {**HOW, "idempotency_key": None, "timeout_s": 10}
    with pytest.raises(ProviderRejected) as refused:
        bedrock.call(provider, "chat.completions", asked("arn:aws:bedrock:eu-north-9:1:inference-profile/x"), **how)
    assert (refused.value.status, refused.value.message[:19]) == (400, "Invalid modelId ARN")
