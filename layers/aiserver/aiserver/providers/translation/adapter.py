"""What a vendor must bring that speaks a protocol of its own."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from aiserver.errors import UpstreamAnswer
from aiserver.providers.http import Asked
from aiserver.providers.provider import Provider
from aiserver.providers.stream import Translation
from aiserver.providers.translation.capabilities import Words
from aiserver.providers.translation.chat import Chat


@dataclass(frozen=True)
class Born:
    """What the vendor does not tell of an answer: the second it was made, and ids for calls that have none.

    `one_call` is whether the caller wants at most one call in it; not every vendor can be told so.
    `id` and `model` are for those that do not even tell the answer's own id, and which model they were asked for.
    """

    created_s: int
    call_id: Callable[[], str]
    one_call: bool = False
    id: str = ""
    model: str = ""


@dataclass(frozen=True)
class Told:
    """A whole answer in OpenAI's words; `usage` as it is kept with a job."""

    body: bytes
    usage: str | None
    request_id: str | None = None


class Events(Translation, Protocol):
    """stream.Translation of a vendor's events. `request_id` is known once the first has come, where one tells it."""

    request_id: str | None


class Failed(Exception):
    """What a vendor says is that it failed: in an event, or in place of an answer.

    `is_of_content` where it works, and what its model wrote is what failed.
    """

    def __init__(self, said: bytes, *, has_begun: bool, is_of_content: bool = False) -> None:
        super().__init__()
        self.said = said
        self.has_begun = has_begun
        self.is_of_content = is_of_content


class NoAnswer(Exception):
    """A response with status 200 that holds no answer; `reason` says why, where the provider does not."""

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


@dataclass(frozen=True)
class Listing:
    """How a vendor lists its models: how it is asked for the page after one, and the ids and the next page of it.

    `read` raises what msgspec raises.
    """

    asked: Callable[[str | None], Asked]
    read: Callable[[bytes], tuple[list[str], str | None]]


@dataclass(frozen=True)
class Vendor:
    """What there is to know of a vendor, as pure functions of bytes of JSON.

    `request` is how it is asked, but for the key; it raises InvalidRequest. `answer`, and what `events` makes, raise
    Failed; NoAnswer; and what msgspec raises where the vendor does not say what it says it does.
    `error` tells an error in OpenAI's words, with the status that it stands for: one within a stream came with a 200.
    """

    words: Words
    request: Callable[[Chat], Asked]
    answer: Callable[[bytes, Born], Told]
    events: Callable[[Chat, Born], Events]
    error: Callable[[UpstreamAnswer], UpstreamAnswer]
    listing: Listing | None = None


class Wire(Protocol):
    """What a vendor needs beyond HTTP with a key and server-sent events."""

    def signed(self, provider: Provider, asked: Asked) -> Asked:
        """The request as one that is the caller's own to make."""
        ...

    def events(self, pieces: Generator[list[bytes]]) -> Generator[list[bytes]]:
        """The pieces of a stream as server-sent events. Raises: ProviderError, where they are damaged."""
        ...
