"""The official OpenAI SDK, pointed at us by changing its base URL and key."""

import json
import threading

import openai
import pytest

from aiserver.providers.transport import STALE_S
from tests.flow.conftest import Product

MESSAGES = [
    {"role": "system", "content": "You are a helpful AI assistant."},
    {"role": "user", "content": "How do LLMs work?"},
]


class Silence(threading.Event):
    """After a request, too long for a kept connection that had been closed before it."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(4 * STALE_S)


def client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=2)


def ask(base_url: str, key: str) -> str | None:
    with client(base_url, key) as sdk:
        answer = sdk.chat.completions.create(model="llama3:8b", messages=MESSAGES, max_tokens=50)  # pyright: ignore
    return answer.choices[0].message.content


def test_the_same_call_goes_to_us_or_elsewhere_by_url_and_key_alone(product: Product) -> None:
    ours = ask(product.url, product.key)
    direct = ask(product.upstream.base_url.removesuffix("/v1"), "the provider's own key")
    assert ours == direct
    through, straight = product.upstream.requests
    assert json.loads(through.body) == json.loads(straight.body)


def test_embeddings_and_responses_are_the_sdk_s_own(product: Product) -> None:
    with client(product.url, product.key) as ours, client(product.upstream.base_url.removesuffix("/v1"), "k") as direct:
        vectors = [
            sdk.embeddings.create(model="text-embedding-3-small", input=["How do LLMs work?", "And why?"]).data
            for sdk in (ours, direct)
        ]
        told = [sdk.responses.create(model="llama3:8b", input="How do LLMs work?") for sdk in (ours, direct)]
    assert vectors[0] == vectors[1]
    assert len(vectors[0]) == 2
    assert told[0].output_text == told[1].output_text != ""


def test_models_are_listed_and_found_by_name(product: Product) -> None:
    with client(product.url, product.key) as sdk:
        names = {model.id for model in sdk.models.list()}
        assert {"llama3:8b", "gpt-4-turbo", "gpu-llama"} <= names
        assert sdk.models.retrieve("llama3:8b").owned_by == "scripted"
        with pytest.raises(openai.NotFoundError):
            sdk.models.retrieve("no/such:model")


def test_errors_are_the_sdk_s_own(product: Product) -> None:
    with client(product.url, "ak-junk") as sdk, pytest.raises(openai.AuthenticationError) as refused:
        sdk.models.list()
    assert refused.value.code == "invalid_api_key"
    with client(product.url, product.key) as sdk:
        with pytest.raises(openai.NotFoundError) as unknown:
            sdk.chat.completions.create(model="nobody", messages=MESSAGES)  # pyright: ignore
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as empty:
            sdk.chat.completions.create(model="llama3:8b", messages=[])
        assert empty.value.param == "messages"
    assert product.upstream.requests == []


def test_a_call_that_may_have_been_billed_is_not_repeated_by_the_sdk(product: Product) -> None:
    product.upstream.answer_with(None, b"", hold=Silence())
    with client(product.url, product.key) as sdk, pytest.raises(openai.InternalServerError) as cut:
        sdk.chat.completions.create(model="llama3:8b", messages=MESSAGES)  # pyright: ignore
    assert (cut.value.status_code, cut.value.code) == (504, "provider_timeout")
    assert len(product.upstream.requests) == 1


def test_a_rate_limit_is_repeated_as_the_provider_asks(product: Product) -> None:
    told = b'{"error":{"message":"slow","type":"requests","code":"rate_limit_exceeded"}}'
    product.upstream.answer_with(429, told, {"retry-after": "0", "x-request-id": "req-1"})
    with client(product.url, product.key) as sdk:
        assert sdk.chat.completions.create(model="llama3:8b", messages=MESSAGES).choices  # pyright: ignore
    assert len(product.upstream.requests) == 2
