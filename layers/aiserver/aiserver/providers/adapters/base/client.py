"""Calls a vendor with a protocol of its own: translates the request, and the response back to OpenAI's format."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import httpx
import msgspec

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderResponse
from aiserver.limits import MAX_LIST_BYTES, MAX_RESPONSE_BYTES, MAX_RESPONSE_VALUES
from aiserver.providers import memory_budget
from aiserver.providers.adapters.base.adapter import (
    Adapter,
    ResponseContext,
    UnusableResponse,
    VendorError,
    VendorEventMapper,
    Wire,
)
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.openai.errors import map_error
from aiserver.providers.error_message import extract_message
from aiserver.providers.http import ProviderRequest, open_stream, send
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.stream import ProviderStream
from aiserver.wire import sse
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.json_text import count_values

MAX_PAGES = 20  # of a list of models
IGNORED_DATA = (sse.DONE, b"null", b"{}")  # from proxies that add OpenAI's end event, or a keep-alive, to any stream
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError)


class AdapterClient:
    """Calls providers of one vendor type, with the guarantees of OpenAiClient in adapters/openai/client.py."""

    def __init__(self, http: httpx.Client, clock: Clock, adapter: Adapter, wire: Wire | None = None) -> None:
        self._http = http
        self._clock = clock
        self._adapter = adapter
        self._wire = wire

    def call(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        idempotency_key: str | None,
        model_is_configured: bool,
        timeout_s: float,
    ) -> ProviderResponse:
        """Send one translated request, wait for the complete response and translate it; see OpenAiClient.call.

        The vendors have no idempotency key. Raises: as OpenAiClient.call.
        """
        with memory_budget.translation_lock:
            chat = Chat(body, self._adapter.capabilities)
            request = self._build_request(provider, chat, api_key)
            model, single_tool_call = chat.model, chat.single_tool_call
            del chat  # frees the parsed request: the response may take minutes
        mapper = ResponseMapper(self._adapter, provider, self._clock, model_is_configured)
        with Redaction(api_key).redact_errors():
            response = send(self._http, provider, request, timeout_s=timeout_s)
            with memory_budget.translation_lock:
                return mapper.map_response(response, self._response_context(model, single_tool_call))

    def stream(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        model_is_configured: bool,
        head_timeout_s: float,
        total_timeout_s: float,
    ) -> ProviderStream:
        """Send one request and wait for the first event of its response; see OpenAiClient.stream."""
        deadline_ms = self._clock.now_ms() + total_timeout_s * 1000
        chat = Chat(body, self._adapter.capabilities)
        request = self._build_request(provider, chat, api_key)
        mapper = ResponseMapper(self._adapter, provider, self._clock, model_is_configured)
        redaction = Redaction(api_key)
        response = open_stream(
            self._http, provider, request, head_timeout_s=head_timeout_s, total_timeout_s=total_timeout_s
        )
        with redaction.redact_errors(), response as (head, chunks):
            if chunks is None:
                mapper.map_response(head, self._response_context(chat.model, chat.single_tool_call))
                raise ProviderError(f"Provider {provider.name}: the response is not a stream", may_be_billed=True)
            events = self._adapter.create_event_mapper(chat, self._response_context(chat.model, chat.single_tool_call))
            frames = self._wire.decode_frames(chunks) if self._wire else chunks
            stream = ProviderStream(provider.name, head.headers, frames, MappedEvents(events, mapper), redaction)
            stream.await_first_event(self._clock, min(provider.timeout_s * 1000, deadline_ms - self._clock.now_ms()))
        if events.request_id:
            stream.headers.setdefault("x-request-id", events.request_id)
        return stream

    def list_models(self, provider: Provider, *, api_key: str | None, timeout_s: float) -> list[str]:
        """The ids of the models that the provider lists, sorted. Raises: as OpenAiClient.list_models."""
        mapper = ResponseMapper(self._adapter, provider, self._clock, model_is_configured=False)
        model_pages = self._adapter.model_pages
        assert model_pages  # the provider's catalogue preset has a model list
        ids: set[str] = set()
        page_token: str | None = None
        for _ in range(MAX_PAGES):
            request = replace(model_pages.build_request(page_token), api_key=api_key, max_response_bytes=MAX_LIST_BYTES)
            with Redaction(api_key).redact_errors():
                response = send(self._http, provider, request, timeout_s=timeout_s)
                if not response.is_success:
                    raise mapper.map_error(response)
            try:
                page_ids, page_token = model_pages.parse(response.body)
            except DECODE_ERRORS:
                raise ProviderError(f"Provider {provider.name}: the response is not a list of models") from None
            ids.update(page_ids)
            if page_token is None:
                break
        return sorted(ids)

    def _build_request(self, provider: Provider, chat: Chat, api_key: str | None) -> ProviderRequest:
        request = replace(self._adapter.build_request(chat), api_key=api_key)
        return self._wire.sign(provider, request) if self._wire and not api_key else request

    def _response_context(self, model: str, single_tool_call: bool) -> ResponseContext:
        id, new_call_id = f"chatcmpl-{self._clock.token()}", lambda: f"call_{self._clock.token()[:24]}"
        return ResponseContext(self._clock.now_ms() // 1000, new_call_id, single_tool_call, id, model)


class ResponseMapper:
    """Maps the responses of one provider to OpenAI's format, or to a ProviderError."""

    def __init__(self, adapter: Adapter, provider: Provider, clock: Clock, model_is_configured: bool) -> None:
        self._adapter = adapter
        self._provider = provider
        self._clock = clock
        self._model_is_configured = model_is_configured

    def map_response(self, response: ProviderResponse, context: ResponseContext) -> ProviderResponse:
        """The response in OpenAI's format. Raises: ProviderError."""
        if not response.is_success:
            raise self.map_error(response)
        try:
            mapped = self._adapter.map_response(response.body, context)
        except VendorError as error:
            raise self.map_vendor_error(error) from None
        except UnusableResponse as error:
            raise self.empty_response_error(response.body, error.reason) from None
        except DECODE_ERRORS:
            raise self.empty_response_error(response.body) from None
        headers = ({"x-request-id": mapped.request_id} if mapped.request_id else {}) | response.headers
        return ProviderResponse(response.status, headers, mapped.body, usage=mapped.usage)

    def map_error(self, response: ProviderResponse) -> ProviderError:
        try:
            mapped = self._adapter.map_error(response)
        except DECODE_ERRORS:  # an error in another format: the status decides, the body may hold a message
            mapped = replace(response, status=500) if response.is_success else response
        else:
            if not extract_message(mapped.body):
                mapped = replace(response, status=mapped.status, headers=mapped.headers)
        wait_s = retry_after_s(mapped.headers.get("retry-after"), self._clock.now_ms())
        return map_error(self._provider, mapped, model_is_configured=self._model_is_configured, retry_after_s=wait_s)

    def map_vendor_error(self, vendor_error: VendorError) -> ProviderError:
        """Map an error that came with status 200; nothing was billed before the first content."""
        error = self.map_error(ProviderResponse(200, {}, vendor_error.body))
        error.may_be_billed = error.may_be_billed or vendor_error.has_content
        error.is_neutral = vendor_error.is_content_error
        return error

    def empty_response_error(self, body: bytes, reason: str = "") -> ProviderError:
        """The error for a 200 without a completion; its message is the provider's own, if the body contains one."""
        message = f"Provider {self._provider.name}: {reason or 'the response contains no completion'}"
        return ProviderError((not reason and extract_message(body)) or message, may_be_billed=True)

    def too_large_error(self) -> ProviderError:
        return ProviderError(f"Provider {self._provider.name}: the response is too large", may_be_billed=True)


