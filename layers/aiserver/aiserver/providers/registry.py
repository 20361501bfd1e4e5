"""The protocols that providers speak, each built when one of its providers is first asked.

What is not asked is not imported: imports are what a cold start waits for.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiserver.clock import Clock

if TYPE_CHECKING:
    import httpx

    from aiserver.providers.openai import OpenAi
    from aiserver.providers.translation.adapter import Vendor, Wire
    from aiserver.providers.translation.client import Translated


class Protocols(dict[str, "OpenAi | Translated"]):
    """By a provider's type. `wire` makes what Bedrock needs of AWS."""

    def __init__(self, http: "Callable[[], httpx.Client]", clock: Clock, wire: "Callable[[], Wire]") -> None:
        super().__init__()
        self._http = http
        self._clock = clock
        self._wire = wire

    def warm(self, type: str) -> None:
        """Build it now."""
        self[type]

    def __missing__(self, type: str) -> "OpenAi | Translated":
        return self.setdefault(type, self._openai() if type == "openai" else self._translated(type))

    def _openai(self) -> "OpenAi":
        from aiserver.providers.openai import OpenAi

        return OpenAi(self._http(), self._clock)

    def _translated(self, type: str) -> "Translated":
        from aiserver.providers.translation.client import Translated

        wire = self._wire() if type == "bedrock" else None
        return Translated(self._http(), self._clock, vendor(type), wire)


def check(type: str, body: bytes, model: str) -> None:
    """Raises: InvalidRequest, where a provider's type has no words for this chat; what speaks OpenAI has all."""
    if type == "openai":
        return
    from aiserver.providers import memory_budget
    from aiserver.providers.translation.chat import Chat
    from aiserver.wire.upstream_body import with_model

    asked = vendor(type)
    with memory_budget.translation:
        asked.request(Chat(with_model(body, model), asked.words))


def vendor(type: str) -> "Vendor":
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
