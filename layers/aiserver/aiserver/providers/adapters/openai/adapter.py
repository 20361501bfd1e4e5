"""The adapter of OpenAI's protocol: OpenAI, the compatible presets of catalogue.py, and other compatible servers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from aiserver.clock import Clock
from aiserver.errors import ProviderError
from aiserver.operations import BodyKind, Operation, ResponseKind
from aiserver.providers.adapters.base.adapter import FrameDecoder, ModelPages
from aiserver.providers.adapters.openai.request import build_json, build_request, list_models_request, request_usage
from aiserver.providers.adapters.openai.response import check_response, parse_models
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.error_mapping import map_error
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire.http_dates import retry_after_s

if TYPE_CHECKING:
    from aiserver.providers.adapters.openai.audio import Units


class OpenAiAdapter:
    """Request and response bodies pass byte for byte, except for the model and members for other vendors.

    Audio is handled by a module that is imported when it is first needed, because chats start without it.
    """

    model_pages = ModelPages(list_models_request, parse_models)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """Every field is passed to the provider, which checks it, except for the format of a transcript."""
        if call.operation.is_media:
            from aiserver.providers.adapters.openai import audio

            audio.check_format(upstream, call)

    def prepare(self, upstream: Upstream, call: ProviderCall) -> "OpenAiExchange":
        if call.operation.is_media:
            return self._prepare_audio(upstream, call)
        caller_body = build_json(upstream, call)
        body = request_usage(upstream, call, caller_body)
        request = build_request(upstream, call, body, call.content_type)
        return OpenAiExchange(upstream, call.operation, request, self._clock, hides_usage=body is not caller_body)

    def _prepare_audio(self, upstream: Upstream, call: ProviderCall) -> "OpenAiExchange":
        from aiserver.providers.adapters.openai import audio
        from aiserver.wire import forms

        if call.operation.request is BodyKind.FORM:
            parts = audio.build_form(upstream, call)
            body, content_type = forms.encode_form(parts)
            response_format = forms.text_value(parts, audio.FORMAT)
        else:
            parts, content_type, response_format = [], call.content_type, None
            body = build_json(upstream, call)
        request = build_request(upstream, call, body, content_type, response_format)
        return OpenAiExchange(
            upstream,
            call.operation,
            request,
            self._clock,
            hides_usage=False,
            measure=audio.request_units(call, body, parts),
            response_format=response_format,
        )

    def map_error(self, upstream: Upstream, response: ProviderResponse) -> ProviderError:
        return map_error(upstream, response, retry_after_s=_retry_after_s(response, self._clock))


@dataclass(frozen=True)
class OpenAiExchange:
    """The Exchange of OpenAI's protocol. `hides_usage`: only the gateway requested the usage, and not the caller.

    `measure` returns the usage that an audio request itself shows; None for other operations. `response_format` is that
    of a transcript.
    """

    upstream: Upstream
    operation: Operation
    request: ProviderRequest
    clock: Clock
    hides_usage: bool
    measure: "Callable[[], Units] | None" = None
    response_format: str | None = None
    decode_frames: FrameDecoder | None = None

    def map_response(self, response: ProviderResponse) -> ProviderResponse:
        wait_s = _retry_after_s(response, self.clock)
        kind = self.request.response
        if self.measure is None or not response.is_success:
            return check_response(self.upstream, self.operation, kind, response, retry_after_s=wait_s)
        from aiserver.providers.adapters.openai import audio

        mapped = audio.map_text(response, self.response_format) if kind is ResponseKind.TEXT else response
        checked = check_response(self.upstream, self.operation, kind, mapped, retry_after_s=wait_s)
        return replace(checked, usage=audio.response_usage(response.body, self.measure))

    def create_event_mapper(self) -> OpenAiEventMapper:
        return OpenAiEventMapper(
            self.upstream, self.operation, hides_usage=self.hides_usage, media_usage=self._media_usage()
        )

    def _media_usage(self) -> Callable[[bytes], str | None] | None:
        if self.measure is None:
            return None
        from aiserver.providers.adapters.openai import audio

        return partial(audio.response_usage, measure=self.measure)


def _retry_after_s(response: ProviderResponse, clock: Clock) -> int | None:
    return retry_after_s(response.headers.get("retry-after"), clock.now_ms())
