"""Creates the adapter of each provider type when it is first used.

Unused adapters are not imported, because imports take most of a cold start.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiserver.clock import Clock
from aiserver.providers.call import ProviderCall, Upstream

if TYPE_CHECKING:
    from aiserver.providers.adapters.base.adapter import Adapter, ChatTranslator, FrameDecoder, RequestSigner

OPENAI = "openai"
# Creates Bedrock's request signer and its frame decoder, which need botocore.
BedrockTransport = Callable[[], "tuple[RequestSigner, FrameDecoder]"]


class AdapterRegistry:
    """Adapters by provider type."""

    def __init__(self, clock: Clock, bedrock: BedrockTransport) -> None:
        self._clock = clock
        self._bedrock = bedrock
        self._adapters: dict[str, Adapter] = {}

    def adapter_for(self, type: str) -> "Adapter":
        if type not in self._adapters:
            self._adapters[type] = self._create(type)
        return self._adapters[type]

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """Raises: InvalidRequest, when the provider's protocol does not support a field of the request."""
        # OpenAI's adapter checks requests for media only. For others, importing it would slow a cold start.
        if upstream.provider.type != OPENAI or call.operation.is_media:
            self.adapter_for(upstream.provider.type).check(upstream, call)

    def _create(self, type: str) -> "Adapter":
        if type == OPENAI:
            from aiserver.providers.adapters.openai.adapter import OpenAiAdapter

            return OpenAiAdapter(self._clock)
        from aiserver.providers.adapters.base.translation import TranslatingAdapter

        sign, decode_frames = self._bedrock() if type == "bedrock" else (None, None)
        return TranslatingAdapter(load_translator(type), self._clock, sign, decode_frames)


def load_translator(type: str) -> "ChatTranslator":
    match type:
        case "anthropic":
            from aiserver.providers.adapters.anthropic import ANTHROPIC

            return ANTHROPIC
        case "google":
            from aiserver.providers.adapters.google import GOOGLE

            return GOOGLE
        case "bedrock":
            from aiserver.providers.adapters.bedrock import BEDROCK

            return BEDROCK
        case _:
            raise KeyError(type)
