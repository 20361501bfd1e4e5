"""Creates the client of each provider type when it is first used.

Unused adapters are not imported, because imports take most of a cold start.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiserver.clock import Clock

if TYPE_CHECKING:
    import httpx

    from aiserver.providers.adapters.base.adapter import Adapter, Wire
    from aiserver.providers.adapters.base.client import AdapterClient
    from aiserver.providers.adapters.openai.client import OpenAiClient


class AdapterRegistry(dict[str, "OpenAiClient | AdapterClient"]):
    """Clients by provider type. `wire` creates Bedrock's request signer and frame decoder."""

    def __init__(self, http: "Callable[[], httpx.Client]", clock: Clock, wire: "Callable[[], Wire]") -> None:
        super().__init__()
        self._http = http
        self._clock = clock
        self._wire = wire

    def preload(self, type: str) -> None:
        """Create the client now."""
        self[type]

    def __missing__(self, type: str) -> "OpenAiClient | AdapterClient":
        return self.setdefault(
            type, self._create_openai_client() if type == "openai" else self._create_adapter_client(type)
        )

    def _create_openai_client(self) -> "OpenAiClient":
        from aiserver.providers.adapters.openai.client import OpenAiClient

        return OpenAiClient(self._http(), self._clock)

    def _create_adapter_client(self, type: str) -> "AdapterClient":
        from aiserver.providers.adapters.base.client import AdapterClient

        wire = self._wire() if type == "bedrock" else None
        return AdapterClient(self._http(), self._clock, load_adapter(type), wire)


def check_request(type: str, body: bytes, model: str) -> None:
    """Raises: InvalidRequest, when the provider type does not support this chat; `openai` supports every chat."""
    if type == "openai":
        return
    from aiserver.providers import memory_budget
    from aiserver.providers.adapters.base.chat import Chat
    from aiserver.wire.upstream_body import with_model

    adapter = load_adapter(type)
    with memory_budget.translation_lock:
        adapter.build_request(Chat(with_model(body, model), adapter.capabilities))


def load_adapter(type: str) -> "Adapter":
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
