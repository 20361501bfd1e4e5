"""What is called, and with what: one caller's request, and one upstream that may serve it."""

from dataclasses import dataclass, field

from aiserver.clock import Deadline
from aiserver.errors import InvalidRequest
from aiserver.operations import Operation
from aiserver.providers.provider import Provider
from aiserver.providers.request import TranslatedRequest
from aiserver.wire.render import JSON_MEDIA_TYPE


@dataclass(frozen=True)
class ProviderCall:
    """One request, the same for every provider that is tried.

    `body` names the model as the caller did. `owner` is the id of the caller's API key.
    A complete response must have been received by `deadline`; a stream must have begun by `head_deadline`.
    `translations` are filled by the adapters: the request in a vendor's format, or the reason why it has none.
    """

    operation: Operation
    body: bytes
    deadline: Deadline
    owner: str = ""
    idempotency_key: str | None = None
    stream: bool = False
    head_deadline: Deadline | None = None
    content_type: str = JSON_MEDIA_TYPE
    translations: dict[tuple[str, str], TranslatedRequest | InvalidRequest] = field(
        default_factory=dict[tuple[str, str], TranslatedRequest | InvalidRequest], repr=False, compare=False
    )

    @property
    def begin_deadline(self) -> Deadline:
        """The time by which a response must have begun: a complete one has then also ended."""
        return self.head_deadline or self.deadline


@dataclass(frozen=True)
class Upstream:
    """A provider, its name of the model, and its API key.

    `model_is_configured`: whether the model's name comes from the configuration; a provider's 404 is then a
    configuration error.
    """

    provider: Provider
    model: str
    model_is_configured: bool
    api_key: str | None = None
