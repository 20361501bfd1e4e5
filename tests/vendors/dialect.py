"""A vendor's side of the protocol in tests: parse its requests, encode its responses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from aiserver.providers.adapters.base.adapter import ChatTranslator
from aiserver.providers.request import ProviderRequest
from tests.providers.fake_provider import FakeResponse
from tests.vendors.semantics import Request, Response


class Dialect(Protocol):
    """Built on the vendor's SDK: its types validate requests in `parse_request` and build all responses.

    `type` is the provider type. `has_urls`: the vendor fetches images by https URL. `counts_reasoning`: it reports the
    number of reasoning tokens. `stream_type` is the media type of its streams. `headers` are those of each response,
    including the request id `req_1`.
    """

    type: str
    translator: ChatTranslator
    model: str
    has_urls: bool
    counts_reasoning: bool
    stream_type: str
    headers: Mapping[str, str]

    def parse_request(self, request: ProviderRequest) -> Request:
        """Raises: AssertionError, when the vendor would reject the request."""
        ...

    def model_turns(self, body: dict[str, Any]) -> list[Any]:
        """The model's turns in a request body, unchanged."""
        ...

    def model_turn(self, response: dict[str, Any]) -> Any:
        """The model's turn that the next request contains after this response."""
        ...

    def encode_response(self, response: Response) -> bytes:
        """The body of a complete response."""
        ...

    def encode_events(self, response: Response) -> list[bytes]:
        """The same response as server-sent events, with a few letters per event."""
        ...

    def encode_frame(self, event: bytes) -> bytes:
        """An event as bytes on the wire."""
        ...

    def error_response(self, status: int, message: str) -> FakeResponse:
        """The vendor's error response with that status."""
        ...

    def error_event(self, message: str) -> bytes:
        """A stream event that reports a failure."""
        ...

    def credential(self, key: str) -> tuple[str, str]:
        """Name and value of the header that carries the key."""
        ...

    def listing(self, models: list[str]) -> bytes:
        """A page of the vendor's model list. Raises: NotImplementedError, when the vendor has none."""
        ...


def expected_response(dialect: Dialect, response: Response) -> Response:
    """The response without the values that the vendor omits."""
    return response if dialect.counts_reasoning else replace(response, usage=replace(response.usage, reasoning=0))
