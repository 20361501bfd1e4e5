"""What a vendor must bring that speaks a protocol of its own."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from aiserver.errors import UpstreamAnswer
from aiserver.providers.exchange import Asked
from aiserver.providers.provider import Provider
from aiserver.providers.stream import Translation
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.words import Words


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
    """What a vendor says is that it failed: in an event, or in place of an answer."""

    def __init__(self, said: bytes, *, has_begun: bool) -> None:
        super().__init__()
        self.said = said
        self.has_begun = has_begun


class Vendor(Protocol):
    """What there is to know of a vendor, as pure functions of bytes of JSON.

    `request` raises InvalidRequest; `answer` and what `events` gives raise Failed, and what msgspec raises.
    """

    words: Words

    def request(self, chat: Chat) -> Asked:
        """How it is asked, but for the key."""
        ...

    def answer(self, body: bytes, born: Born) -> Told: ...

    def events(self, chat: Chat, born: Born) -> Events: ...

    def error(self, said: UpstreamAnswer) -> UpstreamAnswer:
        """An error in OpenAI's words, with the status that it stands for; one within a stream has come with a 200.

        Raises: what msgspec raises, where it is none of the vendor's.
        """
        ...

    def models(self, after: str | None) -> Asked:
        """How it is asked for a page of its list of models."""
        ...

    def listed(self, page: bytes) -> tuple[list[str], str | None]:
        """The ids on a page of the list, and after what the next one comes. Raises: what msgspec raises."""
        ...


class Wire(Protocol):
    """What a vendor needs beyond HTTP with a key and server-sent events."""

    def signed(self, provider: Provider, asked: Asked) -> Asked:
        """The request as one that is the caller's own to make."""
        ...

    def events(self, pieces: Generator[list[bytes]]) -> Generator[list[bytes]]:
        """The pieces of a stream as server-sent events. Raises: ProviderError, where they are damaged."""
        ...
