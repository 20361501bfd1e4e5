"""Calls to one provider, as the gateway makes them."""

import httpx

from aiserver.aws.bedrock import bedrock_transport
from aiserver.clock import Clock, Deadline
from aiserver.operations import OPERATIONS
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.response import ProviderResponse
from tests.fakes import FakeClock

REQUEST_BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def provider(base_url: str, **options: object) -> Provider:
    return Provider.model_validate({"name": "p", "base_url": base_url, "models": {"m": ""}} | options)


def upstream_of(target: Provider, *, api_key: str | None = "k", model_is_configured: bool = True) -> Upstream:
    """The provider's model `m`."""
    return Upstream(target, "m", model_is_configured, api_key)


def dispatcher(http: httpx.Client, clock: Clock | None = None) -> Dispatcher:
    clock = clock or FakeClock()
    return Dispatcher(http, AdapterRegistry(clock, bedrock_transport), clock)


def make_call(
    operation: str = "chat.completions",
    body: bytes = REQUEST_BODY,
    *,
    timeout_s: float = 5,
    head_timeout_s: float | None = None,
    clock: Clock | None = None,
    idempotency_key: str | None = None,
    stream: bool = False,
) -> ProviderCall:
    """A call whose timeouts begin now, by the clock of its dispatcher."""
    clock = clock or FakeClock()
    return ProviderCall(
        OPERATIONS[operation],
        body,
        Deadline.after(timeout_s, clock),
        Deadline.after(timeout_s if head_timeout_s is None else head_timeout_s, clock),
        idempotency_key=idempotency_key,
        stream=stream,
    )


def call_provider(
    target: Provider,
    operation: str = "chat.completions",
    *,
    api_key: str | None = "k",
    model_is_configured: bool = True,
    timeout_s: float = 5,
) -> ProviderResponse:
    upstream = upstream_of(target, api_key=api_key, model_is_configured=model_is_configured)
    with create_client() as http:
        return dispatcher(http).send(upstream, make_call(operation, timeout_s=timeout_s, idempotency_key="i"))


def list_models(target: Provider, *, api_key: str | None = "k", timeout_s: float = 5) -> list[str]:
    upstream = upstream_of(target, api_key=api_key, model_is_configured=False)
    with create_client() as http:
        return dispatcher(http).list_models(upstream, timeout_s=timeout_s)
