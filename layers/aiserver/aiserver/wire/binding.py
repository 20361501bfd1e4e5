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
from aiserver.wire.json_text import SPACE, STRING, Edit, Member, contains_only_objects, iterate_elements, parse_members
from aiserver.wire.schemas import FieldType, ObjectSchema
from aiserver.wire.validation import FieldPath, field_error, format_path

_integer = re.compile(rb"-?[0-9]+|null").fullmatch
# What most messages are; each that matches needs no further look.
_plain_message = re.compile(
    rb'%b[\[,]%b\{%b"role"%b:%b"[^"\\]++"%b,%b"content"%b:%b%b%b\}' % (*[SPACE] * 9, STRING, SPACE), re.DOTALL
).match


@dataclass
class BoundBody:
    """What is known of a body: its members by name, the edits that give them those names, and what is wrong."""

    members: Mapping[str, Member] = field(default_factory=dict[str, Member])
    edits: list[Edit] = field(default_factory=list[Edit])
    errors: dict[str, FieldError] = field(default_factory=dict[str, FieldError])


def bind(text: bytes, root_members: list[Member], schema: ObjectSchema, ignored: Collection[str] = ()) -> BoundBody:
    """The root object of `text`, whose members are `found`; the types of `ignored` ones are not checked.

    Raises: InvalidRequest, for a known member given twice, or with every wrong member listed (at most MAX_PROBLEMS).
    """
    walk = _Binder(text)
    names = walk.bind_object(root_members, schema, (), ignored)
    if walk.bound.errors:
        param, first = next(iter(walk.bound.errors.items()))
        raise InvalidRequest(first.message, param=param, fields=tuple(walk.bound.errors.values()))
    walk.bound.members = dict(zip(names, root_members, strict=True))
    return walk.bound


def scalar_value(text: bytes, member: Member) -> Any:
    """A member's value where it is a string, a number or a literal; of an array or an object an empty one."""
    first = text[member.value_start : member.value_start + 1]
    if first in (b"{", b"["):
        return {} if first == b"{" else []
    try:
        return json.loads(text[member.value_start : member.value_end])
    except ValueError:  # an integer of more digits than Python reads
        return float("inf")


class _Binder:
    def __init__(self, text: bytes) -> None:
        self.bound = BoundBody()
        self._text = text

    def bind_object(
        self, members: list[Member], schema: ObjectSchema, path: FieldPath, ignored: Collection[str] = ()
    ) -> tuple[str, ...]:
        """The names of an object's members."""
        names = schema.canonical_names(tuple([member.key for member in members]))
        for name in schema.required:
            if name not in names:
                self._report((*path, name), "must not be empty")
        for member, name in zip(members, names, strict=True):
            if name != member.key:
                self.bound.edits.append(Edit(member.key_start, member.key_end, b'"%b"' % name.encode()))
            kind = None if name in ignored else schema.types.get(name)
            if kind and not self._has_type(member, kind, (*path, name)):
                continue
            if name in schema.nested:
                self._bind_nested(member, schema.nested[name], (*path, name), kind)
            elif kind and kind.item_first_bytes:
                self._check_items(member, kind, (*path, name))
        return names

    def _bind_nested(self, member: Member, schema: ObjectSchema, path: FieldPath, field_type: FieldType | None) -> None:
        at = member.value_start
        if self._text[at : at + 1] == b"{":
            self.bind_object(parse_members(self._text, at), schema, path)
        elif self._text[at : at + 1] == b"[":
            self._bind_items(at, schema, path, field_type)

    def _bind_items(self, at: int, schema: ObjectSchema, path: FieldPath, field_type: FieldType | None) -> None:
        """Each object of an array, one after another; whether a plain message is next is seen first."""
        i, is_messages = 0, path == ("messages",)
        while True:
            if field_type and field_type.max_length is not None and i > field_type.max_length:
                self._report(path, f"should have at most {field_type.max_length:,} items")
                return
            if is_messages and (plain := _plain_message(self._text, at)):
                at = plain.end()
            elif item := next(iterate_elements(self._text, at), None):
                start, at = item
                self._bind_item(start, schema, (*path, i), field_type)
            else:
                return
            if len(self.bound.errors) >= MAX_PROBLEMS:
                return
            i += 1

    def _bind_item(self, at: int, schema: ObjectSchema, path: FieldPath, field_type: FieldType | None) -> None:
        if self._text[at : at + 1] == b"{":
            self.bind_object(parse_members(self._text, at), schema, path)
        elif field_type and field_type.item_first_bytes:
            self._report(path, f"should be {field_type.item_description}")

    def _has_type(self, member: Member, field_type: FieldType, path: FieldPath) -> bool:
        start, end = member.value_start, member.value_end
        if self._text[start] not in field_type.first_bytes or (
            field_type.is_integer and not _integer(self._text, start, end)
        ):
            self._report(path, f"should be {field_type.description}")
        elif (field_type.min_length and end - start == 2) or self._is_empty_array(start, field_type):
            self._report(path, "must not be empty")
        elif (
            field_type.max_length is not None
            and self._text[start : start + 1] == b'"'
            and self._is_long(member, field_type)
        ):
            self._report(path, f"should have at most {field_type.max_length} characters")
        else:
            return True
        return False

    def _is_empty_array(self, at: int, field_type: FieldType) -> bool:
        return (
            bool(field_type.min_length)
            and self._text[at : at + 1] == b"["
            and not any(iterate_elements(self._text, at))
        )

    def _is_long(self, member: Member, field_type: FieldType) -> bool:
        """An escaped character may take twelve bytes."""
        length, most = member.value_end - member.value_start - 2, field_type.max_length or 0
        return length > most and (length > 12 * most or len(scalar_value(self._text, member)) > most)

    def _check_items(self, member: Member, field_type: FieldType, path: FieldPath) -> None:
        """The first element of another type is reported, and no further ones."""
        start = member.value_start
        if self._text[start] not in b"[" or (
            field_type.item_first_bytes == b"{" and contains_only_objects(self._text, start)
        ):
            return
        for i, (at, _) in enumerate(iterate_elements(self._text, start)):
            if self._text[at] not in field_type.item_first_bytes:
                self._report((*path, i), f"should be {field_type.item_description}")
                return

    def _report(self, path: FieldPath, problem: str) -> None:
        if len(self.bound.errors) < MAX_PROBLEMS:
            self.bound.errors.setdefault(format_path(path), field_error(path, problem))
