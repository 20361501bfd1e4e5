"""Binds a checked JSON body to a schema: canonical member names, and type checks.

The body is scanned without building objects. The results are spans of its text, and edits that rename keys.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiserver.errors import FieldError, InvalidRequest
from aiserver.limits import MAX_FIELD_ERRORS
from aiserver.wire.json_text import SPACE, STRING, Edit, Member, contains_only_objects, iterate_elements, parse_members
from aiserver.wire.schemas import FieldType, ObjectSchema
from aiserver.wire.validation import FieldPath, field_error, format_path

_integer = re.compile(rb"-?[0-9]+|null").fullmatch
# The form of most messages; a match needs no further checks.
_plain_message = re.compile(
    rb'%b[\[,]%b\{%b"role"%b:%b"[^"\\]++"%b,%b"content"%b:%b%b%b\}' % (*[SPACE] * 9, STRING, SPACE), re.DOTALL
).match


@dataclass
class BoundBody:
    """The result of binding a body: members by canonical name, edits that rename keys, errors by field path."""

    members: Mapping[str, Member] = field(default_factory=dict[str, Member])
    edits: list[Edit] = field(default_factory=list[Edit])
    errors: dict[str, FieldError] = field(default_factory=dict[str, FieldError])


def bind(text: bytes, root_members: list[Member], schema: ObjectSchema, ignored: Collection[str] = ()) -> BoundBody:
    """Bind the root object of `text`, whose members are `root_members`; types of `ignored` members are not checked.

    Raises: InvalidRequest, for a duplicate of a known member, or with every invalid member listed (at most
    MAX_FIELD_ERRORS).
    """
    binder = _Binder(text)
    names = binder.bind_object(root_members, schema, (), ignored)
    if binder.bound.errors:
        param, first_error = next(iter(binder.bound.errors.items()))
        raise InvalidRequest(first_error.message, param=param, fields=tuple(binder.bound.errors.values()))
    binder.bound.members = dict(zip(names, root_members, strict=True))
    return binder.bound


def scalar_value(text: bytes, member: Member) -> Any:
    """A member's string, number or literal; for an array or an object, an empty one."""
    first_byte = text[member.value_start : member.value_start + 1]
    if first_byte in (b"{", b"["):
        return {} if first_byte == b"{" else []
    try:
        return json.loads(text[member.value_start : member.value_end])
    except ValueError:  # an integer with more digits than Python parses
        return float("inf")


class _Binder:
    def __init__(self, text: bytes) -> None:
        self.bound = BoundBody()
        self._text = text

    def bind_object(
        self, members: list[Member], schema: ObjectSchema, path: FieldPath, ignored: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Check an object; the canonical names of its members."""
        names = schema.canonical_names(tuple([member.key for member in members]))
        for name in schema.required:
            if name not in names:
                self._report((*path, name), "must not be empty")
        for member, name in zip(members, names, strict=True):
            if name != member.key:
                self.bound.edits.append(Edit(member.key_start, member.key_end, b'"%b"' % name.encode()))
            field_type = None if name in ignored else schema.types.get(name)
            if field_type and not self._has_type(member, field_type, (*path, name)):
                continue
            if name in schema.nested:
                self._bind_nested(member, schema.nested[name], (*path, name), field_type)
            elif field_type and field_type.item_first_bytes:
                self._check_items(member, field_type, (*path, name))
        return names

    def _bind_nested(self, member: Member, schema: ObjectSchema, path: FieldPath, field_type: FieldType | None) -> None:
        at = member.value_start
        if self._text[at : at + 1] == b"{":
            self.bind_object(parse_members(self._text, at), schema, path)
        elif self._text[at : at + 1] == b"[":
            self._bind_items(at, schema, path, field_type)

    def _bind_items(self, at: int, schema: ObjectSchema, path: FieldPath, field_type: FieldType | None) -> None:
        """Bind each object of an array in order; plain messages are recognized first."""
        index, is_messages = 0, path == ("messages",)
        while True:
            if field_type and field_type.max_length is not None and index > field_type.max_length:
                self._report(path, f"should have at most {field_type.max_length:,} items")
                return
            if is_messages and (message := _plain_message(self._text, at)):
                at = message.end()
            elif span := next(iterate_elements(self._text, at), None):
                start, at = span
                self._bind_item(start, schema, (*path, index), field_type)
            else:
                return
            if len(self.bound.errors) >= MAX_FIELD_ERRORS:
                return
            index += 1

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
            and self._is_too_long(member, field_type)
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

    def _is_too_long(self, member: Member, field_type: FieldType) -> bool:
        """Whether a string exceeds its limit; an escaped character may take twelve bytes."""
        byte_length, max_length = member.value_end - member.value_start - 2, field_type.max_length or 0
        if byte_length <= max_length:
            return False
        return byte_length > 12 * max_length or len(scalar_value(self._text, member)) > max_length

    def _check_items(self, member: Member, field_type: FieldType, path: FieldPath) -> None:
        """Report the first element of another type only."""
        start = member.value_start
        if self._text[start] not in b"[" or (
            field_type.item_first_bytes == b"{" and contains_only_objects(self._text, start)
        ):
            return
        for index, (at, _) in enumerate(iterate_elements(self._text, start)):
            if self._text[at] not in field_type.item_first_bytes:
                self._report((*path, index), f"should be {field_type.item_description}")
                return

    def _report(self, path: FieldPath, problem: str) -> None:
        if len(self.bound.errors) < MAX_FIELD_ERRORS:
            self.bound.errors.setdefault(format_path(path), field_error(path, problem))
