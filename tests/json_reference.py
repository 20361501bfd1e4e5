"""Reference JSON reader on Python's parser, for the scanner that reads values without building them."""

import json
from typing import Any, NoReturn

MAX_DEPTH = 100


def parse(text: bytes) -> Any:
    """Parse a text that is safe to forward. Raises: ValueError.

    Unsafe are NaN and Infinity, unpaired surrogates, a byte order mark, and nesting over MAX_DEPTH.
    """
    try:
        document = json.loads(text.decode(), parse_constant=_reject_constant, parse_int=float)
        json.dumps(document, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("too deep") from error
    if depth(document) > MAX_DEPTH:
        raise ValueError("too deep")
    return document


def members(text: bytes) -> dict[str, bytes] | None:
    """Return the text of each member of an object (the last of duplicates), or None for another JSON value."""
    try:
        document = parse(text)
    except ValueError:
        return None
    return dict(_members(text.decode())) if isinstance(document, dict) else None


def depth(document: Any) -> int:
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else None
    return 0 if children is None else 1 + max(map(depth, children), default=0)


def count_values(document: Any) -> int:
    """Count all values in a document, including the document."""
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return 1 + sum(map(count_values, children))


def _members(text: str) -> list[tuple[str, bytes]]:
    decoder, pairs, at = json.JSONDecoder(), list[tuple[str, bytes]](), text.index("{") + 1
    while True:
        at = _skip_space(text, at)
        if text[at] == "}":
            return pairs
        key, at = decoder.raw_decode(text, _skip_space(text, at + (text[at] == ",")))
        start = _skip_space(text, _skip_space(text, at) + 1)
        _, at = decoder.raw_decode(text, start)
        pairs.append((key, text[start:at].encode()))


def _skip_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip(" \t\n\r"))


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)
