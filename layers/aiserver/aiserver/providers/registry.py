"""The protocols that providers speak, each built when one of its providers is first asked.

What is not asked is not imported: imports are what a cold start waits for.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiserver.clock import Clock

if TYPE_CHECKING:
    import httpx

    from aiserver.providers.openai import OpenAiClient
    from aiserver.providers.translation.adapter import Adapter, Wire
    from aiserver.providers.translation.client import AdapterClient


class AdapterRegistry(dict[str, "OpenAiClient | AdapterClient"]):
    """By a provider's type. `wire` makes what Bedrock needs of AWS."""

    def __init__(self, http: "Callable[[], httpx.Client]", clock: Clock, wire: "Callable[[], Wire]") -> None:
        super().__init__()
        self._http = http
        self._clock = clock
        self._wire = wire

    def preload(self, type: str) -> None:
        """Build it now."""
        self[type]

    def __missing__(self, type: str) -> "OpenAiClient | AdapterClient":
        return self.setdefault(
            type, self._create_openai_client() if type == "openai" else self._create_adapter_client(type)
        )

    def _create_openai_client(self) -> "OpenAiClient":
        from aiserver.providers.openai import OpenAiClient

        return OpenAiClient(self._http(), self._clock)

    def _create_adapter_client(self, type: str) -> "AdapterClient":
        from aiserver.providers.translation.client import AdapterClient

        wire = self._wire() if type == "bedrock" else None
        return AdapterClient(self._http(), self._clock, load_adapter(type), wire)


def check_supported(type: str, body: bytes, model: str) -> None:
    """Raises: InvalidRequest, where a provider's type has no words for this chat; what speaks OpenAI has all."""
    if type == "openai":
        return
    from aiserver.providers import memory_budget
    from aiserver.providers.translation.chat import Chat
    from aiserver.wire.upstream_body import with_model

    asked = load_adapter(type)
    with memory_budget.translation_lock:
        asked.build_request(Chat(with_model(body, model), asked.capabilities))


def load_adapter(type: str) -> "Adapter":
    match type:
        case "anthropic":
            from aiserver.providers.anthropic import ANTHROPIC

            return ANTHROPIC
        case "google":
            from aiserver.providers.google import GOOGLE

            return GOOGLE
        case "bedrock":
            from aiserver.providers.bedrock import BEDROCK

            return BEDROCK
        case _:
            raise KeyError(type)
