"""Gives the members of a body the names they are known by: in what was parsed of it, and in its text."""

import re
from collections import Counter
from collections.abc import Iterator
from operator import is_not
from typing import Any, NamedTuple

from aiserver.wire.shapes import Shape
from aiserver.wire.text import Edit, apply, elements, keys, members, values

MAX_SWAPPED = 20  # different keys, each of which takes a pass over the text
_ESCAPED = re.compile(r"\\u00(?:2[dD]|[4-7])")  # a letter, `-` or `_`: what a known name is made of


class _Known(NamedTuple):
    """What is known of an object: its members' names, each key that is another with its name, and the names below."""

    names: tuple[str, ...]
    changes: list[tuple[str, str]]
    below: list[str]


class Naming:
    """Names one body's members. Where many objects have the same keys, their names are looked up once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[str, ...]], _Known] = {}
        self._changes: list[tuple[str, str]] = []

    def named(self, value: Any, shape: Shape) -> Any:
        """What was parsed, with all that is known under its known name; the same object where it is already.

        Raises: InvalidRequest (a known member twice).
        """
        if isinstance(value, list):
            sent: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
            items = [self.named(item, shape) for item in sent]
            return items if any(map(is_not, items, sent)) else sent
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        known = self._known.get((id(shape), keys(found))) or self._look_up(keys(found), shape)
        if known.changes:
            found = dict(zip(known.names, values(found), strict=True))
            self._changes += known.changes
        for name in known.below:
            if (inner := self.named(found[name], shape.below[name])) is not found[name]:
                found = {**found, name: inner}
        return found

    def _look_up(self, found: tuple[str, ...], shape: Shape) -> _Known:
        names = shape.canonical(found)
        changes = [(key, name) for key, name in zip(found, names, strict=True) if key != name]
        known = _Known(names, changes, [name for name in names if name in shape.below])
        return self._known.setdefault((id(shape), found), known)

    def renamed(self, text: str, sent: Any, named: Any, shape: Shape) -> str:
        """The text of `sent` as that of `named`."""
        swapped = self._swapped(text)
        return apply(text, self._edits(text, 0, sent, named, shape)) if swapped is None else swapped

    def _swapped(self, text: str) -> str | None:
        """The text with every `"key"` swapped for its name; None where one might be a value, or the caller's own.

        Where no letter is escaped, each key that is to be renamed is one of them: if there are no more, they are it.
        """
        changes = Counter(self._changes)
        if changes and (len(changes) > MAX_SWAPPED or _ESCAPED.search(text)):
            return None
        for (key, name), times in changes.items():
            pieces = text.split(f'"{key}"')
            if len(pieces) != times + 1 or not key.isascii():
                return None
            text = f'"{name}"'.join(pieces)
        return text

    def _edits(self, text: str, at: int, sent: Any, named: Any, shape: Shape) -> Iterator[Edit]:
        """The same by position, whatever the text holds; what is as it was sent is passed over."""
        if named is sent:
            return
        if isinstance(named, list):
            items: list[Any] = named  # pyright: ignore[reportUnknownVariableType]
            for (start, _), one, other in zip(elements(text, at), sent, items, strict=True):
                yield from self._edits(text, start, one, other, shape)
            return
        names = self._known[id(shape), keys(sent)].names
        for member, name in zip(members(text, at), names, strict=True):
            if name != member.key:
                yield Edit(member.key_start, member.key_end, f'"{name}"')
            if name in shape.below:
                yield from self._edits(text, member.value_start, sent[member.key], named[name], shape.below[name])
