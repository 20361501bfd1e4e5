"""Gemini cannot be told to call one tool at a time; whoever asks for that hears of one call all the same."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from aiserver.providers.google import GOOGLE
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.client import AdapterClient
from aiserver.wire import sse
from tests.fakes import FakeClock
from tests.vendors.conversations import TIME, WEATHER, user
from tests.vendors.google import GoogleDialect
from tests.vendors.google_calls import sent
from tests.vendors.server import VendorServer, serving

KEY = "vk-of-the-gateway"
ASKED: dict[str, Any] = {
    "model": GoogleDialect.model,
    "messages": [user("Weather and time?")],
    "tools": [WEATHER, TIME],
}
ONE: dict[str, Any] = {"parallel_tool_calls": False}


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with serving(GoogleDialect(), KEY) as served:
        yield served


def whole(server: VendorServer, **more: Any) -> dict[str, Any]:
    with create_client() as http:
        caller = AdapterClient(http, FakeClock(), GOOGLE)
        body = json.dumps(ASKED | more).encode()
        told = caller.call(
            provider(server),
            "chat.completions",
            body,
            api_key=KEY,
            idempotency_key=None,
            model_is_configured=True,
            timeout_s=9,
        )
    return json.loads(told.body)["choices"][0]["message"]


def streamed(server: VendorServer, **more: Any) -> list[Any]:
    with create_client() as http:
        caller = AdapterClient(http, FakeClock(), GOOGLE)
        body = json.dumps(ASKED | {"stream": True} | more).encode()
        stream = caller.stream(
            provider(server),
            "chat.completions",
            body,
            api_key=KEY,
            model_is_configured=True,
            head_timeout_s=9,
            total_timeout_s=9,
        )
        said = b"".join(piece or b"" for piece in stream)
    *chunks, _ = [sse.event_data(event) for event in sse.EventSplitter().split(said)]
    deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return [call["function"]["name"] for delta in deltas for call in delta.get("tool_calls", ())]


def provider(server: VendorServer) -> Provider:
    told = {"name": "p", "preset": "google", "base_url": server.origin, "models": {"m": ""}}
    return Provider.model_validate(told)


def test_it_calls_as_many_at_once_as_it_wants(server: VendorServer) -> None:
    assert [call["function"]["name"] for call in whole(server)["tool_calls"]] == ["get_weather", "get_time"]
    assert streamed(server) == ["get_weather", "get_time"]


def test_one_call_is_told_where_one_is_wanted_and_the_next_turn_knows_of_no_other(server: VendorServer) -> None:
    message = whole(server, **ONE)
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]
    assert streamed(server, **ONE) == ["get_weather"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sunny"}
    assert len(sent(user(), message, result)["contents"][1]["parts"]) == 1


def test_parts_that_are_told_whole_hold_one_call_too() -> None:
    parts = [{"executableCode": {"code": "1"}}, *({"functionCall": {"name": name}} for name in "ab"), {"text": "So."}]
    body = json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).encode()
    told = GOOGLE.map_response(body, ResponseContext(0, lambda: "call_born", single_tool_call=True)).body
    message = json.loads(told)["choices"][0]["message"]
    assert [next(iter(part)) for part in message["google"]["parts"]] == ["executableCode", "functionCall", "text"]


@pytest.mark.parametrize("odd", [{"seed": 1, "frobnicate": 1}, {"parallel_tool_calls": "no"}])
def test_what_an_answer_is_read_by_is_judged_before_it_is_asked_for(server: VendorServer, odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        whole(server, **odd)
    assert server.requests == []
