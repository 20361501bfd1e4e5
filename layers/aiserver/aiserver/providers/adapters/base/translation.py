"""Translates chats for a vendor with its own protocol, and the responses back to OpenAI's format."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from aiserver.clock import Clock
from aiserver.errors import InvalidRequest, ProviderError
from aiserver.limits import MAX_RESPONSE_BYTES, MAX_RESPONSE_VALUES
from aiserver.providers import memory_budget
from aiserver.providers.adapters.base.adapter import (
    DECODE_ERRORS,
    ChatTranslator,
    FrameDecoder,
    RequestSigner,
    ResponseContext,
    UnusableResponse,
    VendorError,
)
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.error_mapping import map_error
from aiserver.providers.error_message import extract_message
from aiserver.providers.request import ProviderRequest, TranslatedRequest
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import EventMapper
from aiserver.wire import sse
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.json_text import count_values

IGNORED_DATA = (sse.DONE, b"null", b"{}")  # from proxies that add OpenAI's end event, or a keep-alive, to any stream


class TranslatingAdapter:
    """The Adapter of a vendor with its own chat protocol."""

    def __init__(
        self,
        translator: ChatTranslator,
        clock: Clock,
        sign: RequestSigner | None = None,
        decode_frames: FrameDecoder | None = None,
    ) -> None:
        self.model_pages = translator.model_pages
        self._translator = translator
        self._clock = clock
        self._sign = sign
        self._decode_frames = decode_frames

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        self._translate(call, upstream.model)

    def prepare(self, upstream: Upstream, call: ProviderCall) -> "TranslatedExchange":
        translated = self._translate(call, upstream.model)
        request = replace(translated.request, api_key=upstream.api_key)
        if self._sign and not upstream.api_key:
            request = self._sign(upstream.provider, request)
        mapper = ResponseMapper(self._translator, upstream, self._clock)
        return TranslatedExchange(request, mapper, self._response_context(translated), self._decode_frames)

    def map_error(self, upstream: Upstream, response: ProviderResponse) -> ProviderError:
        return ResponseMapper(self._translator, upstream, self._clock).map_error(response)

    def _translate(self, call: ProviderCall, model: str) -> TranslatedRequest:
        """The request in the vendor's format, translated once for each model. Raises: InvalidRequest."""
        key = (self._translator.capabilities.vendor, model)
        if key not in call.translations:
            with memory_budget.translation_lock:
                call.translations[key] = self._try_translate(call, model)
        translated = call.translations[key]
        if isinstance(translated, InvalidRequest):
            raise translated
        return translated

    def _try_translate(self, call: ProviderCall, model: str) -> TranslatedRequest | InvalidRequest:
        """Keeps the translation alone: the parsed chat takes several times as much memory."""
        try:
            chat = parse_chat(call.body, self._translator.capabilities, model)
            request = self._translator.build_request(chat)
        except InvalidRequest as error:
            error.__context__ = None  # together with the traceback it would keep the parsed chat
            return error.with_traceback(None)
        return TranslatedRequest(request, chat.model, chat.single_tool_call, chat.include_usage)

    def _response_context(self, translated: TranslatedRequest) -> ResponseContext:
        return ResponseContext(
            created_s=self._clock.now_ms() // 1000,
            new_call_id=lambda: f"call_{self._clock.token()[:24]}",
            single_tool_call=translated.single_tool_call,
            id=f"chatcmpl-{self._clock.token()}",
            model=translated.model,
            include_usage=translated.include_usage,
        )


@dataclass(frozen=True)
class TranslatedExchange:
    """The Exchange of a translated chat."""

    request: ProviderRequest
    mapper: "ResponseMapper"
    context: ResponseContext
    decode_frames: FrameDecoder | None

    def map_response(self, response: ProviderResponse) -> ProviderResponse:
        with memory_budget.translation_lock:
            return self.mapper.map_response(response, self.context)

    def create_event_mapper(self) -> "MappedEvents":
        return MappedEvents(self.mapper.create_event_mapper(self.context), self.mapper)


class ResponseMapper:
    """Maps the responses of one upstream to OpenAI's format, or to a ProviderError."""

    def __init__(self, translator: ChatTranslator, upstream: Upstream, clock: Clock) -> None:
        self._translator = translator
        self._upstream = upstream
        self._provider = upstream.provider
        self._clock = clock

    def create_event_mapper(self, context: ResponseContext) -> EventMapper:
        return self._translator.create_event_mapper(context)

    def map_response(self, response: ProviderResponse, context: ResponseContext) -> ProviderResponse:
        """The response in OpenAI's format. Raises: ProviderError."""
        if not response.is_success:
            raise self.map_error(response)
        try:
            mapped = self._translator.map_response(response.body, context)
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
            mapped = self._translator.map_error(response)
        except DECODE_ERRORS:  # an error in another format: the status decides, the body may hold a message
            mapped = replace(response, status=500) if response.is_success else response
        else:
            if not extract_message(mapped.body):
                mapped = replace(response, status=mapped.status, headers=mapped.headers)
        wait_s = retry_after_s(mapped.headers.get("retry-after"), self._clock.now_ms())
        return map_error(self._upstream, mapped, retry_after_s=wait_s)

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

    def __init__(self, events: EventMapper, mapper: ResponseMapper) -> None:
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
    def request_id(self) -> str | None:
        return self._events.request_id

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
