"""The request fields that a vendor supports, as data: docs/providers.md shows them, validate.py enforces them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PassThrough:
    """The value is sent unchanged, as the vendor's field at the path `target`; `note` describes differences."""

    target: str
    note: str = ""


@dataclass(frozen=True)
class Mapped:
    """The field is translated; `description` is the text in docs/providers.md."""

    description: str


@dataclass(frozen=True)
class Unsupported:
    """The vendor does not support the field. `allowed_values` are JSON texts that equal the vendor's behaviour."""

    reason: str = ""
    allowed_values: tuple[str, ...] = ()


Rule = PassThrough | Mapped | Unsupported


def _identity(id: str) -> str:
    return id


@dataclass(frozen=True)
class Capabilities:
    """A vendor's rule for each request field, by path. `extension_member` is the member for vendor-specific fields.

    `normalize_call_id` turns the id of a tool call into one that the vendor accepts.
    `accepts_blank_text` is whether the vendor accepts a text that is only white space.
    """

    vendor: str
    extension_member: str
    rules: Mapping[str, Rule]
    normalize_call_id: Callable[[str], str] = _identity
    accepts_blank_text: bool = False
