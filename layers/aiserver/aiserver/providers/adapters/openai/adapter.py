"""The adapter of OpenAI's protocol: OpenAI, the compatible presets of catalogue.py, and other compatible servers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiserver.clock import Clock
from aiserver.errors import ProviderError
from aiserver.operations import MediaKind, Operation, ResponseKind
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
    from aiserver.providers.adapters.openai.media import MediaExchange, MediaRules


class OpenAiAdapter:
    """Request and response bodies pass byte for byte, except for the model and members for other vendors.

    Media are handled by modules that are imported when they are first needed, because chats start without them.
    """

    model_pages = ModelPages(list_models_request, parse_models)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """Fields are passed to the provider, which checks them, except for what a preset tells of media."""
        if call.operation.is_media:
            _media_rules(call.operation).check(upstream, call)

    def prepare(self, upstream: Upstream, call: ProviderCall) -> "OpenAiExchange":
        if call.operation.is_media:
            media = _media_rules(call.operation).prepare(upstream, call)
            return OpenAiExchange(upstream, call.operation, media.request, self._clock, hides_usage=False, media=media)
        caller_body = build_json(upstream, call)
        body = request_usage(upstream, call, caller_body)
        request = build_request(upstream, call, body, call.content_type)
        return OpenAiExchange(upstream, call.operation, request, self._clock, hides_usage=body is not caller_body)

    def map_error(self, upstream: Upstream, response: ProviderResponse) -> ProviderError:
        return map_error(upstream, response, retry_after_s=_retry_after_s(response, self._clock))


@dataclass(frozen=True)
class OpenAiExchange:
    """The Exchange of OpenAI's protocol. `hides_usage`: only the gateway requested the usage, and not the caller.

    `media` is the request of a media operation; None for other operations.
    """

    upstream: Upstream
    operation: Operation
    request: ProviderRequest
    clock: Clock
    hides_usage: bool
    media: "MediaExchange | None" = None
    decode_frames: FrameDecoder | None = None

    def map_response(self, response: ProviderResponse) -> ProviderResponse:
        wait_s = _retry_after_s(response, self.clock)
        kind = self.request.response
        if self.media is None or not response.is_success:
            return check_response(self.upstream, self.operation, kind, response, retry_after_s=wait_s)
        mapped = self.media.map_text(response) if kind is ResponseKind.TEXT else response
        checked = check_response(self.upstream, self.operation, kind, mapped, retry_after_s=wait_s)
        return replace(checked, usage=self.media.usage(response.body, 0), ignored=self.media.ignored)

    def create_event_mapper(self) -> OpenAiEventMapper:
        media_usage: Callable[[bytes, int], str | None] | None = self.media.usage if self.media else None
        return OpenAiEventMapper(self.upstream, self.operation, hides_usage=self.hides_usage, media_usage=media_usage)


def _media_rules(operation: Operation) -> "MediaRules":
    if operation.media is MediaKind.IMAGE:
        from aiserver.providers.adapters.openai.images import IMAGE_RULES

        return IMAGE_RULES
    from aiserver.providers.adapters.openai.audio import AUDIO_RULES

    return AUDIO_RULES


def _retry_after_s(response: ProviderResponse, clock: Clock) -> int | None:
    return retry_after_s(response.headers.get("retry-after"), clock.now_ms())
