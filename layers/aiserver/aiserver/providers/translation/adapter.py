"""What a vendor must bring that speaks a protocol of its own."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from aiserver.errors import ProviderResponse
from aiserver.providers.http import ProviderRequest
from aiserver.providers.provider import Provider
from aiserver.providers.stream import EventMapper
from aiserver.providers.translation.capabilities import Capabilities
from aiserver.providers.translation.chat import Chat


@dataclass(frozen=True)
class ResponseContext:
    """What the vendor does not tell of an answer: the second it was made, and ids for calls that have none.

    `one_call` is whether the caller wants at most one call in it; not every vendor can be told so.
    `id` and `model` are for those that do not even tell the answer's own id, and which model they were asked for.
    """

    created_s: int
    new_call_id: Callable[[], str]
    single_tool_call: bool = False
    id: str = ""
    model: str = ""


@dataclass(frozen=True)
class MappedResponse:
    """A whole answer in OpenAI's words; `usage` as it is kept with a job."""

    body: bytes
    usage: str | None
    request_id: str | None = None


class VendorEventMapper(EventMapper, Protocol):
    """stream.Translation of a vendor's events. `request_id` is known once the first has come, where one tells it."""

    request_id: str | None


class VendorError(Exception):
    """What a vendor says is that it failed: in an event, or in place of an answer.

    `is_of_content` where it works, and what its model wrote is what failed.
    """

    def __init__(self, said: bytes, *, has_begun: bool, is_of_content: bool = False) -> None:
        super().__init__()
        self.body = said
        self.has_content = has_begun
        self.is_content_error = is_of_content


class EmptyResponse(Exception):
    """A response with status 200 that holds no answer; `reason` says why, where the provider does not."""

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


@dataclass(frozen=True)
class ModelPages:
    """How a vendor lists its models: how it is asked for the page after one, and the ids and the next page of it.

    `read` raises what msgspec raises.
    """

    build_request: Callable[[str | None], ProviderRequest]
    parse: Callable[[bytes], tuple[list[str], str | None]]


@dataclass(frozen=True)
class Adapter:
    """What there is to know of a vendor, as pure functions of bytes of JSON.

    `request` is how it is asked, but for the key; it raises InvalidRequest. `answer`, and what `events` makes, raise
    Failed; NoAnswer; and what msgspec raises where the vendor does not say what it says it does.
    `error` tells an error in OpenAI's words, with the status that it stands for: one within a stream came with a 200.
    """

    capabilities: Capabilities
    build_request: Callable[[Chat], ProviderRequest]
    map_response: Callable[[bytes, ResponseContext], MappedResponse]
    create_event_mapper: Callable[[Chat, ResponseContext], VendorEventMapper]
    map_error: Callable[[ProviderResponse], ProviderResponse]
    model_pages: ModelPages | None = None


class Wire(Protocol):
    """What a vendor needs beyond HTTP with a key and server-sent events."""

    def sign(self, provider: Provider, request: ProviderRequest) -> ProviderRequest:
        """The request as one that is the caller's own to make."""
        ...

    def decode_frames(self, pieces: Generator[list[bytes]]) -> Generator[list[bytes]]:
        """The pieces of a stream as server-sent events. Raises: ProviderError, where they are damaged."""
        ...
