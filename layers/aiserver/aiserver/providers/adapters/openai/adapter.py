"""The adapter of OpenAI's protocol: OpenAI, the compatible presets of catalogue.py, and other compatible servers."""

from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import ProviderError
from aiserver.operations import Operation
from aiserver.providers.adapters.base.adapter import FrameDecoder, ModelPages
from aiserver.providers.adapters.openai.request import build_body, build_request, list_models_request, request_usage
from aiserver.providers.adapters.openai.response import check_response, parse_models
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.error_mapping import map_error
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire.http_dates import retry_after_s


class OpenAiAdapter:
    """Request and response bodies pass byte for byte, except for the model and members for other vendors."""

    model_pages = ModelPages(list_models_request, parse_models)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """Every field is passed to the provider, which checks it."""

    def prepare(self, upstream: Upstream, call: ProviderCall) -> "OpenAiExchange":
        caller_body = build_body(upstream, call)
        body = request_usage(upstream, call, caller_body)
        request = build_request(upstream, call, body)
        return OpenAiExchange(upstream, call.operation, request, self._clock, hides_usage=body is not caller_body)

    def map_error(self, upstream: Upstream, response: ProviderResponse) -> ProviderError:
        return map_error(upstream, response, retry_after_s=_retry_after_s(response, self._clock))


@dataclass(frozen=True)
class OpenAiExchange:
    """The Exchange of OpenAI's protocol. `hides_usage`: only the gateway requested the usage, and not the caller."""

    upstream: Upstream
    operation: Operation
    request: ProviderRequest
    clock: Clock
    hides_usage: bool
    decode_frames: FrameDecoder | None = None

    def map_response(self, response: ProviderResponse) -> ProviderResponse:
        return check_response(
            self.upstream, self.operation, response, retry_after_s=_retry_after_s(response, self.clock)
        )

    def create_event_mapper(self) -> OpenAiEventMapper:
        return OpenAiEventMapper(self.upstream, self.operation, hides_usage=self.hides_usage)


def _retry_after_s(response: ProviderResponse, clock: Clock) -> int | None:
    return retry_after_s(response.headers.get("retry-after"), clock.now_ms())
