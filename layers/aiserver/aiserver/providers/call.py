"""What is called, and with what: one caller's request, and one upstream that may serve it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    The response must have begun by `begin_deadline` and ended by `deadline`; they differ for a stream only.
    `is_aiserver`: the request is one of AI Server's. Then a transcript should contain segments with times, if the
    provider is known to support them, and optional members that the provider does not have are left out.
    `translations` are filled by the adapters: the request in a vendor's format, or the reason why it has none.
    """

    operation: Operation
    body: bytes
    deadline: Deadline
    begin_deadline: Deadline
    owner: str = ""
    idempotency_key: str | None = None
    stream: bool = False
    content_type: str = JSON_MEDIA_TYPE
    is_aiserver: bool = False
    translations: dict[tuple[str, str], TranslatedRequest | InvalidRequest] = field(
        default_factory=dict[tuple[str, str], TranslatedRequest | InvalidRequest], repr=False, compare=False
    )


@dataclass(frozen=True)
class Upstream:
    """A provider, its name of the model, and its API key.

    `model_is_configured`: whether the model's name comes from the configuration; a provider's 404 is then a
    configuration error. `settings` are members of the request for that model, used where the caller gives none.
    """

    provider: Provider
    model: str
    model_is_configured: bool
    api_key: str | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
