"""The Bedrock adapter against MiniStack, an independent implementation of Bedrock's API."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import ProviderRejected
from aiserver.providers.adapters.base.client import AdapterClient
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.wire import sse
from local import aws
from tests.fakes import FakeClock

NOVA = "us.amazon.nova-2-lite-v1:0"
PROFILE = f"arn:aws:bedrock:{aws.REGION}:000000000000:inference-profile/{NOVA}"
CALL_OPTIONS: dict[str, Any] = {"api_key": None, "model_is_configured": False}


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_REGION", aws.REGION)
    with create_client() as http:
        yield AdapterRegistry(lambda: http, FakeClock(), lambda: BedrockWire(aws.session()))["bedrock"]


@pytest.fixture
def provider(ministack: str) -> Provider:
    return Provider.model_validate({"name": "b", "type": "bedrock", "base_url": ministack, "models": {"*": ""}})


def chat_body(model: str, **options: Any) -> bytes:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 50, **options}).encode()


@pytest.mark.parametrize("model", [NOVA, PROFILE])
def test_bedrock_completes_a_chat(model: str, bedrock: AdapterClient, provider: Provider) -> None:
    options = {**CALL_OPTIONS, "idempotency_key": None, "timeout_s": 10}
    response = bedrock.call(provider, "chat.completions", chat_body(model), **options)
    completion = ChatCompletion.model_validate_json(response.body, strict=True)
    assert completion.choices[0].message.content is not None
    assert f"mock nova {model}" in completion.choices[0].message.content
    assert (completion.model, completion.choices[0].finish_reason) == (model, "stop")
    assert completion.usage
    assert json.loads(response.usage or "") == completion.usage.model_dump(exclude_none=True)


def test_bedrock_streams_a_chat(bedrock: AdapterClient, provider: Provider) -> None:
    body = chat_body(NOVA, stream=True, stream_options={"include_usage": True})
    with closing(
        bedrock.stream(provider, "chat.completions", body, head_timeout_s=10, total_timeout_s=10, **CALL_OPTIONS)
    ) as stream:
        body_bytes = b"".join(chunk or b"" for chunk in stream)
    *events, last_event = [sse.event_data(event) for event in sse.EventSplitter().split(body_bytes)]
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert f"mock nova {NOVA}" in text
    assert (chunks[-2].choices[0].finish_reason, last_event) == ("stop", sse.DONE)
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens > 0


def test_bedrock_rejects_an_invalid_model_arn(bedrock: AdapterClient, provider: Provider) -> None:
    options = {**CALL_OPTIONS, "idempotency_key": None, "timeout_s": 10}
    with pytest.raises(ProviderRejected) as rejection:
        bedrock.call(
            provider, "chat.completions", chat_body("arn:aws:bedrock:eu-north-9:1:inference-profile/x"), **options
        )
    assert (rejection.value.status, rejection.value.message[:19]) == (400, "Invalid modelId ARN")
