"""Calls to one provider of OpenAI's protocol, as the router makes them."""

from aiserver.errors import ProviderResponse
from aiserver.providers.adapters.openai.client import OpenAiClient
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from tests.fakes import FakeClock

REQUEST_BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def provider(base_url: str, **options: object) -> Provider:
    return Provider.model_validate({"name": "p", "base_url": base_url, "models": {"m": ""}} | options)


def call_provider(
    target: Provider,
    operation: str = "chat.completions",
    *,
    api_key: str | None = "k",
    model_is_configured: bool = True,
    timeout_s: float = 5,
) -> ProviderResponse:
    with create_client() as http:
        return OpenAiClient(http, FakeClock()).call(
            target,
            operation,
            REQUEST_BODY,
            api_key=api_key,
            idempotency_key="i",
            model_is_configured=model_is_configured,
            timeout_s=timeout_s,
        )


def list_models(target: Provider, *, api_key: str | None = "k", timeout_s: float = 5) -> list[str]:
    with create_client() as http:
        return OpenAiClient(http, FakeClock()).list_models(target, api_key=api_key, timeout_s=timeout_s)
