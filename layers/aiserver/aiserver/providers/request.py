"""A request in a provider's protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiserver.limits import MAX_RESPONSE_BYTES
from aiserver.operations import ResponseKind


@dataclass(frozen=True)
class ProviderRequest:
    """An HTTP request. `api_key` goes into the provider's `auth_header`; a response over `max_response_bytes` fails.

    `relayed_headers` maps the provider's header names to the names that callers get. `response` is the expected format:
    JSON is labelled as such for callers, whatever the provider's label is. `is_media`: see operations.Operation.
    """

    method: str
    path: str
    api_key: str | None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    max_response_bytes: int = MAX_RESPONSE_BYTES
    relayed_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    response: ResponseKind = ResponseKind.JSON
    is_media: bool = False


@dataclass(frozen=True)
class TranslatedRequest:
    """A chat in a vendor's format, and what mapping its response needs to know about the chat.

    `single_tool_call` is whether the caller wants at most one tool call, `include_usage` whether the caller wants an
    event with the usage.
    """

    request: ProviderRequest
    model: str
    single_tool_call: bool
    include_usage: bool
