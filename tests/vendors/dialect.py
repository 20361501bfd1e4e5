"""What the tests must know of a vendor: how its own server reads a request and says an answer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from aiserver.providers.http import ProviderRequest
from aiserver.providers.translation.adapter import Adapter
from tests.providers.fake_provider import Said
from tests.vendors.semantics import Answer, Request


class Dialect(Protocol):
    """Made of the vendor's own SDK: its types judge what `read` is given, and make what the others say.

    `type` is a provider's; `has_urls` is whether it fetches images by their https URLs, `counts_reasoning` whether it
    tells how many tokens that took. `stream_type` is the media type of its streams, `headers` are those of each answer,
    among them the request's id, `req_1`.
    """

    type: str
    vendor: Adapter
    model: str
    has_urls: bool
    counts_reasoning: bool
    stream_type: str
    headers: Mapping[str, str]

    def read(self, asked: ProviderRequest) -> Request:
        """Raises: AssertionError, where the vendor would refuse it."""
        ...

    def turns(self, sent: dict[str, Any]) -> list[Any]:
        """The model's turns in a request, as they were sent."""
        ...

    def turn(self, message: dict[str, Any]) -> Any:
        """A whole answer as the turn that it would be in the next request."""
        ...

    def message(self, answer: Answer) -> bytes:
        """A whole answer."""
        ...

    def events(self, answer: Answer) -> list[bytes]:
        """The same as a stream of server-sent events, in pieces of a few letters."""
        ...

    def framed(self, event: bytes) -> bytes:
        """An event as it goes over the wire."""
        ...

    def error(self, status: int, message: str) -> Said:
        """As it comes with that status."""
        ...

    def failure(self, message: str) -> bytes:
        """An event that tells of a failure within a stream."""
        ...

    def credential(self, key: str) -> tuple[str, str]:
        """The header that shows the key, and what stands in it."""
        ...

    def listing(self, models: list[str]) -> bytes:
        """A page of its list of models, if it has one."""
        ...


def told_by(dialect: Dialect, answer: Answer) -> Answer:
    """The answer, less what the vendor does not tell of it."""
    return answer if dialect.counts_reasoning else replace(answer, spent=replace(answer.spent, reasoning=0))
