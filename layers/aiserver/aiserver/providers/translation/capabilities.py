"""What a vendor has words for, as data: docs/providers.md shows it, and each request is judged by it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PassThrough:
    """The value goes out as it came, as the vendor's member of that path; `words` tell what differs all the same."""

    target: str
    note: str = ""


@dataclass(frozen=True)
class Mapped:
    """How it is said there, in words for docs/providers.md."""

    description: str


@dataclass(frozen=True)
class Unsupported:
    """The vendor has no words for it. `unless` are the JSON texts that ask for nothing beyond what it does anyhow."""

    reason: str = ""
    allowed_values: tuple[str, ...] = ()


Rule = PassThrough | Mapped | Unsupported


def _identity(id: str) -> str:
    return id


@dataclass(frozen=True)
class Capabilities:
    """What a vendor has words for, by the path of each member of a request. `member` holds what only it understands.

    `call_id` makes an id of a tool call one that the vendor takes; `takes_white_space` is whether it takes a text of
    nothing else.
    """

    vendor: str
    extension_member: str
    rules: Mapping[str, Rule]
    normalize_call_id: Callable[[str], str] = _identity
    accepts_blank_text: bool = False
