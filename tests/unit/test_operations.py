"""What is asked of a model besides chat: embeddings and responses pass through, and what is not offered is told."""

import json
from typing import Any

import pytest

from aiserver.errors import NotFound
from aiserver.providers.catalogue import Operation
from aiserver.providers.provider import ModelListing, Provider
from aiserver.router import CACHE_MS, Router
from aiserver.usecases.models import Models
from local.scripted import MODELS, ScriptedProvider
from tests.answers import body, is_error
from tests.fakes import FakeClock
from tests.moto_stack import MotoStack, event

ALL: tuple[Operation, ...] = ("chat.completions", "embeddings", "responses")
EMBEDDINGS = ' {"input" : ["a", [1, 2]], "model":"text-embedding-3-small",\n"x":2.50, "dimensions":8} '
RESPONSES = '{"model":"llama3:8b","input":[{"role":"user","content":"hi"}],"store":false,"x":1E400}'


def posted(path: str, text: str) -> dict[str, Any]:
    changed = event("chat")
    changed |= {"resource": path, "path": path, "body": text}
    changed["requestContext"] |= {"resourcePath": path, "path": f"/prod{path}"}
    return changed


def offering(stack: MotoStack, upstream: ScriptedProvider, *operations: Operation) -> None:
    models = dict.fromkeys(MODELS, "")
    stack.providers(Provider(name="p", base_url=upstream.base_url, operations=operations, models=models))


@pytest.mark.parametrize(
    ("path", "text", "given"),
    [
        ("/v1/embeddings", EMBEDDINGS, b'{"data":[{"embedding":[0.10,-0]}],"usage":{"total_tokens":3}, "x":1.0}'),
        ("/v1/responses", RESPONSES, b'{"output":[],"error":null,"usage":{"total_tokens":3}, "x":1.0}'),
    ],
)
def test_an_operation_passes_byte_for_byte_both_ways(
    path: str, text: str, given: bytes, stack: MotoStack, upstream: ScriptedProvider
) -> None:
    offering(stack, upstream, *ALL)
    upstream.answer_with(200, given, {"content-type": "application/json", "x-request-id": "req_up"})
    answer = stack.invoke("chat", posted(path, text))
    assert (answer["statusCode"], answer["body"]) == (200, given.decode())
    assert [answer["headers"][name] for name in ("x-provider", "x-attempts", "x-request-id")] == ["p", "1", "req_up"]
    (asked,) = upstream.requests
    assert (asked.path, asked.body.decode()) == (path, text)


def test_the_upstream_s_name_of_the_model_and_our_members_are_all_that_changes(
    stack: MotoStack, upstream: ScriptedProvider
) -> None:
    stack.providers(Provider(name="p", base_url=upstream.base_url, models={"small": "vendor/embed-1"}))
    stack.invoke("chat", posted("/v1/embeddings", '{"model":"small","tag":"t","Input":"a","provider":"p","n":2.50}'))
    (asked,) = upstream.requests
    assert asked.body == b'{"model":"vendor/embed-1","input":"a","n":2.50}'


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
def test_a_request_that_is_wrong_is_refused_before_a_provider_is_asked(
    path: str, text: str, param: str, stack: MotoStack, upstream: ScriptedProvider
) -> None:
    offering(stack, upstream, *ALL)
    answer = stack.invoke("chat", posted(path, text))
    assert is_error(answer, 400, "ValidationException")
    assert body(answer)["error"]["param"] == param
    assert upstream.requests == []


def test_responses_where_no_provider_takes_them_are_a_404_that_says_what_to_use(
    stack: MotoStack, upstream: ScriptedProvider
) -> None:
    answer = stack.invoke("chat", posted("/v1/responses", RESPONSES))
    assert is_error(answer, 404, "NotFound")
    assert body(answer)["error"]["message"] == (
        "No provider of model llama3:8b offers responses; "
        "ask it by /v1/chat/completions (LangChain: use_responses_api=False)"
    )
    assert upstream.requests == []


