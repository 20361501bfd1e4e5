"""Calls a vendor that speaks a protocol of its own as any other: translated there, and back."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import httpx
import msgspec

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderResponse
from aiserver.limits import MAX_ANSWER_BYTES, MAX_ANSWER_VALUES, MAX_LIST_BYTES
from aiserver.providers import memory_budget
from aiserver.providers.error_message import extract_message
from aiserver.providers.http import ProviderRequest, open_stream, send
from aiserver.providers.openai_response import map_error
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.stream import ProviderStream
from aiserver.providers.translation.adapter import (
    Adapter,
    EmptyResponse,
    ResponseContext,
    VendorError,
    VendorEventMapper,
    Wire,
)
from aiserver.providers.translation.chat import Chat
from aiserver.wire import sse
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.json_text import count_values

MAX_PAGES = 20  # of a list of models
IGNORED_DATA = (sse.DONE, b"null", b"{}")  # of proxies that put OpenAI's end, or a sign of life, into any stream
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError)


class AdapterClient:
    """Calls providers of one vendor's type; its promises are those of providers/openai.py."""

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
        """Send one request, translated, and wait for the whole answer, translated back; see OpenAi.call.

        The vendors know no idempotency key. Raises: as OpenAi.call.
        """
        with memory_budget.translation_lock:
            chat = Chat(body, self._adapter.capabilities)
            asked = self._build_request(provider, chat, api_key)
            model, one_call = chat.model, chat.single_tool_call
            del chat  # it holds the request as objects, and the response may be long in coming
        judge = ResponseMapper(self._adapter, provider, self._clock, model_is_configured)
        with Redaction(api_key).redact_errors():
            answer = send(self._http, provider, asked, timeout_s=timeout_s)
            with memory_budget.translation_lock:
                return judge.map_response(answer, self._response_context(model, one_call))

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
        """Send one request and wait for the first event of its answer; see OpenAi.stream."""
        ends_ms = self._clock.now_ms() + total_timeout_s * 1000
        chat = Chat(body, self._adapter.capabilities)
        asked = self._build_request(provider, chat, api_key)
        judge = ResponseMapper(self._adapter, provider, self._clock, model_is_configured)
        redaction = Redaction(api_key)
        streamed = open_stream(
            self._http, provider, asked, head_timeout_s=head_timeout_s, total_timeout_s=total_timeout_s
        )
        with redaction.redact_errors(), streamed as (head, pieces):
            if pieces is None:
                judge.map_response(head, self._response_context(chat.model, chat.single_tool_call))
                raise ProviderError(f"Provider {provider.name} did not stream its answer", may_be_billed=True)
            events = self._adapter.create_event_mapper(chat, self._response_context(chat.model, chat.single_tool_call))
            came = self._wire.decode_frames(pieces) if self._wire else pieces
            stream = ProviderStream(provider.name, head.headers, came, MappedEvents(events, judge), redaction)
            stream.await_first_event(self._clock, min(provider.timeout_s * 1000, ends_ms - self._clock.now_ms()))
        if events.request_id:
            stream.headers.setdefault("x-request-id", events.request_id)
        return stream

    def list_models(self, provider: Provider, *, api_key: str | None, timeout_s: float) -> list[str]:
        """The ids of the models that the provider lists, sorted. Raises: as OpenAi.models."""
        judge = ResponseMapper(self._adapter, provider, self._clock, model_is_configured=False)
        listing = self._adapter.model_pages
        assert listing  # its row in the catalogue says that it has one
        ids: set[str] = set()
        after: str | None = None
        for _ in range(MAX_PAGES):
            asked = replace(listing.build_request(after), api_key=api_key, max_response_bytes=MAX_LIST_BYTES)
            with Redaction(api_key).redact_errors():
                answer = send(self._http, provider, asked, timeout_s=timeout_s)
                if not answer.is_success:
                    raise judge.map_error(answer)
            try:
                page, after = listing.parse(answer.body)
            except DECODE_ERRORS:
                raise ProviderError(f"Provider {provider.name} answered something that is no list of models") from None
            ids.update(page)
            if after is None:
                break
        return sorted(ids)

    def _build_request(self, provider: Provider, chat: Chat, api_key: str | None) -> ProviderRequest:
        asked = replace(self._adapter.build_request(chat), api_key=api_key)
        return self._wire.sign(provider, asked) if self._wire and not api_key else asked

    def _response_context(self, model: str, one_call: bool) -> ResponseContext:
        id, call_id = f"chatcmpl-{self._clock.token()}", lambda: f"call_{self._clock.token()[:24]}"
        return ResponseContext(self._clock.now_ms() // 1000, call_id, one_call, id, model)


class ResponseMapper:
    """Reads what one provider says as an answer, or as the error that it means."""

    def __init__(self, adapter: Adapter, provider: Provider, clock: Clock, model_is_configured: bool) -> None:
        self._adapter = adapter
        self._provider = provider
        self._clock = clock
        self._model_is_configured = model_is_configured

    def map_response(self, response: ProviderResponse, context: ResponseContext) -> ProviderResponse:
        """The answer in OpenAI's words. Raises: ProviderError."""
        if not response.is_success:
            raise self.map_error(response)
        try:
            told = self._adapter.map_response(response.body, context)
        except VendorError as failed:
            raise self.map_vendor_error(failed) from None
        except EmptyResponse as nothing:
            raise self.empty_response_error(response.body, nothing.reason) from None
        except DECODE_ERRORS:
            raise self.empty_response_error(response.body) from None
        headers = ({"x-request-id": told.request_id} if told.request_id else {}) | response.headers
        return ProviderResponse(response.status, headers, told.body, usage=told.usage)

    def map_error(self, response: ProviderResponse) -> ProviderError:
        try:
            said = self._adapter.map_error(response)
        except DECODE_ERRORS:  # the status says what it means, and the body says why, in any shape
            said = replace(response, status=500) if response.is_success else response
        else:
            said = said if extract_message(said.body) else replace(response, status=said.status, headers=said.headers)
        wait_s = retry_after_s(said.headers.get("retry-after"), self._clock.now_ms())
        return map_error(self._provider, said, model_is_configured=self._model_is_configured, retry_after_s=wait_s)

    def map_vendor_error(self, failed: VendorError) -> ProviderError:
        """What an error means that came with status 200; before the first of the answer's words nothing was billed."""
        error = self.map_error(ProviderResponse(200, {}, failed.body))
        error.may_be_billed = error.may_be_billed or failed.has_content
        error.is_neutral = failed.is_content_error
        return error

    def empty_response_error(self, body: bytes, reason: str = "") -> ProviderError:
        """What a 200 without an answer means, in the provider's own words where it has some."""
        words = f"Provider {self._provider.name}: {reason or 'the response holds no answer'}"
        return ProviderError((not reason and extract_message(body)) or words, may_be_billed=True)

    def too_large_error(self) -> ProviderError:
        return ProviderError(f"Provider {self._provider.name} sent an answer that is too large", may_be_billed=True)


class MappedEvents:
    """stream.Translation of a vendor's events, whose errors are ProviderErrors."""

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
        if self._bytes > MAX_ANSWER_BYTES:  # the vendor's whole answer is kept, for what stands at its end
            raise self._mapper.too_large_error()
        data = sse.event_data(event)
        if data.strip() in IGNORED_DATA:
            return b""
        if count_values(data, MAX_ANSWER_VALUES) > MAX_ANSWER_VALUES:
            raise self._mapper.too_large_error()
        if self._events.is_complete:  # what follows a complete answer takes nothing back
            with suppress(EmptyResponse, *DECODE_ERRORS):
                return self._events.on_event(event)
            return b""
        return self._map_errors(lambda: self._events.on_event(event), data)

    def on_end(self) -> bytes:
        return self._map_errors(self._events.on_end, b"")

    def _map_errors(self, tell: Callable[[], bytes], said: bytes) -> bytes:
        try:
            return tell()
        except VendorError as failed:
            raise self._mapper.map_vendor_error(failed) from None
        except EmptyResponse as nothing:
            raise self._mapper.empty_response_error(said, nothing.reason) from None
        except DECODE_ERRORS:
            raise self._mapper.empty_response_error(said) from None
