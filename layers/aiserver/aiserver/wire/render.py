"""Renders JSON responses: nulls are omitted, dates are ISO-8601 UTC, stored JSON texts are inserted unchanged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiserver.wire.media_types import JSON as JSON_MEDIA_TYPE

JSON_TYPE = f"{JSON_MEDIA_TYPE}; charset=utf-8"  # of responses


@dataclass(frozen=True)
class RawJson:
    """A JSON text that is sent byte for byte."""

    text: bytes


def render(members: Mapping[str, Any]) -> bytes:
    """An object of these members, in order; None is omitted, RawJson is inserted, a nested Mapping is rendered."""
    return b"{" + b",".join(dump_json(k) + b":" + _render_value(v) for k, v in members.items() if v is not None) + b"}"


def dump_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _render_value(value: Any) -> bytes:
    match value:
        case RawJson():
            return value.text
        case Mapping():
            return render(value)  # pyright: ignore[reportUnknownArgumentType]
        case list():
            return b"[" + b",".join(_render_value(item) for item in value) + b"]"  # pyright: ignore[reportUnknownVariableType]
        case _:
            return dump_json(value)


def format_iso(ms: int | None) -> str | None:
    """2026-01-31T09:30:00.250Z"""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_duration(ms: int | None) -> str | None:
    """An XSD duration: PT1.5S"""
    return None if ms is None else f"PT{ms / 1000:g}S"
