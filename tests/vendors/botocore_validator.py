"""Validation of JSON values by botocore's model of an API, as strict as the service."""

import base64
import binascii
import re
from typing import Any

from botocore.model import Shape


def problems(value: Any, shape: Shape, path: str = "$") -> list[str]:
    """Descriptions of all mismatches with the shape; empty when the value is valid."""
    if getattr(shape, "is_document_type", False):
        return []
    match shape.type_name:
        case "structure":
            return _structure_problems(value, shape, path)
        case "list":
            mismatches = [] if isinstance(value, list) else [f"{path}: no array"]
            mismatches += _length_problems(value, shape, path)
            return mismatches or [p for i, v in enumerate(value) for p in problems(v, shape.member, f"{path}[{i}]")]
        case "map":
            mismatches = [] if isinstance(value, dict) else [f"{path}: no object"]
            mismatches += _length_problems(value, shape, path)
            mismatches = mismatches or [p for name in value for p in problems(name, shape.key, f"{path}.{name}")]
            return mismatches + [p for k, v in value.items() for p in problems(v, shape.value, f"{path}.{k}")]
        case "boolean":
            return [] if isinstance(value, bool) else [f"{path}: {value!r} is no boolean"]
        case "integer" | "long":
            return _number_problems(value, (int,), shape, path)
        case "float" | "double":
            return _number_problems(value, (int, float), shape, path)
        case "blob":
            return _blob_problems(value, shape, path)
        case _:
            return _string_problems(value, shape, path)


def _structure_problems(value: Any, shape: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    mismatches = [f"{path}: lacks {name}" for name in shape.required_members if name not in value]
    mismatches += [f"{path}: {name} is no member of {shape.name}" for name in value if name not in shape.members]
    if shape.is_tagged_union and len(value) != 1:
        mismatches.append(f"{path}: one member of {shape.name}, not {list(value)}")
    known = [(name, inner) for name, inner in value.items() if name in shape.members]
    return mismatches + [p for name, inner in known for p in problems(inner, shape.members[name], f"{path}.{name}")]


def _blob_problems(value: Any, shape: Shape, path: str) -> list[str]:
    try:
        return _length_problems(base64.b64decode(value, validate=True), shape, path)
    except (binascii.Error, TypeError, ValueError):
        return [f"{path}: {value!r} is no base64"]


def _string_problems(value: Any, shape: Any, path: str) -> list[str]:
    if not isinstance(value, str):
        return [f"{path}: {value!r} is no text"]
    if shape.enum and value not in shape.enum:
        return [f"{path}: {value!r} is none of {shape.enum}"]
    pattern = shape.metadata.get("pattern")
    mismatches = [] if pattern is None or re.fullmatch(pattern, value) else [f"{path}: {value!r} is not like {pattern}"]
    return mismatches + _length_problems(value, shape, path)


def _number_problems(value: Any, kinds: tuple[type, ...], shape: Shape, path: str) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, kinds):
        return [f"{path}: {value!r} is no {shape.type_name}"]
    minimum, maximum = shape.metadata.get("min", value), shape.metadata.get("max", value)
    return [] if minimum <= value <= maximum else [f"{path}: {value!r} is not from {minimum} to {maximum}"]


def _length_problems(value: Any, shape: Shape, path: str) -> list[str]:
    minimum, maximum = shape.metadata.get("min", 0), shape.metadata.get("max", len(value))
    return [] if minimum <= len(value) <= maximum else [f"{path}: {len(value)} of {minimum} to {maximum}"]
