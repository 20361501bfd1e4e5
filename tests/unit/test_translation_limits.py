"""Translated responses, condition by condition: signatures, errors, sizes, and members that are sent only when set."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from aiserver.clock import Deadline
from aiserver.errors import InvalidRequest, ProviderError, ProviderRateLimited
from aiserver.operations import CHAT
from aiserver.providers.adapters.base import translation
from aiserver.providers.adapters.base.adapter import (
    ChatTranslator,
    MappedResponse,
    ResponseContext,
    UnusableResponse,
    VendorError,
)
from aiserver.providers.adapters.base.capabilities import Capabilities, Mapped, Unsupported
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.completion import DONE, Choice, ChunkBuilder, Usage
from aiserver.providers.adapters.base.translation import MappedEvents, ResponseMapper, TranslatingAdapter
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import ByteCounter
from tests.app import load_providers
from tests.fakes import FakeClock

(PROVIDER,) = load_providers({"name": "p", "models": {"m": ""}})
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
LIMIT = 20
Step = MappedResponse | Exception


class ScriptedEvents(ByteCounter):
    """EventMapper that raises the error that an event names, and completes at the event `end`."""

    def __init__(self) -> None:
        super().__init__('{"total_tokens":3}')
        self.errors: dict[bytes, Exception] = {}
        self.end_error: Exception | None = None

    def on_event(self, event: bytes) -> bytes:
        if error := next((error for name, error in self.errors.items() if name in event), None):
            raise error
        self.is_complete = self.is_complete or b"end" in event
        return event

    def on_end(self) -> bytes:
        if self.end_error:
            raise self.end_error
        return DONE


class Vendor:
    """A ChatTranslator whose responses are scripted, behind a TranslatingAdapter."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.built = 0
        self.response: Step = MappedResponse(b'{"id":"1"}', '{"total_tokens":3}')
        self.error = ProviderResponse(429, {"retry-after": "7"}, b'{"error":{"message":"mapped"}}')
        self.decodes_errors = True
        self.events = ScriptedEvents()
        rules = {path: Mapped("") for path in ("model", "messages", "messages[].role: user")} | {"n": Unsupported()}
        self.translator = ChatTranslator(
            Capabilities("Vendor", "anthropic", rules),
            self._build_request,
            lambda body, context: self._respond(),
            lambda context: self.events,
            lambda response: self._map_error(),
        )
        self.mapper = ResponseMapper(self.translator, upstream(), self.clock)

    def _build_request(self, chat: Chat) -> ProviderRequest:
        self.built += 1
        return ProviderRequest("POST", "/chat", None, chat.model.encode())

    def _respond(self) -> MappedResponse:
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    def _map_error(self) -> ProviderResponse:
        if not self.decodes_errors:
            raise msgspec.DecodeError
        return self.error

    def adapter(self, sign: Callable[[Provider, ProviderRequest], ProviderRequest] | None = None) -> TranslatingAdapter:
        return TranslatingAdapter(self.translator, self.clock, sign)

    def error_of(self, response: ProviderResponse) -> ProviderError:
        with pytest.raises(ProviderError) as raised:
            self.mapper.map_response(response, ResponseContext(0, str))
        return raised.value


def upstream(api_key: str | None = None) -> Upstream:
    return Upstream(PROVIDER, "x", model_is_configured=False, api_key=api_key)


def call(body: bytes = BODY) -> ProviderCall:
    return ProviderCall(CHAT, body, Deadline(0), Deadline(0))


# --- requests ---


@pytest.mark.parametrize(
    ("api_key", "has_signer", "signature"),
    [(None, True, "signed"), ("", True, "signed"), ("k", True, None), (None, False, None), ("k", False, None)],
)
def test_request_is_signed_only_without_an_api_key(
    api_key: str | None, has_signer: bool, signature: str | None
) -> None:
    def sign(provider: Provider, request: ProviderRequest) -> ProviderRequest:
        return replace(request, headers={"authorization": "signed"})

    exchange = Vendor().adapter(sign if has_signer else None).prepare(upstream(api_key), call())
    assert (exchange.request.api_key, exchange.request.headers.get("authorization")) == (api_key, signature)


