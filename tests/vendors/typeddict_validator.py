"""Validation of JSON values by an SDK's TypedDict, as strict as a type checker."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict


def problems(value: Any, kind: Any, path: str = "$") -> list[str]:
    """Descriptions of all mismatches with the type. For a union, those of the member that fits best."""
    origin = get_origin(kind)
    if kind is Any or kind is object:
        return []
    if origin in (Required, NotRequired):
        return problems(value, get_args(kind)[0], path)
    if origin is Union or type(kind).__name__ == "UnionType":
        return min((problems(value, member, path) for member in get_args(kind)), key=len)
    if origin is Literal:
        return [] if value in get_args(kind) else [f"{path}: {value!r} is none of {get_args(kind)}"]
    if is_typeddict(kind):
        return _member_problems(value, kind, path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        mismatches = [] if isinstance(value, dict) else [f"{path}: no object"]
        return mismatches or [p for k, v in value.items() for p in problems(v, get_args(kind)[1], f"{path}.{k}")]
    if (isinstance(origin, type) and issubclass(origin, Iterable)) or "SequenceNotStr" in str(kind):
        mismatches = [] if isinstance(value, list) else [f"{path}: no array"]
        return mismatches or [p for i, v in enumerate(value) for p in problems(v, get_args(kind)[0], f"{path}[{i}]")]
    return _scalar_problems(value, kind, path)


def _member_problems(value: Any, kind: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    hints = get_type_hints(kind, include_extras=True)
    mismatches = [f"{path}: lacks {name}" for name in kind.__required_keys__ if name not in value]
    mismatches += [f"{path}: {name} is no member of {kind.__name__}" for name in value if name not in hints]
    return mismatches + [p for k, v in value.items() if k in hints for p in problems(v, hints[k], f"{path}.{k}")]


def _scalar_problems(value: Any, kind: Any, path: str) -> list[str]:
    fits: Mapping[Any, tuple[type, ...]] = {float: (int, float), datetime: (str,), type(None): (type(None),)}
    wanted = fits.get(kind, (kind,) if isinstance(kind, type) else ())
    is_bool = isinstance(value, bool) and bool not in wanted
    return [] if isinstance(value, wanted) and not is_bool else [f"{path}: {value!r} is no {kind}"]
