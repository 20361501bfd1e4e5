"""The adapter contract: what the gateway needs of each provider type, and what a vendor's chat translator implements.

Adapters do no I/O: dispatch.py sends their requests.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from aiserver.errors import ProviderError
from aiserver.providers.adapters.base.capabilities import Capabilities
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import EventMapper

# What a translator raises for JSON that does not match the vendor's schema.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError)

# Adds a vendor's signature to the headers of a request without an API key. Raises: ProviderAuth.
RequestSigner = Callable[[Provider, ProviderRequest], ProviderRequest]
# Turns the chunks of a stream without server-sent events into such events; a stage, as stream.split_events.
FrameDecoder = Callable[[Iterator[list[bytes] | None], str], Iterator[list[bytes] | None]]


class Exchange(Protocol):
    """One request in the provider's protocol, and the functions that map its response to OpenAI's format."""

    @property
    def request(self) -> ProviderRequest: ...

    @property
    def decode_frames(self) -> FrameDecoder | None:
        """For a stream without server-sent events."""
        ...

    def map_response(self, response: ProviderResponse) -> ProviderResponse:
        """The complete response in OpenAI's format. Raises: ProviderError, when it failed or has no result."""
        ...

    def create_event_mapper(self) -> EventMapper: ...


@dataclass(frozen=True)
class ModelPages:
    """How a provider lists its models, page by page.

    `build_request` takes the token of a page, None for the first one. `parse` returns the ids of a page and the token
    of the next one; it raises one of DECODE_ERRORS.
    """

    build_request: Callable[[str | None], ProviderRequest]
    parse: Callable[[bytes], tuple[list[str], str | None]]


class Adapter(Protocol):
    """One provider protocol."""

    @property
    def model_pages(self) -> ModelPages | None: ...

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """Raises: InvalidRequest, when the protocol or the model does not support a field of the request."""
        ...

    def prepare(self, upstream: Upstream, call: ProviderCall) -> Exchange:
        """Raises: as `check`; ProviderAuth, when the request cannot be signed."""
        ...

    def map_error(self, upstream: Upstream, response: ProviderResponse) -> ProviderError:
        """Map a failed response."""
        ...


@dataclass(frozen=True)
class ResponseContext:
    """Values the vendor omits: the creation time in seconds, and ids for tool calls that have none.

    `single_tool_call` is whether the caller wants at most one tool call; not every vendor has a parameter for that.
    `id` and `model` are for vendors whose responses contain neither a response id nor the model.
    `include_usage` is whether the caller wants an event with the usage.
    """

    created_s: int
    new_call_id: Callable[[], str]
    single_tool_call: bool = False
    id: str = ""
    model: str = ""
    include_usage: bool = False


@dataclass(frozen=True)
class MappedResponse:
    """A complete response in OpenAI's format; `usage` is the JSON text stored with a job."""

    body: bytes
    usage: str | None
    request_id: str | None = None


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
class ChatTranslator:
    """One vendor's chat protocol, as pure functions of JSON bytes.

    `build_request` builds the request without the API key; it raises InvalidRequest.
    `map_response` and the event mappers raise VendorError, UnusableResponse, or one of DECODE_ERRORS.
    `map_error` returns an error in OpenAI's format with its own status: an error within a stream came with a 200.
    """

    capabilities: Capabilities
    build_request: Callable[[Chat], ProviderRequest]
    map_response: Callable[[bytes, ResponseContext], MappedResponse]
    create_event_mapper: Callable[[ResponseContext], EventMapper]
    map_error: Callable[[ProviderResponse], ProviderResponse]
    model_pages: ModelPages | None = None