class MappedEvents:
    """An EventMapper of a vendor's events that raises ProviderErrors."""

    def __init__(self, events: VendorEventMapper, mapper: ResponseMapper) -> None:
        self._events = events
        self._mapper = mapper
        self._bytes = 0

    @property
    def usage(self) -> str | None:
        return self._events.usage

    @property
    def content_events(self) -> int:
        return self._events.content_events

    @property
    def is_complete(self) -> bool:
        return self._events.is_complete

    @property
    def is_done(self) -> bool:
        return self._events.is_done

    def on_event(self, event: bytes) -> bytes:
        self._bytes += len(event)
        if self._bytes > MAX_RESPONSE_BYTES:  # the mapper keeps the complete response for the final event
            raise self._mapper.too_large_error()
        data = sse.event_data(event)
        if data.strip() in IGNORED_DATA:
            return b""
        if count_values(data, MAX_RESPONSE_VALUES) > MAX_RESPONSE_VALUES:
            raise self._mapper.too_large_error()
        if self._events.is_complete:  # an error after a complete response does not revoke it
            with suppress(UnusableResponse, *DECODE_ERRORS):
                return self._events.on_event(event)
            return b""
        return self._map_errors(lambda: self._events.on_event(event), data)

    def on_end(self) -> bytes:
        return self._map_errors(self._events.on_end, b"")

    def _map_errors(self, map_event: Callable[[], bytes], data: bytes) -> bytes:
        try:
            return map_event()
        except VendorError as error:
            raise self._mapper.map_vendor_error(error) from None
        except UnusableResponse as error:
            raise self._mapper.empty_response_error(data, error.reason) from None
        except DECODE_ERRORS:
            raise self._mapper.empty_response_error(data) from None
