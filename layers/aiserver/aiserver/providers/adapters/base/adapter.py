"""The adapter contract: the functions that a vendor with a protocol of its own implements."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from aiserver.errors import ProviderResponse
from aiserver.providers.adapters.base.capabilities import Capabilities
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.http import ProviderRequest
from aiserver.providers.provider import Provider
from aiserver.providers.stream import EventMapper


@dataclass(frozen=True)
class ResponseContext:
    """Values the vendor omits: the creation time in seconds, and ids for tool calls that have none.

    `single_tool_call` is whether the caller wants at most one tool call; not every vendor has a parameter for that.
    `id` and `model` are for vendors whose responses contain neither a response id nor the model.
    """

    created_s: int
    new_call_id: Callable[[], str]
    single_tool_call: bool = False
    id: str = ""
    model: str = ""


@dataclass(frozen=True)
class MappedResponse:
    """A complete response in OpenAI's format; `usage` is the JSON text stored with a job."""

    body: bytes
    usage: str | None
    request_id: str | None = None


class VendorEventMapper(EventMapper, Protocol):
    """An EventMapper of a vendor's events. `request_id` is set after the first event, where the events contain it."""

    request_id: str | None


class VendorError(Exception):
    """The vendor reported an error in an event, or in a response with status 200.

    `has_content` is whether the model had already produced output.
    `is_content_error` is whether the vendor works and the model's output is what failed.
    """

    def __init__(self, body: bytes, *, has_content: bool, is_content_error: bool = False) -> None:
        super().__init__()
        self.body = body
        self.has_content = has_content
        self.is_content_error = is_content_error


class UnusableResponse(Exception):
    """A response with status 200 but no completion; `reason` explains it, where the provider does not."""

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


@dataclass(frozen=True)
class ModelPages:
    """How a vendor lists its models, page by page.

    `build_request` takes the token of a page, None for the first one. `parse` returns the ids of a page and the token
    of the next one; it raises what msgspec raises.
    """

    build_request: Callable[[str | None], ProviderRequest]
    parse: Callable[[bytes], tuple[list[str], str | None]]


@dataclass(frozen=True)
class Adapter:
    """One vendor's protocol, as pure functions of JSON bytes.

    `build_request` builds the request without the API key; it raises InvalidRequest.
    `map_response` and the event mappers raise VendorError, UnusableResponse, or a msgspec error when the JSON does
    not match the vendor's schema.
    `map_error` returns an error in OpenAI's format with its own status: an error within a stream came with a 200.
    """

    capabilities: Capabilities
    build_request: Callable[[Chat], ProviderRequest]
    map_response: Callable[[bytes, ResponseContext], MappedResponse]
    create_event_mapper: Callable[[Chat, ResponseContext], VendorEventMapper]
    map_error: Callable[[ProviderResponse], ProviderResponse]
    model_pages: ModelPages | None = None


class Wire(Protocol):
    """Signing and framing of a vendor that uses neither an API key nor server-sent events."""

    def sign(self, provider: Provider, request: ProviderRequest) -> ProviderRequest:
        """The request with the vendor's signature in its headers."""
        ...

    def decode_frames(self, chunks: Generator[list[bytes]]) -> Generator[list[bytes]]:
        """The chunks of a stream as server-sent events. Raises: ProviderError, when a frame is damaged."""
        ...
