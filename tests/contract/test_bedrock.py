"""The Bedrock adapter against MiniStack, an independent implementation of Bedrock's API."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from aiserver.errors import ProviderRejected
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.wire import sse
from local import aws
from tests.vendors.dispatch import open_stream, send

NOVA = "us.amazon.nova-2-lite-v1:0"
PROFILE = f"arn:aws:bedrock:{aws.REGION}:000000000000:inference-profile/{NOVA}"


@pytest.fixture
def bedrock(ministack: str, monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setenv("AWS_REGION", aws.REGION)
    return Provider.model_validate({"name": "b", "type": "bedrock", "base_url": ministack, "models": {"*": ""}})


def chat_body(**options: Any) -> bytes:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"}]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 50, **options}).encode()


@pytest.mark.parametrize("model", [NOVA, PROFILE])
def test_bedrock_completes_a_chat(model: str, bedrock: Provider) -> None:
    response = send(Upstream(bedrock, model, model_is_configured=False), chat_body(), session=aws.session())
    completion = ChatCompletion.model_validate_json(response.body, strict=True)
    assert completion.choices[0].message.content is not None
    assert f"mock nova {model}" in completion.choices[0].message.content
    assert (completion.model, completion.choices[0].finish_reason) == (model, "stop")
    assert completion.usage
    assert json.loads(response.usage or "") == completion.usage.model_dump(exclude_none=True)


def test_bedrock_streams_a_chat(bedrock: Provider) -> None:
    body = chat_body(stream=True, stream_options={"include_usage": True})
    upstream = Upstream(bedrock, NOVA, model_is_configured=False)
    with open_stream(upstream, body, session=aws.session()) as stream:
        body_bytes = b"".join(event or b"" for event in stream.events)
    *events, last_event = [sse.event_data(event) for event in sse.EventSplitter().split(body_bytes)]
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert f"mock nova {NOVA}" in text
    assert (chunks[-2].choices[0].finish_reason, last_event) == ("stop", sse.DONE)
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens > 0


def test_bedrock_rejects_an_invalid_model_arn(bedrock: Provider) -> None:
    upstream = Upstream(bedrock, "arn:aws:bedrock:eu-north-9:1:inference-profile/x", model_is_configured=False)
    with pytest.raises(ProviderRejected) as rejection:
        send(upstream, chat_body(), session=aws.session())
    assert (rejection.value.status, rejection.value.message[:19]) == (400, "Invalid modelId ARN")