def test_request_is_translated_once_for_each_model() -> None:
    vendor, request = Vendor(), call()
    adapter = vendor.adapter()
    for model in ("x", "x", "y", "x"):
        adapter.check(replace(upstream(), model=model), request)
    assert vendor.built == 2
    unsupported = call(BODY[:-1] + b',"n":2}')
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="'n' is not supported by Vendor"):
            adapter.check(upstream(), unsupported)


# --- complete responses ---


@pytest.mark.parametrize(("status", "is_success"), [(199, False), (200, True), (299, True), (300, False)])
def test_response_is_mapped_by_its_status(status: int, is_success: bool) -> None:
    vendor, response = Vendor(), ProviderResponse(status, {"x-a": "1"}, b"{}")
    if is_success:
        mapped = vendor.mapper.map_response(response, ResponseContext(0, str))
        assert mapped == ProviderResponse(status, {"x-a": "1"}, b'{"id":"1"}', '{"total_tokens":3}')
    else:
        assert isinstance(vendor.error_of(response), ProviderRateLimited)


def test_request_id_of_the_provider_header_takes_precedence() -> None:
    vendor = Vendor()
    vendor.response = MappedResponse(b"{}", None, "from body")
    for headers, expected in (({}, "from body"), ({"x-request-id": "from header"}, "from header")):
        response = vendor.mapper.map_response(ProviderResponse(200, headers, b"{}"), ResponseContext(0, str))
        assert response.headers["x-request-id"] == expected


def test_error_without_a_mapped_message_keeps_its_body() -> None:
    vendor, response = Vendor(), ProviderResponse(503, {"x-a": "1"}, b'{"message":"original"}')
    error = vendor.error_of(response)
    assert (error.message, error.status, error.retry_after_s) == ("mapped", 429, 7)
    vendor.error = replace(vendor.error, body=b"{}")
    error = vendor.error_of(response)
    assert (error.message, error.status, error.retry_after_s) == ("original", 429, 7)
    vendor.decodes_errors = False
    error = vendor.error_of(response)
    assert (error.message, error.status, error.retry_after_s) == ("original", 503, None)


@pytest.mark.parametrize("has_content", [True, False])
@pytest.mark.parametrize("is_content_error", [True, False])
def test_vendor_error_is_billed_only_after_content(has_content: bool, is_content_error: bool) -> None:
    vendor = Vendor()
    vendor.response = VendorError(b"{}", has_content=has_content, is_content_error=is_content_error)
    error = vendor.error_of(ProviderResponse(200, {}, b"{}"))
    assert (error.may_be_billed, error.is_neutral) == (has_content, is_content_error)


def test_vendor_error_that_may_be_billed_stays_so() -> None:
    vendor = Vendor()
    vendor.error = ProviderResponse(504, {}, b"timeout")
    vendor.response = VendorError(b"{}", has_content=False)
    assert vendor.error_of(ProviderResponse(200, {}, b"{}")).may_be_billed


@pytest.mark.parametrize(
    ("error", "body", "message"),
    [
        (UnusableResponse("it is blocked"), b'{"message":"m"}', "Provider p: it is blocked"),
        (UnusableResponse("it is blocked"), b'{"x":1}', "Provider p: it is blocked"),
        (UnusableResponse(), b'{"message":"m"}', "m"),
        (UnusableResponse(), b'{"x":1}', "Provider p: the response contains no completion"),
        (msgspec.DecodeError(), b'{"message":"m"}', "m"),
        (KeyError(), b'{"x":1}', "Provider p: the response contains no completion"),
    ],
)
def test_response_without_a_completion_gives_the_reason(error: Exception, body: bytes, message: str) -> None:
    vendor = Vendor()
    vendor.response = error
    raised = vendor.error_of(ProviderResponse(200, {}, body))
    assert (raised.message, raised.may_be_billed) == (message, True)
    vendor.events.errors = {b"{": error}
    with pytest.raises(ProviderError) as in_stream:
        MappedEvents(vendor.events, vendor.mapper).on_event(b"data: " + body + b"\n\n")
    assert (in_stream.value.message, in_stream.value.may_be_billed) == (message, True)


# --- events ---


