"""AI Server's typed Python client (PyPI servicestack), as its users install it."""

import json
import urllib.parse
from typing import Any

import pytest
from servicestack import JsonServiceClient, WebServiceException

from local.receiver import Receiver
from tests.flow.conftest import Product
from tests.flow.dtos import (
    ActiveAiModels,
    ChatWithUnknownMember,
    GetOpenAiChatStatus,
    OpenAiChat,
    OpenAiChatCompletion,
    OpenAiChatResponse,
    OpenAiMessage,
    QueueOpenAiChatCompletion,
    WaitForOpenAiChat,
)


def messages() -> list[OpenAiMessage]:
    return [
        OpenAiMessage(role="system", content="You are a helpful AI assistant."),
        OpenAiMessage(role="user", content="How do LLMs work?"),
    ]


def client(url: str, key: str) -> Any:
    service: Any = JsonServiceClient(url)
    service.set_bearer_token(key)
    return service


def test_sync_chat_reaches_the_provider_in_its_request_format(product: Product) -> None:
    request = OpenAiChatCompletion(model="llama3:8b", messages=messages(), max_tokens=50, temperature=0.5, tag="t")
    response = client(product.url, product.key).send(request)
    assert "scripted response" in response.choices[0].message.content
    assert response.usage.total_tokens > 0
    (upstream_request,) = product.upstream.requests
    assert json.loads(upstream_request.body) == {
        "messages": [
            {"content": "You are a helpful AI assistant.", "role": "system"},
            {"content": "How do LLMs work?", "role": "user"},
        ],
        "model": "llama3:8b",
        "max_tokens": 50,
        "temperature": 0.5,
    }


def test_queued_chat_has_a_status_url_a_result_and_a_callback(product: Product, hook: Receiver) -> None:
    service = client(product.url, product.key)
    request = OpenAiChat(model="gpt-4-turbo", messages=messages(), max_tokens=50)
    queued = service.send(QueueOpenAiChatCompletion(request=request, reply_to=hook.url, tag="été/1", ref_id="a b&c"))
    assert queued.ref_id == "a b&c"
    assert 0 < queued.id < 2**53
    callback = hook.next(30)
    assert callback.is_signed_by(product.cloud.keys.webhook_secret)
    assert callback.headers["x-job-id"] == str(queued.id)
    assert urllib.parse.unquote(callback.headers["x-tag"]) == "été/1"
    status = service.get(GetOpenAiChatStatus(job_id=queued.id))
    assert (status.job_id, status.ref_id, status.job_state) == (queued.id, "a b&c", "Completed")
    assert status.result.choices[0].message.content == status.chat_response.choices[0].message.content
    result = json.loads(callback.body)
    assert result["choices"][0]["message"]["content"] == status.result.choices[0].message.content
    status_by_url = service.get_url(queued.status_url, response_as=type(status))
    assert status_by_url.result.id == status.result.id == result["id"]


def test_wait_returns_when_the_job_has_ended(product: Product) -> None:
    service = client(product.url, product.key)
    request = OpenAiChat(model="gpu-llama", messages=messages())
    queued = service.send(QueueOpenAiChatCompletion(request=request))
    job = service.get(WaitForOpenAiChat(ref_id=queued.ref_id)).result
    assert job.state == "Completed"
    assert json.loads(job.request_body)["model"] == "gpu-llama"
    assert json.loads(job.response_body)["object"] == "chat.completion"


def test_batch_is_queued_in_one_call(product: Product) -> None:
    request = OpenAiChat(model="gpt-4-turbo", messages=messages())
    queued = client(product.url, product.key).send_all(
        [QueueOpenAiChatCompletion(request=request, ref_id=f"batch-{i}") for i in range(3)]
    )
    assert [accepted.ref_id for accepted in queued] == ["batch-0", "batch-1", "batch-2"]
    assert len({accepted.id for accepted in queued}) == 3
    assert {product.wait_for_job(accepted.ref_id)["state"] for accepted in queued} == {"Completed"}


def test_errors_are_exceptions_of_the_typed_client(product: Product) -> None:
    with pytest.raises(WebServiceException) as unknown_model:
        client(product.url, product.key).send(OpenAiChatCompletion(model="nobody", messages=messages()))
    assert unknown_model.value.status_code == 404
    assert unknown_model.value.response_status.error_code == "NotFound"
    with pytest.raises(WebServiceException) as unauthorized:
        client(product.url, "ak-junk").send(OpenAiChatCompletion(model="llama3:8b", messages=messages()))
    assert unauthorized.value.status_code == 401
    with pytest.raises(WebServiceException) as empty:
        client(product.url, product.key).send(OpenAiChatCompletion(model="llama3:8b"))
    assert empty.value.response_status.errors[0].field_name == "Messages"


def test_members_of_newer_clients_reach_the_provider(product: Product) -> None:
    request = ChatWithUnknownMember(model="llama3:8b", messages=messages(), brand_new={"someKey": 1.0})
    client(product.url, product.key).post_url("/api/OpenAiChatCompletion", body=request)
    assert json.loads(product.upstream.requests[-1].body)["brandNew"] == {"someKey": 1.0}


def test_active_models_are_listed(product: Product) -> None:
    assert "llama3:8b" in client(product.url, product.key).get(ActiveAiModels()).results


def test_typed_client_needs_only_another_url_and_key(product: Product) -> None:
    """AI Server's DTO is OpenAI's request: at OpenAI's path it also works against OpenAI."""

    def complete(url: str, key: str) -> str:
        request = OpenAiChatCompletion(model="llama3:8b", messages=messages())
        response = client(url, key).post_url("/v1/chat/completions", body=request, response_as=OpenAiChatResponse)
        return response.choices[0].message.content

    provider_url = product.upstream.base_url.removesuffix("/v1")
    assert complete(product.url, product.key) == complete(provider_url, "the provider's own key")
