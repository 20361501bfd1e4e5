"""Embeddings and responses pass through unchanged; unsupported operations are rejected; the list of models."""

import json
from typing import Any

import pytest

from aiserver.errors import NotFound
from aiserver.operations import OPERATIONS
from aiserver.providers.provider import ModelListing, Provider
from aiserver.routing.selection import CACHE_MS, ProviderDirectory
from aiserver.usecases.models import Models
from local.scripted import MODELS, ScriptedProvider
from tests.answers import is_error, json_body
from tests.fakes import FakeClock
from tests.moto_stack import MotoStack, event

ALL = tuple(OPERATIONS)
EMBEDDINGS = ' {"input" : ["a", [1, 2]], "model":"text-embedding-3-small",\n"x":2.50, "dimensions":8} '
RESPONSES = '{"model":"llama3:8b","input":[{"role":"user","content":"hi"}],"store":false,"x":1E400}'


def post_event(path: str, text: str) -> dict[str, Any]:
    post = event("chat")
    post |= {"resource": path, "path": path, "body": text}
    post["requestContext"] |= {"resourcePath": path, "path": f"/prod{path}"}
    return post


def set_provider(stack: MotoStack, upstream: ScriptedProvider, *operations: str) -> None:
    models = dict.fromkeys(MODELS, "")
    stack.set_providers(Provider(name="p", base_url=upstream.base_url, operations=operations, models=models))


@pytest.mark.parametrize(
    ("path", "text", "response_body"),
    [
        ("/v1/embeddings", EMBEDDINGS, b'{"data":[{"embedding":[0.10,-0]}],"usage":{"total_tokens":3}, "x":1.0}'),
        ("/v1/responses", RESPONSES, b'{"output":[],"error":null,"usage":{"total_tokens":3}, "x":1.0}'),
    ],
)
def test_request_and_response_pass_byte_for_byte(
    path: str, text: str, response_body: bytes, stack: MotoStack, upstream: ScriptedProvider
) -> None:
    set_provider(stack, upstream, *ALL)
    upstream.respond_with(200, response_body, {"content-type": "application/json", "x-request-id": "req_up"})
    response = stack.invoke("chat", post_event(path, text))
    assert (response["statusCode"], response["body"]) == (200, response_body.decode())
    assert [response["headers"][name] for name in ("x-provider", "x-attempts", "x-request-id")] == ["p", "1", "req_up"]
    (upstream_request,) = upstream.requests
    assert (upstream_request.path, upstream_request.body.decode()) == (path, text)


def test_only_the_model_name_and_gateway_members_change(stack: MotoStack, upstream: ScriptedProvider) -> None:
    stack.set_providers(Provider(name="p", base_url=upstream.base_url, models={"small": "vendor/embed-1"}))
    stack.invoke(
        "chat", post_event("/v1/embeddings", '{"model":"small","tag":"t","Input":"a","provider":"p","n":2.50}')
    )
    (upstream_request,) = upstream.requests
    assert upstream_request.body == b'{"model":"vendor/embed-1","input":"a","n":2.50}'


@pytest.mark.parametrize(
    ("path", "text", "param"),
    [
        ("/v1/embeddings", '{"model":"m"}', "input"),
        ("/v1/embeddings", '{"model":"m","input":[]}', "input"),
        ("/v1/embeddings", '{"model":"m","input":"a","dimensions":"8"}', "dimensions"),
        ("/v1/embeddings", '{"input":"a"}', "model"),
        ("/v1/embeddings", '{"model":"m","input":"a","input":"b"}', "input"),
        ("/v1/responses", '{"input":"a"}', "model"),
    ],
)
def test_invalid_request_is_rejected_before_a_provider_is_called(
    path: str, text: str, param: str, stack: MotoStack, upstream: ScriptedProvider
) -> None:
    set_provider(stack, upstream, *ALL)
    response = stack.invoke("chat", post_event(path, text))
    assert is_error(response, 400, "ValidationException")
    assert json_body(response)["error"]["param"] == param
    assert upstream.requests == []


def test_unsupported_responses_operation_is_a_404_naming_the_alternative(
    stack: MotoStack, upstream: ScriptedProvider
) -> None:
    response = stack.invoke("chat", post_event("/v1/responses", RESPONSES))
    assert is_error(response, 404, "NotFound")
    assert json_body(response)["error"]["message"] == (
        "No provider of model llama3:8b supports responses; "
        "use /v1/chat/completions (LangChain: use_responses_api=False)"
    )
    assert upstream.requests == []


