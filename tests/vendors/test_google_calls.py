"""Gemini has no `parallel_tool_calls`: with false, the gateway returns only the first call."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.google import GOOGLE
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.wire import sse
from tests.vendors.conversations import TIME, WEATHER, user
from tests.vendors.dispatch import open_stream, send
from tests.vendors.google import GoogleDialect
from tests.vendors.google_calls import request_body
from tests.vendors.server import VendorServer, run_vendor_server

KEY = "vk-of-the-gateway"
REQUEST: dict[str, Any] = {
    "model": GoogleDialect.model,
    "messages": [user("Weather and time?")],
    "tools": [WEATHER, TIME],
}
SINGLE_CALL: dict[str, Any] = {"parallel_tool_calls": False}


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with run_vendor_server(GoogleDialect(), KEY) as vendor_server:
        yield vendor_server


def call_message(server: VendorServer, **options: Any) -> dict[str, Any]:
    response = send(upstream(server), json.dumps(REQUEST | options).encode())
    return json.loads(response.body)["choices"][0]["message"]


def stream_call_names(server: VendorServer, **options: Any) -> list[Any]:
    with open_stream(upstream(server), json.dumps(REQUEST | {"stream": True} | options).encode()) as stream:
        events = b"".join(event or b"" for event in stream.events)
    *chunks, _ = [sse.event_data(event) for event in sse.EventSplitter().split(events)]
    deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return [call["function"]["name"] for delta in deltas for call in delta.get("tool_calls", ())]


def upstream(server: VendorServer) -> Upstream:
    fields = {"name": "p", "preset": "google", "base_url": server.origin, "models": {"m": ""}}
    return Upstream(Provider.model_validate(fields), GoogleDialect.model, model_is_configured=True, api_key=KEY)


def test_parallel_tool_calls_are_returned_by_default(server: VendorServer) -> None:
    assert [call["function"]["name"] for call in call_message(server)["tool_calls"]] == ["get_weather", "get_time"]
    assert stream_call_names(server) == ["get_weather", "get_time"]


def test_parallel_tool_calls_false_returns_one_call(server: VendorServer) -> None:
    """The next request contains no other call either."""
    message = call_message(server, **SINGLE_CALL)
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]
    assert stream_call_names(server, **SINGLE_CALL) == ["get_weather"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sunny"}
    assert len(request_body(user(), message, result)["contents"][1]["parts"]) == 1


def test_parallel_tool_calls_false_applies_to_extension_parts() -> None:
    parts = [{"executableCode": {"code": "1"}}, *({"functionCall": {"name": name}} for name in "ab"), {"text": "So."}]
    body = json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).encode()
    mapped = GOOGLE.map_response(body, ResponseContext(0, lambda: "call_born", single_tool_call=True)).body
    message = json.loads(mapped)["choices"][0]["message"]
    assert [next(iter(part)) for part in message["google"]["parts"]] == ["executableCode", "functionCall", "text"]


@pytest.mark.parametrize("invalid_options", [{"seed": 1, "frobnicate": 1}, {"parallel_tool_calls": "no"}])
def test_invalid_request_is_rejected_before_the_provider_is_called(
    server: VendorServer, invalid_options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        call_message(server, **invalid_options)
    assert server.requests == []
