"""A provider's response."""

from dataclasses import dataclass

from aiserver.wire.render import JSON_MEDIA_TYPE


@dataclass(frozen=True)
class ProviderResponse:
    """A complete response: status, the headers relayed to callers, and the unmodified body.

    `usage` is the JSON text of the usage; None where the response contains none. `ignored` are optional members of AI
    Server's request that the provider does not have.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    usage: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """The media type of the body; JSON unless the headers contain another one."""
        return self.headers.get("content-type", JSON_MEDIA_TYPE)
