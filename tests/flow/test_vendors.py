"""Each vendor behind the same request, through the running product, as the official OpenAI SDK and LangChain see it."""

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

from aiserver.providers.translation.capabilities import Unsupported
from local.choose_upstream import Upstream
from local.cloud import Cloud
from tests import hostile_servers
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.conversations import PIXEL, TIME, WEATHER, image, text, user
from tests.vendors.dialects import DIALECTS
from tests.vendors.semantics import Answer, Media
from tests.vendors.server import VendorServer, answered, serving

KEY = "vk-of-the-gateway"
CALLED = [("get_weather", {"place": "Rome", "days": 3})]
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
    """A running product before the vendors' servers."""

    url: str
    key: str
    vendors: dict[str, VendorServer]
    http: httpx.Client
    by_role: hostile_servers.Receiver


def providers(vendors: Iterable[VendorServer], by_role: int) -> Upstream:
    """A provider for each vendor, which has its model as `<type>/model`; all of them have `any`, in order.

    At the port `by_role` is a Bedrock for whose provider there is no key.
    """
    told: list[dict[str, Any]] = [
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
    told.append(
        {"name": "by-role", "type": "bedrock", "base_url": f"http://127.0.0.1:{by_role}", "models": {"nova": ""}}
    )
    return Upstream(json.dumps({"providers": told}), {"VENDOR_KEY": KEY}, "Answers come from servers of this test's.")


@pytest.fixture(scope="module")
def started() -> Iterator[Product]:
    with ExitStack() as running:
        vendors = {dialect.type: running.enter_context(serving(dialect, KEY)) for dialect in DIALECTS}
        said = hostile_servers.answers(
            200, "content-type: application/json", body=BedrockDialect().message(Answer("Hi"))
        )
        by_role = running.enter_context(hostile_servers.receiver(said, said))
        cloud = running.enter_context(Cloud(providers(vendors.values(), by_role.port)))
        headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
        http = httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False)
        yield Product(cloud.base_url, cloud.seeded.api_key, vendors, running.enter_context(http), by_role)


@pytest.fixture
def product(started: Product) -> Product:
    for vendor in started.vendors.values():
        vendor.requests.clear()
        vendor.heard.clear()
    return started


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


def test_a_chat_is_answered_with_its_usage_and_the_vendor_s_id(sdk: Any, vendor: VendorServer, model: str) -> None:
    messages = [{"role": "system", "content": "Be kind."}, user([text("Look"), image(PIXEL)])]
    raw = sdk.with_raw_response.create(model=model, messages=messages, max_tokens=9)
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: Look"
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (11, 3)
    assert (raw.headers["x-request-id"], raw.headers["x-provider"]) == ("req_1", vendor.dialect.type)
    heard = vendor.heard[-1]
    assert (heard.system, heard.max_tokens) == (("Be kind.",), 9)
    assert any(isinstance(said, Media) for said in heard.turns[0].said)


def test_a_stream_comes_in_pieces_and_tells_its_usage(sdk: Any, model: str) -> None:
    asked = {"messages": [user("Say it, and think")], "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(sdk.create(model=model, **asked))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    said = [delta.content for delta in deltas if delta.content]
    assert "".join(said) == "You said: Say it, and think"
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "I was told to think."
    assert (len(said) > 3, chunks[-1].usage.completion_tokens) == (True, 7)


@pytest.mark.parametrize("streams", [False, True])
def test_tools_are_called_and_hear_back(streams: bool, sdk: Any, vendor: VendorServer, model: str) -> None:
    messages: list[Any] = [user("Weather and time?")]
    asking = _turn(sdk, streams, model=model, messages=messages, tools=[WEATHER, TIME])
    calls = asking.tool_calls
    named = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
    assert named == [("get_weather", {"place": "Rome", "days": 3}), ("get_time", {})]
    messages.append(asking)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": call.function.name} for call in calls]
    told = _turn(sdk, streams, model=model, messages=messages, tools=[WEATHER, TIME])
    assert told.content == "The tools said: get_weather; get_time"


@pytest.mark.parametrize("streams", [False, True])
def test_reasoning_is_sent_back_in_the_vendor_s_own_words(
    streams: bool, sdk: Any, vendor: VendorServer, model: str
) -> None:
    messages: list[Any] = [user("Weather? And think")]
    told = _turn(sdk, streams, model=model, messages=messages, tools=[WEATHER])
    assert told.reasoning_content == "I was told to think."
    messages += [told, {"role": "tool", "tool_call_id": told.tool_calls[0].id, "content": "sunny"}]
    assert _turn(sdk, streams, model=model, messages=messages, tools=[WEATHER]).content == "The tools said: sunny"
    said = json.loads(vendor.dialect.message(answered(vendor.heard[0], "think")))
    assert vendor.dialect.turn(said) in vendor.dialect.turns(json.loads(vendor.requests[-1].body))


def _turn(sdk: Any, streams: bool, **asked: Any) -> Any:
    """The turn of the assistant's, as a client keeps it."""
    if not streams:
        return sdk.create(**asked).choices[0].message
    with sdk.stream(**asked) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0].message


