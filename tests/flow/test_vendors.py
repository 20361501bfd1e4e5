"""Every vendor behind the same request, through the running gateway, with the official OpenAI SDK and LangChain."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from aiserver.providers.adapters.base.capabilities import Unsupported
from local.choose_upstream import Upstream
from local.cloud import Cloud
from tests import hostile_servers
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.conversations import PIXEL, TIME, WEATHER, image, text, user
from tests.vendors.dialects import DIALECTS
from tests.vendors.semantics import MediaPart, Response
from tests.vendors.server import VendorServer, run_vendor_server, simulate_response

KEY = "vk-of-the-gateway"
EXPECTED_CALLS = [("get_weather", {"place": "Rome", "days": 3})]
TYPES = [dialect.type for dialect in DIALECTS]


class City(BaseModel):
    """A city."""

    name: str
    people: int


def get_weather(place: str, days: int) -> str:
    """The weather of a place."""
    return f"sunny in {place} for {days} days"


@dataclass
class Product:
    """A running gateway and the servers of the vendors."""

    url: str
    key: str
    vendors: dict[str, VendorServer]
    http: httpx.Client
    by_role: hostile_servers.Receiver


def providers(vendors: Iterable[VendorServer], by_role: int) -> Upstream:
    """Return a provider per vendor, with its model as `<type>/model`; all of them have `any`, in order of priority.

    At the port `by_role` listens a Bedrock server whose provider has no key.
    """
    provider_configs: list[dict[str, Any]] = [
        {
            "name": vendor.dialect.type,
            "type": vendor.dialect.type,
            "base_url": vendor.origin,
            "api_key_var": "VENDOR_KEY",
            "models": {f"{vendor.dialect.type}/model": vendor.dialect.model, "any": vendor.dialect.model},
            "priority": -number,
        }
        for number, vendor in enumerate(vendors)
    ]
    provider_configs.append(
        {"name": "by-role", "type": "bedrock", "base_url": f"http://127.0.0.1:{by_role}", "models": {"nova": ""}}
    )
    return Upstream(
        json.dumps({"providers": provider_configs}),
        {"VENDOR_KEY": KEY},
        "Responses come from the servers of this test.",
    )


@pytest.fixture(scope="module")
def running_product() -> Iterator[Product]:
    with ExitStack() as stack:
        vendors = {dialect.type: stack.enter_context(run_vendor_server(dialect, KEY)) for dialect in DIALECTS}
        response = hostile_servers.respond(
            200, "content-type: application/json", body=BedrockDialect().encode_response(Response("Hi"))
        )
        by_role = stack.enter_context(hostile_servers.receiver(response, response))
        cloud = stack.enter_context(Cloud(providers(vendors.values(), by_role.port)))
        headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
        http = httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False)
        yield Product(cloud.base_url, cloud.keys.api_key, vendors, stack.enter_context(http), by_role)


@pytest.fixture
def product(running_product: Product) -> Product:
    for vendor in running_product.vendors.values():
        vendor.requests.clear()
        vendor.parsed_requests.clear()
    return running_product


@pytest.fixture(params=TYPES)
def vendor(request: pytest.FixtureRequest, product: Product) -> VendorServer:
    return product.vendors[request.param]


@pytest.fixture
def sdk(product: Product) -> Any:
    with openai.OpenAI(base_url=f"{product.url}/v1", api_key=product.key, max_retries=0) as client:
        yield client.chat.completions


@pytest.fixture
def model(vendor: VendorServer) -> str:
    return f"{vendor.dialect.type}/model"


@pytest.fixture
def langchain(product: Product, model: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{product.url}/v1", api_key=product.key, model=model, max_retries=0)  # pyright: ignore


def test_chat_returns_the_usage_and_the_request_id_of_the_vendor(sdk: Any, vendor: VendorServer, model: str) -> None:
    messages = [{"role": "system", "content": "Be kind."}, user([text("Look"), image(PIXEL)])]
    raw = sdk.with_raw_response.create(model=model, messages=messages, max_tokens=9)
    completion = raw.parse()
    assert completion.choices[0].message.content == "You said: Look"
    assert (completion.usage.prompt_tokens, completion.usage.prompt_tokens_details.cached_tokens) == (11, 3)
    assert (raw.headers["x-request-id"], raw.headers["x-provider"]) == ("req_1", vendor.dialect.type)
    parsed_request = vendor.parsed_requests[-1]
    assert (parsed_request.system, parsed_request.max_tokens) == (("Be kind.",), 9)
    assert any(isinstance(part, MediaPart) for part in parsed_request.turns[0].parts)


def test_stream_has_several_chunks_and_its_usage(sdk: Any, model: str) -> None:
    body = {"messages": [user("Say it, and think")], "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(sdk.create(model=model, **body))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    texts = [delta.content for delta in deltas if delta.content]
    assert "".join(texts) == "You said: Say it, and think"
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "I was told to think."
    assert (len(texts) > 3, chunks[-1].usage.completion_tokens) == (True, 7)


@pytest.mark.parametrize("streams", [False, True])
def test_tool_calls_and_their_results_are_mapped(streams: bool, sdk: Any, vendor: VendorServer, model: str) -> None:
    messages: list[Any] = [user("Weather and time?")]
    assistant_turn = _assistant_message(sdk, streams, model=model, messages=messages, tools=[WEATHER, TIME])
    calls = assistant_turn.tool_calls
    called_functions = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
    assert called_functions == [("get_weather", {"place": "Rome", "days": 3}), ("get_time", {})]
    messages.append(assistant_turn)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": call.function.name} for call in calls]
    final_turn = _assistant_message(sdk, streams, model=model, messages=messages, tools=[WEATHER, TIME])
    assert final_turn.content == "The tools said: get_weather; get_time"


@pytest.mark.parametrize("streams", [False, True])
def test_reasoning_is_sent_back_in_the_vendor_s_format(
    streams: bool, sdk: Any, vendor: VendorServer, model: str
) -> None:
    messages: list[Any] = [user("Weather? And think")]
    assistant_turn = _assistant_message(sdk, streams, model=model, messages=messages, tools=[WEATHER])
    assert assistant_turn.reasoning_content == "I was told to think."
    messages += [assistant_turn, {"role": "tool", "tool_call_id": assistant_turn.tool_calls[0].id, "content": "sunny"}]
    assert (
        _assistant_message(sdk, streams, model=model, messages=messages, tools=[WEATHER]).content
        == "The tools said: sunny"
    )
    vendor_response = json.loads(vendor.dialect.encode_response(simulate_response(vendor.parsed_requests[0], "think")))
    assert vendor.dialect.model_turn(vendor_response) in vendor.dialect.model_turns(
        json.loads(vendor.requests[-1].body)
    )


def _assistant_message(sdk: Any, streams: bool, **request: Any) -> Any:
    """Return the assistant message, as a client stores it."""
    if not streams:
        return sdk.create(**request).choices[0].message
    with sdk.stream(**request) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0].message


def test_response_follows_a_json_schema(sdk: Any, model: str) -> None:
    completion = sdk.parse(model=model, messages=[user("The largest?")], response_format=City)
    assert completion.choices[0].message.parsed == City(name="Rome", people=3)


def test_langchain_calls_tools_and_continues(langchain: ChatOpenAI) -> None:
    chat = langchain.bind_tools([get_weather])
    first_reply = chat.invoke("Weather?")
    assert isinstance(first_reply, AIMessage)
    assert [(call["name"], call["args"]) for call in first_reply.tool_calls] == EXPECTED_CALLS
    result = ToolMessage(get_weather("Rome", 3), tool_call_id=first_reply.tool_calls[0]["id"])
    second_reply = chat.invoke([("user", "Weather?"), first_reply, result])
    assert second_reply.content == "The tools said: sunny in Rome for 3 days"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_parses_structured_output(method: Any, langchain: ChatOpenAI) -> None:
    assert langchain.with_structured_output(City, method=method).invoke("The largest?") == City(name="Rome", people=3)


def test_langchain_reads_streamed_tool_calls(langchain: ChatOpenAI) -> None:
    message: Any = None
    for chunk in langchain.bind_tools([get_weather]).stream("Weather?"):
        message = chunk if message is None else message + chunk
    assert [(call["name"], call["args"]) for call in message.tool_calls] == EXPECTED_CALLS


def test_vendor_errors_keep_their_status_and_retry_after(sdk: Any, vendor: VendorServer, model: str) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        sdk.create(model=model, messages=[user("fail 429")])
    assert (limited.value.response.headers["retry-after"], limited.value.request_id) == ("7", "req_1")
    assert limited.value.response.json()["responseStatus"]["errorCode"] == "TooManyRequests"
    with pytest.raises(openai.BadRequestError) as bad_request:
        sdk.create(model=model, messages=[user("fail 400")])
    assert "As you wish" in bad_request.value.message
    with pytest.raises(openai.InternalServerError) as vendor_auth_error:
        sdk.create(model=model, messages=[user("fail 403")])
    assert (vendor_auth_error.value.status_code, "As you wish" in vendor_auth_error.value.message) == (502, False)


def test_unsupported_field_is_rejected_before_any_call(sdk: Any, vendor: VendorServer, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as bad_request:
        sdk.create(model=model, messages=[user()], logit_bias={"1": 2})
    assert (bad_request.value.param, vendor.dialect.translator.capabilities.vendor in bad_request.value.message) == (
        "logit_bias",
        True,
    )
    assert vendor.requests == []


def test_stream_that_fails_midway_is_an_error(sdk: Any, model: str) -> None:
    with pytest.raises(openai.APIError, match="As you wish"):
        list(sdk.create(model=model, messages=[user("break off, but not before some words")], stream=True))


def test_job_completes_and_unsupported_field_is_not_accepted(product: Product, model: str) -> None:
    body = {"model": model, "messages": [user("Later")]}
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json={"request": body})
    assert queued.status_code == 200, queued.text
    job = product.http.get("/api/WaitForOpenAiChat", params={"refId": queued.json()["refId"]}).json()
    assert json.loads(job["result"]["responseBody"])["choices"][0]["message"]["content"] == "You said: Later"
    rejection = product.http.post("/api/QueueOpenAiChatCompletion", json={"request": {**body, "logit_bias": {"1": 2}}})
    assert (rejection.status_code, rejection.json()["error"]["param"]) == (400, "logit_bias")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("first", range(len(TYPES) - 1))
def test_failover_skips_a_vendor_that_is_down(first: int, streams: bool, product: Product, sdk: Any) -> None:
    """All vendors serve `any`, in order of priority; the first ones are down."""
    for type in TYPES[: first + 1]:
        product.vendors[type].error_statuses = [503]
    body = {"model": "any", "messages": [user("Anybody?")]}
    if streams:
        with sdk.with_streaming_response.create(**body, stream=True) as response:
            chunks = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
            provider = response.headers["x-provider"]
        content = "".join(json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    else:
        raw = sdk.with_raw_response.create(**body)
        provider, content = raw.headers["x-provider"], raw.parse().choices[0].message.content
    assert (provider, content) == (TYPES[first + 1], "You said: Anybody?")


def test_failover_skips_vendors_that_do_not_support_a_field(product: Product, sdk: Any) -> None:
    supporting_types = [
        type
        for type in TYPES
        if not isinstance(product.vendors[type].dialect.translator.capabilities.rules["seed"], Unsupported)
    ]
    raw = sdk.with_raw_response.create(model="any", messages=[user("Again?")], seed=7)
    assert (raw.headers["x-provider"], raw.headers["x-attempts"]) == (supporting_types[0], "1")


def test_bedrock_without_a_key_is_called_with_the_function_s_role(product: Product, sdk: Any) -> None:
    body = {"model": "nova", "messages": [user()]}
    assert sdk.create(**body).choices[0].message.content == "Hi"
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json={"request": body})
    job = product.http.get("/api/WaitForOpenAiChat", params={"refId": queued.json()["refId"]}).json()
    assert job["result"]["state"] == "Completed"
    chat_request, job_request = (request.lower() for request in product.by_role.requests)
    for raw_request in (chat_request, job_request):
        assert "authorization: aws4-hmac-sha256 credential=" in raw_request
        assert "/us-east-1/bedrock/aws4_request" in raw_request
