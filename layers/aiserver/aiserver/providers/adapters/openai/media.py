"""What the adapter needs of media requests, and what audio and images share."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, cast

from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire.forms import Part


class MediaExchange(Protocol):
    """One media request, and what its response contains beside what other responses do.

    `ignored` are optional members of AI Server's request that the provider does not have.
    """

    @property
    def request(self) -> ProviderRequest: ...

    @property
    def ignored(self) -> tuple[str, ...]: ...

    def map_text(self, response: ProviderResponse) -> ProviderResponse:
        """A successful response that was requested as text, labelled as text."""
        ...

    def usage(self, body: bytes, end_events: int) -> str | None:
        """The usage as JSON, of a response or of the event with the usage (b"": there was none).

        `end_events` counts the events of a stream that completed an output.
        """
        ...


@dataclass(frozen=True)
class MediaRules:
    """The requests of one kind of media.

    `check` raises InvalidRequest, when the provider is known not to support a field of the request.
    """

    check: Callable[[Upstream, ProviderCall], None]
    prepare: Callable[[Upstream, ProviderCall], MediaExchange]


def render_usage(
    units: Mapping[str, Any], usage: str | None, corrections: Mapping[str, Any] = MappingProxyType({})
) -> str | None:
    """The provider's usage with the units that it lacks, and with these corrections; None without any."""
    combined = {**units, **json.loads(usage or "{}"), **corrections}
    try:
        return json.dumps(combined, allow_nan=False) if combined else None
    except ValueError:  # a number beyond floats, such as 1e999
        return usage


def with_settings(parts: list[Part], settings: Mapping[str, Any]) -> list[Part]:
    """The parts of a form, and a part for each setting of the model that the caller does not give."""
    names = {part.name for part in parts}
    added = [
        Part(name, text.encode())
        for name, value in settings.items()
        if name not in names
        for text in _form_texts(value)
    ]
    return parts + added


def _form_texts(value: Any) -> Iterable[str]:
    """A setting as the text fields of a form: a list as several fields, an object as JSON."""
    values = cast(list[Any], value) if isinstance(value, list) else [] if value is None else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in values]
