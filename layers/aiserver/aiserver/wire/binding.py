"""Reads a checked body at its known positions: gives members the names they are known by, and checks their types.

A body is walked, not built: what is found are spans of its text, and the edits that rename its keys.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiserver.errors import FieldError, InvalidRequest
from aiserver.limits import MAX_PROBLEMS
from aiserver.wire.json_text import SPACE, STRING, Edit, Member, elements, holds_only_objects, members
from aiserver.wire.schemas import Kind, Shape
from aiserver.wire.validation import Place, field_error, path

_integer = re.compile(rb"-?[0-9]+|null").fullmatch
# What most messages are; each that matches needs no further look.
_plain_message = re.compile(
    rb'%b[\[,]%b\{%b"role"%b:%b"[^"\\]++"%b,%b"content"%b:%b%b%b\}' % (*[SPACE] * 9, STRING, SPACE), re.DOTALL
).match


@dataclass
class Bound:
    """What is known of a body: its members by name, the edits that give them those names, and what is wrong."""

    members: Mapping[str, Member] = field(default_factory=dict[str, Member])
    edits: list[Edit] = field(default_factory=list[Edit])
    problems: dict[str, FieldError] = field(default_factory=dict[str, FieldError])


def bind(text: bytes, found: list[Member], shape: Shape, ignored: Collection[str] = ()) -> Bound:
    """The root object of `text`, whose members are `found`; the types of `ignored` ones are not checked.

    Raises: InvalidRequest, for a known member given twice, or with every wrong member listed (at most MAX_PROBLEMS).
    """
    walk = _Walk(text)
    names = walk.object(found, shape, (), ignored)
    if walk.bound.problems:
        param, first = next(iter(walk.bound.problems.items()))
        raise InvalidRequest(first.message, param=param, fields=tuple(walk.bound.problems.values()))
    walk.bound.members = dict(zip(names, found, strict=True))
    return walk.bound


def scalar(text: bytes, member: Member) -> Any:
    """A member's value where it is a string, a number or a literal; of an array or an object an empty one."""
    first = text[member.value_start : member.value_start + 1]
    if first in (b"{", b"["):
        return {} if first == b"{" else []
    try:
        return json.loads(text[member.value_start : member.value_end])
    except ValueError:  # an integer of more digits than Python reads
        return float("inf")


class _Walk:
    def __init__(self, text: bytes) -> None:
        self.bound = Bound()
        self._text = text

    def object(self, found: list[Member], shape: Shape, place: Place, ignored: Collection[str] = ()) -> tuple[str, ...]:
        """The names of an object's members."""
        names = shape.canonical(tuple([member.key for member in found]))
        for name in shape.required:
            if name not in names:
                self._report((*place, name), "must not be empty")
        for member, name in zip(found, names, strict=True):
            if name != member.key:
                self.bound.edits.append(Edit(member.key_start, member.key_end, b'"%b"' % name.encode()))
            kind = None if name in ignored else shape.kinds.get(name)
            if kind and not self._has_kind(member, kind, (*place, name)):
                continue
            if name in shape.below:
                self._below(member, shape.below[name], (*place, name), kind)
            elif kind and kind.items:
                self._check_items(member, kind, (*place, name))
        return names

    def _below(self, member: Member, shape: Shape, place: Place, kind: Kind | None) -> None:
        at = member.value_start
        if self._text[at : at + 1] == b"{":
            self.object(members(self._text, at), shape, place)
        elif self._text[at : at + 1] == b"[":
            self._items(at, shape, place, kind)

    def _items(self, at: int, shape: Shape, place: Place, kind: Kind | None) -> None:
        """Each object of an array, one after another; whether a plain message is next is seen first."""
        i, is_messages = 0, place == ("messages",)
        while True:
            if kind and kind.max_length is not None and i > kind.max_length:
                self._report(place, f"should have at most {kind.max_length:,} items")
                return
            if is_messages and (plain := _plain_message(self._text, at)):
                at = plain.end()
            elif item := next(elements(self._text, at), None):
                start, at = item
                self._item(start, shape, (*place, i), kind)
            else:
                return
            if len(self.bound.problems) >= MAX_PROBLEMS:
                return
            i += 1

    def _item(self, at: int, shape: Shape, place: Place, kind: Kind | None) -> None:
        if self._text[at : at + 1] == b"{":
            self.object(members(self._text, at), shape, place)
        elif kind and kind.items:
            self._report(place, f"should be {kind.item_words}")

    def _has_kind(self, member: Member, kind: Kind, place: Place) -> bool:
        start, end = member.value_start, member.value_end
        if self._text[start] not in kind.first or (kind.is_integer and not _integer(self._text, start, end)):
            self._report(place, f"should be {kind.words}")
        elif (kind.min_length and end - start == 2) or self._is_empty_array(start, kind):
            self._report(place, "must not be empty")
        elif kind.max_length is not None and self._text[start : start + 1] == b'"' and self._is_long(member, kind):
            self._report(place, f"should have at most {kind.max_length} characters")
        else:
            return True
        return False

    def _is_empty_array(self, at: int, kind: Kind) -> bool:
        return bool(kind.min_length) and self._text[at : at + 1] == b"[" and not any(elements(self._text, at))

    def _is_long(self, member: Member, kind: Kind) -> bool:
        """An escaped character may take twelve bytes."""
        length, most = member.value_end - member.value_start - 2, kind.max_length or 0
        return length > most and (length > 12 * most or len(scalar(self._text, member)) > most)

    def _check_items(self, member: Member, kind: Kind, place: Place) -> None:
        """The first element of another type is reported, and no further ones."""
        start = member.value_start
        if self._text[start] not in b"[" or (kind.items == b"{" and holds_only_objects(self._text, start)):
            return
        for i, (at, _) in enumerate(elements(self._text, start)):
            if self._text[at] not in kind.items:
                self._report((*place, i), f"should be {kind.item_words}")
                return

    def _report(self, place: Place, words: str) -> None:
        if len(self.bound.problems) < MAX_PROBLEMS:
            self.bound.problems.setdefault(path(place), field_error(place, words))
