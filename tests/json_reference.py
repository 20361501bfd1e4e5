"""What a JSON text holds by Python's own parser, which builds it: the reference for what is read without building."""

import json
from typing import Any, NoReturn

MAX_DEPTH = 100


def value(text: bytes) -> Any:
    """The value of a text that is safe to pass on. Raises: ValueError.

    Unsafe are NaN and Infinity, unpaired surrogates, a byte order mark, and nesting over MAX_DEPTH.
    """
    try:
        found = json.loads(text.decode(), parse_constant=_refuse, parse_int=float)
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("too deep") from error
    if depth(found) > MAX_DEPTH:
        raise ValueError("too deep")
    return found


def members(text: bytes) -> dict[str, bytes] | None:
    """The text of each member of an object, of the last where there are several; None for what is no object."""
    try:
        found = value(text)
    except ValueError:
        return None
    return dict(_members(text.decode())) if isinstance(found, dict) else None


def depth(found: Any) -> int:
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def count(found: Any) -> int:
    """The values in a value, itself included."""
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return 1 + sum(map(count, inner))


def _members(text: str) -> list[tuple[str, bytes]]:
    decoder, found, at = json.JSONDecoder(), list[tuple[str, bytes]](), text.index("{") + 1
    while True:
        at = _after_space(text, at)
        if text[at] == "}":
            return found
        key, at = decoder.raw_decode(text, _after_space(text, at + (text[at] == ",")))
        start = _after_space(text, _after_space(text, at) + 1)
        _, at = decoder.raw_decode(text, start)
        found.append((key, text[start:at].encode()))


def _after_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip(" \t\n\r"))


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