def test_an_answer_comes_by_a_schema(sdk: Any, model: str) -> None:
    answer = sdk.parse(model=model, messages=[user("The largest?")], response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rome", people=3)


def test_langchain_calls_tools_and_goes_on(langchain: ChatOpenAI) -> None:
    bound = langchain.bind_tools([get_weather])
    called = bound.invoke("Weather?")
    assert isinstance(called, AIMessage)
    assert [(call["name"], call["args"]) for call in called.tool_calls] == CALLED
    result = ToolMessage(get_weather("Rome", 3), tool_call_id=called.tool_calls[0]["id"])
    told = bound.invoke([("user", "Weather?"), called, result])
    assert told.content == "The tools said: sunny in Rome for 3 days"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_what_it_can_parse(method: Any, langchain: ChatOpenAI) -> None:
    assert langchain.with_structured_output(City, method=method).invoke("The largest?") == City(name="Rome", people=3)


def test_langchain_reads_a_stream_of_calls(langchain: ChatOpenAI) -> None:
    whole: Any = None
    for chunk in langchain.bind_tools([get_weather]).stream("Weather?"):
        whole = chunk if whole is None else whole + chunk
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == CALLED


def test_what_it_refuses_is_told_with_its_status_and_its_wait(sdk: Any, vendor: VendorServer, model: str) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        sdk.create(model=model, messages=[user("fail 429")])
    assert (limited.value.response.headers["retry-after"], limited.value.request_id) == ("7", "req_1")
    assert limited.value.response.json()["responseStatus"]["errorCode"] == "TooManyRequests"
    with pytest.raises(openai.BadRequestError) as wrong:
        sdk.create(model=model, messages=[user("fail 400")])
    assert "As you wish" in wrong.value.message
    with pytest.raises(openai.InternalServerError) as ours:
        sdk.create(model=model, messages=[user("fail 403")])
    assert (ours.value.status_code, "As you wish" in ours.value.message) == (502, False)


def test_what_has_no_words_is_refused_before_any_call(sdk: Any, vendor: VendorServer, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.create(model=model, messages=[user()], logit_bias={"1": 2})
    assert (refused.value.param, vendor.dialect.vendor.capabilities.vendor in refused.value.message) == (
        "logit_bias",
        True,
    )
    assert vendor.requests == []


def test_a_stream_that_fails_in_the_middle_is_told(sdk: Any, model: str) -> None:
    with pytest.raises(openai.APIError, match="As you wish"):
        list(sdk.create(model=model, messages=[user("break off, but not before some words")], stream=True))


def test_a_job_is_answered_and_one_without_words_is_not_accepted(product: Product, model: str) -> None:
    asked = {"model": model, "messages": [user("Later")]}
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json={"request": asked})
    assert queued.status_code == 200, queued.text
    told = product.http.get("/api/WaitForOpenAiChat", params={"refId": queued.json()["refId"]}).json()
    assert json.loads(told["result"]["responseBody"])["choices"][0]["message"]["content"] == "You said: Later"
    refused = product.http.post("/api/QueueOpenAiChatCompletion", json={"request": {**asked, "logit_bias": {"1": 2}}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logit_bias")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("first", range(len(TYPES) - 1))
def test_a_vendor_that_is_down_gives_way_to_the_next(first: int, streams: bool, product: Product, sdk: Any) -> None:
    """All of them serve `any`, in order; those before the last are down in turn."""
    for type in TYPES[: first + 1]:
        product.vendors[type].down = [503]
    asked = {"model": "any", "messages": [user("Anybody?")]}
    if streams:
        with sdk.with_streaming_response.create(**asked, stream=True) as response:
            heard = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
            provider = response.headers["x-provider"]
        said = "".join(json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in heard)
    else:
        raw = sdk.with_raw_response.create(**asked)
        provider, said = raw.headers["x-provider"], raw.parse().choices[0].message.content
    assert (provider, said) == (TYPES[first + 1], "You said: Anybody?")


def test_who_has_no_words_gives_way_to_who_has(product: Product, sdk: Any) -> None:
    able = [
        type
        for type in TYPES
        if not isinstance(product.vendors[type].dialect.vendor.capabilities.rules["seed"], Unsupported)
    ]
    raw = sdk.with_raw_response.create(model="any", messages=[user("Again?")], seed=7)
    assert (raw.headers["x-provider"], raw.headers["x-attempts"]) == (able[0], "1")


def test_bedrock_without_a_key_is_asked_in_the_function_s_own_name_now_and_by_a_job(product: Product, sdk: Any) -> None:
    asked = {"model": "nova", "messages": [user()]}
    assert sdk.create(**asked).choices[0].message.content == "Hi"
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json={"request": asked})
    told = product.http.get("/api/WaitForOpenAiChat", params={"refId": queued.json()["refId"]}).json()
    assert told["result"]["state"] == "Completed"
    now, later = (request.lower() for request in product.by_role.requests)
    for sent in (now, later):
        assert "authorization: aws4-hmac-sha256 credential=" in sent
        assert "/us-east-1/bedrock/aws4_request" in sent