@pytest.mark.parametrize(("size", "is_error"), [(LIMIT, False), (LIMIT + 1, True)])
def test_stream_is_limited_in_bytes(size: int, is_error: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "MAX_RESPONSE_BYTES", LIMIT)
    events = MappedEvents(ScriptedEvents(), Vendor().mapper)
    first, second = b"data: 1\n\n", b"data: ".ljust(size - 11, b"1") + b"\n\n"
    assert events.on_event(first) == first
    if is_error:
        with pytest.raises(ProviderError, match="the response is too large"):
            events.on_event(second)
    else:
        assert events.on_event(second) == second


@pytest.mark.parametrize(("values", "is_error"), [(LIMIT - 1, False), (LIMIT, True)])
def test_event_is_limited_in_values(values: int, is_error: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The array is a value, too."""
    monkeypatch.setattr(translation, "MAX_RESPONSE_VALUES", LIMIT)
    events = MappedEvents(ScriptedEvents(), Vendor().mapper)
    event = b"data: [" + b",".join([b"1"] * values) + b"]\n\n"
    if is_error:
        with pytest.raises(ProviderError, match="the response is too large"):
            events.on_event(event)
    else:
        assert [events.on_event(event), events.on_event(event)] == [event, event]


@pytest.mark.parametrize("data", ["[DONE]", "null", "{}", " {} "])
def test_end_of_another_protocol_is_ignored(data: str) -> None:
    events = MappedEvents(ScriptedEvents(), Vendor().mapper)
    assert events.on_event(f"data: {data}\n\n".encode()) == b""


def test_error_after_a_complete_response_is_ignored() -> None:
    vendor = Vendor()
    events = MappedEvents(vendor.events, vendor.mapper)
    vendor.events.errors = {b"bad": UnusableResponse("bad"), b"json": msgspec.DecodeError()}
    with pytest.raises(ProviderError, match="Provider p: bad"):
        events.on_event(b"data: bad\n\n")
    assert events.on_event(b"data: end\n\n") == b"data: end\n\n"
    assert (events.is_complete, events.is_done, events.usage) == (True, False, '{"total_tokens":3}')
    assert [events.on_event(event) for event in (b"data: bad\n\n", b"data: json\n\n")] == [b"", b""]
    assert events.on_end() == DONE
    vendor.events.end_error = UnusableResponse("bad")
    with pytest.raises(ProviderError, match="Provider p: bad"):
        events.on_end()


# --- completion ---


@pytest.mark.parametrize(
    ("usage", "details"),
    [
        (Usage(2, 3), {}),
        (Usage(2, 3, cached=0), {"prompt_tokens_details": {"cached_tokens": 0}}),
        (Usage(2, 3, reasoning=0), {"completion_tokens_details": {"reasoning_tokens": 0}}),
    ],
)
def test_usage_has_details_only_when_known(usage: Usage, details: dict[str, Any]) -> None:
    counts = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert json.loads(usage.text) == usage.to_openai == counts | details


def test_choice_has_its_set_members_only() -> None:
    message = {"role": "assistant", "content": None, "refusal": None}
    assert Choice().to_openai == {"message": message, "logprobs": None, "finish_reason": "stop"}
    tool_calls = [{"id": "1"}]
    choice = Choice(["a", "b"], ["c"], tool_calls, "length", {"anthropic": {}})
    message |= {"content": "ab", "reasoning_content": "c", "tool_calls": tool_calls, "anthropic": {}}
    assert choice.to_openai == {"message": message, "logprobs": None, "finish_reason": "length"}


@pytest.mark.parametrize("include_usage", [True, False])
def test_chunks_contain_usage_only_if_requested(include_usage: bool) -> None:
    builder = ChunkBuilder(7, include_usage=include_usage)
    first = json.loads(builder.delta(content="a").removeprefix(b"data: "))
    second = json.loads(builder.delta(content="b", extensions={"anthropic": 1}).removeprefix(b"data: "))
    assert [first["choices"][0]["delta"], second["choices"][0]["delta"]] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
    ]
    assert [("usage" in chunk, chunk.get("anthropic")) for chunk in (first, second)] == [
        (include_usage, None),
        (include_usage, 1),
    ]
    end = builder.end(Usage(1, 1))
    assert (b'"total_tokens":2' in end, end.endswith(DONE)) == (include_usage, True)
    assert builder.end(None) == DONE