def test_only_providers_that_support_the_operation_are_called(stack: MotoStack, upstream: ScriptedProvider) -> None:
    base = {"base_url": upstream.base_url, "models": {"m": ""}}
    chats = Provider.model_validate({**base, "name": "chats", "priority": 9, "operations": ["chat.completions"]})
    embeds = Provider.model_validate({**base, "name": "embeds", "operations": ["embeddings"]})
    stack.set_providers(chats, embeds)
    response = stack.invoke("chat", post_event("/v1/embeddings", '{"model":"m","input":"a"}'))
    assert response["headers"]["x-provider"] == "embeds"
    pinned = stack.invoke("chat", post_event("/v1/embeddings", '{"model":"m","input":"a","provider":"chats"}'))
    assert (pinned["statusCode"], json_body(pinned)["error"]["message"]) == (
        400,
        "Provider chats serves model m, but does not support embeddings",
    )
    by_header = post_event("/v1/embeddings", '{"model":"m","input":"a","provider":"embeds"}')
    by_header["headers"]["X-Provider"] = "nobody"
    error_body = json_body(stack.invoke("chat", by_header))
    assert error_body["error"]["message"] == "Provider nobody does not exist or is disabled"
    queued = event("queue.openai") | {"body": event("queue.openai")["body"].replace("llama3:8b", "m")}
    assert stack.invoke("queue", queued)["statusCode"] == 202


def test_response_with_a_ref_id_is_replayed_for_any_operation(stack: MotoStack, upstream: ScriptedProvider) -> None:
    request = post_event("/v1/embeddings", '{"model":"text-embedding-3-small","input":"a","refId":"r"}')
    first, replayed = stack.invoke("chat", request), stack.invoke("chat", request)
    assert (replayed["body"], replayed["headers"]["x-replayed"]) == (first["body"], "true")
    assert len(upstream.requests) == 1
    job = stack.jobs().find_by_ref_id("example00000", "r", now_ms=0)
    assert job is not None
    assert job.operation == "embeddings"


# --- the list of models ---


def models(clock: FakeClock, listings: dict[str, ModelListing], *configs: dict[str, Any]) -> Models:
    base = {"base_url": "http://127.0.0.1:1/v1"}
    providers = [Provider.model_validate({**base, **config}) for config in configs]
    return Models(ProviderDirectory(lambda: providers, clock), lambda: listings)


def test_model_list_has_configured_and_listed_models() -> None:
    listings = {name: ModelListing((f"{name}/x:1", "b"), 0) for name in ("any", "one", "named", "off", "gone")}
    listed = models(
        FakeClock(),
        listings,
        {"name": "any", "priority": 9, "models": {"*": "", "a": ""}},
        {"name": "one", "models": {"*": "always-this"}},
        {"name": "named", "models": {"b": ""}},
        {"name": "off", "enabled": False, "models": {"*": "", "c": ""}},
    )
    assert {model.name: model.provider for model in listed.all()} == {"a": "any", "any/x:1": "any", "b": "named"}


def test_any_model_name_is_found_where_a_provider_serves_any_model() -> None:
    listed = models(FakeClock(), {}, {"name": "any", "models": {"*": ""}})
    assert listed.all() == []
    assert listed.one("never/listed").provider == "any"
    with pytest.raises(NotFound):
        models(FakeClock(), {}, {"name": "p", "models": {"m": ""}}).one("n")


def test_disabled_provider_leaves_the_model_list_with_the_routing_cache() -> None:
    clock = FakeClock()
    provider = Provider(name="one", base_url="http://127.0.0.1:1/v1", models={"m": ""})
    stored = [provider]
    directory = ProviderDirectory(lambda: stored, clock)
    listed = Models(directory, dict)
    directory.providers()
    clock.now += CACHE_MS - 1
    assert [model.name for model in listed.all()] == ["m"]
    stored[0] = provider.model_copy(update={"enabled": False})
    clock.now += 1
    assert listed.all() == []


def test_new_model_listing_is_visible_after_the_cache_time() -> None:
    clock, listings = FakeClock(), dict[str, ModelListing]()
    listed = models(clock, listings, {"name": "any", "models": {"*": ""}})
    assert listed.all() == []
    listings["any"] = ModelListing(("new",), 0)
    assert listed.all() == []
    clock.now += CACHE_MS
    assert [model.name for model in listed.all()] == ["new"]


def test_models_endpoint_lists_models_of_a_provider_of_any_model(stack: MotoStack, upstream: ScriptedProvider) -> None:
    stack.set_providers(Provider(name="any", base_url=upstream.base_url, models={"*": ""}))
    stack.config().put_model_listing("any", ModelListing(("vendor/m:1",), 0))
    listed = json.loads(stack.invoke("status", event("status.models"))["body"])
    assert [(model["id"], model["owned_by"]) for model in listed["data"]] == [("vendor/m:1", "any")]
