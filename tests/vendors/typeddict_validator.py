"""Whether a JSON value is what a TypedDict of an SDK says, and nothing beyond it: what its type checker would say."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict


def problems(value: Any, kind: Any, where: str = "$") -> list[str]:
    """What is wrong with it; a union's are those of the member that fits best."""
    origin = get_origin(kind)
    if kind is Any or kind is object:
        return []
    if origin in (Required, NotRequired):
        return problems(value, get_args(kind)[0], where)
    if origin is Union or type(kind).__name__ == "UnionType":
        return min((problems(value, one, where) for one in get_args(kind)), key=len)
    if origin is Literal:
        return [] if value in get_args(kind) else [f"{where}: {value!r} is none of {get_args(kind)}"]
    if is_typeddict(kind):
        return _of_members(value, kind, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        wrong = [] if isinstance(value, dict) else [f"{where}: no object"]
        return wrong or [p for k, v in value.items() for p in problems(v, get_args(kind)[1], f"{where}.{k}")]
    if (isinstance(origin, type) and issubclass(origin, Iterable)) or "SequenceNotStr" in str(kind):
        wrong = [] if isinstance(value, list) else [f"{where}: no array"]
        return wrong or [p for i, v in enumerate(value) for p in problems(v, get_args(kind)[0], f"{where}[{i}]")]
    return _of_plain(value, kind, where)


def _of_members(value: Any, kind: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: no object"]
    hints = get_type_hints(kind, include_extras=True)
    wrong = [f"{where}: lacks {name}" for name in kind.__required_keys__ if name not in value]
    wrong += [f"{where}: {name} is no member of {kind.__name__}" for name in value if name not in hints]
    return wrong + [p for k, v in value.items() if k in hints for p in problems(v, hints[k], f"{where}.{k}")]


def _of_plain(value: Any, kind: Any, where: str) -> list[str]:
    fits: Mapping[Any, tuple[type, ...]] = {float: (int, float), datetime: (str,), type(None): (type(None),)}
    wanted = fits.get(kind, (kind,) if isinstance(kind, type) else ())
    is_bool = isinstance(value, bool) and bool not in wanted
    return [] if isinstance(value, wanted) and not is_bool else [f"{where}: {value!r} is no {kind}"]
