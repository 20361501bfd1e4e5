"""What a vendor has words for, as data: docs/providers.md shows it, and each request is judged by it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """The value goes out as it came, as the vendor's member of that path; `words` tell what differs all the same."""

    to: str
    words: str = ""


@dataclass(frozen=True)
class Translated:
    """How it is said there, in words for docs/providers.md."""

    words: str


@dataclass(frozen=True)
class Refused:
    """The vendor has no words for it. `unless` are the JSON texts that ask for nothing beyond what it does anyhow."""

    words: str = ""
    unless: tuple[str, ...] = ()


Rule = Passes | Translated | Refused


def _unchanged(id: str) -> str:
    return id


@dataclass(frozen=True)
class Words:
    """What a vendor has words for, by the path of each member of a request. `member` holds what only it understands.

    `call_id` makes an id of a tool call one that the vendor takes; `takes_white_space` is whether it takes a text of
    nothing else.
    """

    vendor: str
    member: str
    rules: Mapping[str, Rule]
    call_id: Callable[[str], str] = _unchanged
    takes_white_space: bool = False