def test_only_who_offers_an_operation_is_asked_for_it(stack: MotoStack, upstream: ScriptedProvider) -> None:
    base = {"base_url": upstream.base_url, "models": {"m": ""}}
    chats = Provider.model_validate({**base, "name": "chats", "priority": 9, "operations": ["chat.completions"]})
    embeds = Provider.model_validate({**base, "name": "embeds", "operations": ["embeddings"]})
    stack.providers(chats, embeds)
    answer = stack.invoke("chat", posted("/v1/embeddings", '{"model":"m","input":"a"}'))
    assert answer["headers"]["x-provider"] == "embeds"
    pinned = stack.invoke("chat", posted("/v1/embeddings", '{"model":"m","input":"a","provider":"chats"}'))
    assert (pinned["statusCode"], body(pinned)["error"]["message"]) == (
        400,
        "Provider chats serves model m, but does not offer embeddings",
    )
    by_header = posted("/v1/embeddings", '{"model":"m","input":"a","provider":"embeds"}')
    by_header["headers"]["X-Provider"] = "nobody"
    told = body(stack.invoke("chat", by_header))
    assert told["error"]["message"] == "There is no provider nobody, or it is disabled"
    queued = event("queue.openai") | {"body": event("queue.openai")["body"].replace("llama3:8b", "m")}
    assert stack.invoke("queue", queued)["statusCode"] == 202


def test_an_answer_with_a_ref_id_is_kept_for_any_operation(stack: MotoStack, upstream: ScriptedProvider) -> None:
    asked = posted("/v1/embeddings", '{"model":"text-embedding-3-small","input":"a","refId":"r"}')
    first, again = stack.invoke("chat", asked), stack.invoke("chat", asked)
    assert (again["body"], again["headers"]["x-replayed"]) == (first["body"], "true")
    assert len(upstream.requests) == 1
    job = stack.jobs().find_by_ref_id("example00000", "r", now_ms=0)
    assert job is not None
    assert job.operation == "embeddings"


# --- which models there are ---


def models(clock: FakeClock, listings: dict[str, ModelListing], *given: dict[str, Any]) -> Models:
    base = {"base_url": "http://127.0.0.1:1/v1"}
    providers = [Provider.model_validate({**base, **one}) for one in given]
    return Models(Router(lambda: providers, {}, None, clock), lambda: listings)


def test_models_are_those_that_are_named_and_those_that_are_listed_where_any_may_be_asked_for() -> None:
    listings = {name: ModelListing((f"{name}/x:1", "b"), 0) for name in ("any", "one", "named", "off", "gone")}
    found = models(
        FakeClock(),
        listings,
        {"name": "any", "priority": 9, "models": {"*": "", "a": ""}},
        {"name": "one", "models": {"*": "always-this"}},
        {"name": "named", "models": {"b": ""}},
        {"name": "off", "enabled": False, "models": {"*": "", "c": ""}},
    )
    assert {one.name: one.provider for one in found.all()} == {"a": "any", "any/x:1": "any", "b": "named"}


def test_what_is_listed_is_what_is_routed_and_any_name_is_found_where_any_may_be_asked_for() -> None:
    found = models(FakeClock(), {}, {"name": "any", "models": {"*": ""}})
    assert found.all() == []
    assert found.one("never/listed").provider == "any"
    with pytest.raises(NotFound):
        models(FakeClock(), {}, {"name": "p", "models": {"m": ""}}).one("n")


def test_a_provider_that_is_disabled_is_gone_from_the_list_when_it_is_gone_from_routing() -> None:
    clock = FakeClock()
    one = Provider(name="one", base_url="http://127.0.0.1:1/v1", models={"m": ""})
    stored = [one]
    router = Router(lambda: stored, {}, None, clock)
    found = Models(router, dict)
    router.providers()
    clock.now += CACHE_MS - 1
    assert [model.name for model in found.all()] == ["m"]
    stored[0] = one.model_copy(update={"enabled": False})
    clock.now += 1
    assert found.all() == []


def test_a_new_list_is_seen_within_the_cache_s_time() -> None:
    clock, listings = FakeClock(), dict[str, ModelListing]()
    found = models(clock, listings, {"name": "any", "models": {"*": ""}})
    assert found.all() == []
    listings["any"] = ModelListing(("new",), 0)
    assert found.all() == []
    clock.now += CACHE_MS
    assert [one.name for one in found.all()] == ["new"]


def test_both_lists_show_what_a_provider_that_takes_any_model_has(stack: MotoStack, upstream: ScriptedProvider) -> None:
    stack.providers(Provider(name="any", base_url=upstream.base_url, models={"*": ""}))
    stack.config().put_model_listing("any", ModelListing(("vendor/m:1",), 0))
    told = json.loads(stack.invoke("status", event("status.models"))["body"])
    assert [(one["id"], one["owned_by"]) for one in told["data"]] == [("vendor/m:1", "any")]
