"""Whether a JSON value is what botocore's model of an API says, and nothing beyond it: what the service would say."""

import base64
import binascii
import re
from typing import Any

from botocore.model import Shape


def problems(value: Any, shape: Shape, where: str = "$") -> list[str]:
    """What is wrong with it."""
    if getattr(shape, "is_document_type", False):
        return []
    match shape.type_name:
        case "structure":
            return _of_members(value, shape, where)
        case "list":
            wrong = [] if isinstance(value, list) else [f"{where}: no array"]
            wrong += _of_length(value, shape, where)
            return wrong or [p for i, v in enumerate(value) for p in problems(v, shape.member, f"{where}[{i}]")]
        case "map":
            wrong = [] if isinstance(value, dict) else [f"{where}: no object"]
            wrong += _of_length(value, shape, where)
            wrong = wrong or [p for name in value for p in problems(name, shape.key, f"{where}.{name}")]
            return wrong + [p for k, v in value.items() for p in problems(v, shape.value, f"{where}.{k}")]
        case "boolean":
            return [] if isinstance(value, bool) else [f"{where}: {value!r} is no boolean"]
        case "integer" | "long":
            return _of_number(value, (int,), shape, where)
        case "float" | "double":
            return _of_number(value, (int, float), shape, where)
        case "blob":
            return _of_bytes(value, shape, where)
        case _:
            return _of_text(value, shape, where)


def _of_members(value: Any, shape: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: no object"]
    wrong = [f"{where}: lacks {name}" for name in shape.required_members if name not in value]
    wrong += [f"{where}: {name} is no member of {shape.name}" for name in value if name not in shape.members]
    if shape.is_tagged_union and len(value) != 1:
        wrong.append(f"{where}: one member of {shape.name}, not {list(value)}")
    known = [(name, inner) for name, inner in value.items() if name in shape.members]
    return wrong + [p for name, inner in known for p in problems(inner, shape.members[name], f"{where}.{name}")]


def _of_bytes(value: Any, shape: Shape, where: str) -> list[str]:
    try:
        return _of_length(base64.b64decode(value, validate=True), shape, where)
    except (binascii.Error, TypeError, ValueError):
        return [f"{where}: {value!r} is no base64"]


def _of_text(value: Any, shape: Any, where: str) -> list[str]:
    if not isinstance(value, str):
        return [f"{where}: {value!r} is no text"]
    if shape.enum and value not in shape.enum:
        return [f"{where}: {value!r} is none of {shape.enum}"]
    pattern = shape.metadata.get("pattern")
    wrong = [] if pattern is None or re.fullmatch(pattern, value) else [f"{where}: {value!r} is not like {pattern}"]
    return wrong + _of_length(value, shape, where)


def _of_number(value: Any, kinds: tuple[type, ...], shape: Shape, where: str) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, kinds):
        return [f"{where}: {value!r} is no {shape.type_name}"]
    least, most = shape.metadata.get("min", value), shape.metadata.get("max", value)
    return [] if least <= value <= most else [f"{where}: {value!r} is not from {least} to {most}"]


def _of_length(value: Any, shape: Shape, where: str) -> list[str]:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", len(value))
    return [] if least <= len(value) <= most else [f"{where}: {len(value)} of {least} to {most}"]
