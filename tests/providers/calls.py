"""One call to one provider of OpenAI's protocol, as the router makes it."""

from aiserver.errors import ProviderResponse
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.provider import Provider
from tests.fakes import FakeClock

QUESTION = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def provider(base_url: str, **more: object) -> Provider:
    return Provider.model_validate({"name": "p", "base_url": base_url, "models": {"m": ""}} | more)


def ask(
    asked: Provider,
    operation: str = "chat.completions",
    *,
    api_key: str | None = "k",
    model_is_configured: bool = True,
    deadline_s: float = 5,
) -> ProviderResponse:
    with create_client() as http:
        return OpenAiClient(http, FakeClock()).call(
            asked,
            operation,
            QUESTION,
            api_key=api_key,
            idempotency_key="i",
            model_is_configured=model_is_configured,
            timeout_s=deadline_s,
        )


def models(asked: Provider, *, api_key: str | None = "k", deadline_s: float = 5) -> list[str]:
    with create_client() as http:
        return OpenAiClient(http, FakeClock()).list_models(asked, api_key=api_key, timeout_s=deadline_s)
