"""The official OpenAI SDK, with the base URL and the key of the gateway."""

import json
import threading

import openai
import pytest

from aiserver.http_client.transport import STALE_S
from tests.flow.conftest import Product

MESSAGES = [
    {"role": "system", "content": "You are a helpful AI assistant."},
    {"role": "user", "content": "How do LLMs work?"},
]


class LongSilence(threading.Event):
    """A silence after a request that is too long to mean a stale kept-alive connection."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(4 * STALE_S)


def client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=2)


def complete(base_url: str, key: str) -> str | None:
    with client(base_url, key) as sdk:
        response = sdk.chat.completions.create(model="llama3:8b", messages=MESSAGES, max_tokens=50)  # pyright: ignore
    return response.choices[0].message.content


def test_sdk_needs_only_another_url_and_key(product: Product) -> None:
    through_gateway = complete(product.url, product.key)
    direct = complete(product.upstream.base_url.removesuffix("/v1"), "the provider's own key")
    assert through_gateway == direct
    gateway_request, direct_request = product.upstream.requests
    assert json.loads(gateway_request.body) == json.loads(direct_request.body)


def test_sdk_reads_embeddings_and_responses(product: Product) -> None:
    with (
        client(product.url, product.key) as gateway,
        client(product.upstream.base_url.removesuffix("/v1"), "k") as direct,
    ):
        vectors = [
            sdk.embeddings.create(model="text-embedding-3-small", input=["How do LLMs work?", "And why?"]).data
            for sdk in (gateway, direct)
        ]
        responses = [sdk.responses.create(model="llama3:8b", input="How do LLMs work?") for sdk in (gateway, direct)]
    assert vectors[0] == vectors[1]
    assert len(vectors[0]) == 2
    assert responses[0].output_text == responses[1].output_text != ""


def test_models_are_listed_and_retrieved_by_name(product: Product) -> None:
    with client(product.url, product.key) as sdk:
        names = {model.id for model in sdk.models.list()}
        assert {"llama3:8b", "gpt-4-turbo", "gpu-llama"} <= names
        assert sdk.models.retrieve("llama3:8b").owned_by == "scripted"
        with pytest.raises(openai.NotFoundError):
            sdk.models.retrieve("no/such:model")


def test_errors_are_exceptions_of_the_sdk(product: Product) -> None:
    with client(product.url, "ak-junk") as sdk, pytest.raises(openai.AuthenticationError) as unauthorized:
        sdk.models.list()
    assert unauthorized.value.code == "invalid_api_key"
    with client(product.url, product.key) as sdk:
        with pytest.raises(openai.NotFoundError) as unknown:
            sdk.chat.completions.create(model="nobody", messages=MESSAGES)  # pyright: ignore
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as empty:
            sdk.chat.completions.create(model="llama3:8b", messages=[])
        assert empty.value.param == "messages"
    assert product.upstream.requests == []


def test_sdk_does_not_retry_a_call_that_may_have_been_billed(product: Product) -> None:
    product.upstream.respond_with(None, b"", hold=LongSilence())
    with client(product.url, product.key) as sdk, pytest.raises(openai.InternalServerError) as timeout:
        sdk.chat.completions.create(model="llama3:8b", messages=MESSAGES)  # pyright: ignore
    assert (timeout.value.status_code, timeout.value.code) == (504, "provider_timeout")
    assert len(product.upstream.requests) == 1


def test_sdk_retries_a_rate_limit_after_the_provider_s_retry_after(product: Product) -> None:
    body = b'{"error":{"message":"slow","type":"requests","code":"rate_limit_exceeded"}}'
    product.upstream.respond_with(429, body, {"retry-after": "0", "x-request-id": "req-1"})
    with client(product.url, product.key) as sdk:
        assert sdk.chat.completions.create(model="llama3:8b", messages=MESSAGES).choices  # pyright: ignore
    assert len(product.upstream.requests) == 2
