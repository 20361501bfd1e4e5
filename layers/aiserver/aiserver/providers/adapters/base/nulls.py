"""Decodes JSON in which null means absent, at every depth; JSON that is passed on keeps its nulls.

Clients and vendors write null for absent members. A member of type `Raw` is not decoded and stays unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw

NULL = Raw(b"null")
Read = TypeVar("Read")

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_elements = msgspec.json.Decoder(list[Raw]).decode


class _Object(msgspec.Struct, gc=False):
    """Any object; its members are not decoded."""


_objects = msgspec.json.Decoder(list[_Object]).decode


def is_absent(raw: Raw) -> bool:
    return len(raw) == 0 or (len(raw) == len(NULL) and raw == NULL)


def null_tolerant_decoder(kind: type[Read], empty: bytes = b"{}") -> Callable[[bytes], Read]:
    """A decoder for `kind`; null and an empty text decode as `empty`. It raises what msgspec raises."""
    decoder = msgspec.json.Decoder(kind)

    def decode(text: bytes) -> Read:
        if len(text) <= len(NULL) and is_absent(Raw(text)):
            return decoder.decode(empty)
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            return decoder.decode(msgspec.json.encode(strip_nulls(Raw(text), kind)))

    return decode


def strip_nulls(raw: Raw, kind: Any) -> Any:
    """The JSON value without the nulls that `kind` does not accept.

    Below a struct that ignores unknown members, unknown members and unknown kinds of objects are removed as well.
    A list is cut after its first element that is still invalid: decoding the result fails there.
    """
    stripped = _type_reader(kind).strip(raw, ignores_unknown=False)
    return stripped[0] if stripped else raw


class _TypeReader:
    """Strips nulls from values of one type: its structs by tag, and the element type of its lists."""

    def __init__(self, kind: Any) -> None:
        kinds = list(_alternatives(kind))
        structs = [
            alternative
            for alternative in kinds
            if isinstance(alternative, type) and issubclass(alternative, msgspec.Struct)
        ]
        item_reader = next(
            (_type_reader(get_args(alternative)[0]) for alternative in kinds if get_origin(alternative) is list), None
        )
        self.structs = {_tag(struct): _StructReader(struct) for struct in structs}
        self.tag_field = structs[0].__struct_config__.tag_field if structs else None
        self.item = item_reader if item_reader and item_reader.structs else None
        self.decode = msgspec.json.Decoder(kind).decode

    @property
    def reads_objects(self) -> bool:
        return bool(self.structs or self.item)

    def strip(self, raw: Raw, *, ignores_unknown: bool) -> list[Any]:
        """A list of one value; an empty list when the object is to be removed."""
        first = bytes(memoryview(raw)[:1])
        if first == b"[" and self.item:
            return [self.item.strip_list(raw, ignores_unknown=ignores_unknown)]
        if first == b"{" and self.structs:
            return self._object(_members(raw), ignores_unknown=ignores_unknown)
        return [raw]

    def strip_list(self, raw: Raw, *, ignores_unknown: bool) -> list[Raw]:
        """The elements of a list of this type; a valid element stays unchanged."""
        _objects(raw)  # raises when an element is not an object, before the list takes memory
        elements: list[Raw] = []
        for element in _elements(raw):
            if self._is_valid(element):
                elements.append(element)
                continue
            for stripped in self.strip(element, ignores_unknown=ignores_unknown):
                elements.append(Raw(msgspec.json.encode(stripped)))
                if not self._is_valid(elements[-1]):
                    return elements
        return elements

    def _is_valid(self, raw: Raw) -> bool:
        try:
            self.decode(raw)
        except msgspec.ValidationError:
            return False
        return True

    def _object(self, object_members: dict[str, Raw], *, ignores_unknown: bool) -> list[Any]:
        members = {name: value for name, value in object_members.items() if not is_absent(value)}
        tag = bytes(members.get(self.tag_field, b"")) if self.tag_field else b""
        if struct := self.structs.get(tag):
            return [struct.strip(members, ignores_unknown=ignores_unknown)]
        return [] if ignores_unknown else [members]


class _StructReader:
    """Strips nulls from the members of one struct."""

    def __init__(self, struct: Any) -> None:
        config, fields = struct.__struct_config__, msgspec.structs.fields(struct)
        self.types = {field.encode_name: _type_reader(field.type) for field in fields}
        self.known = {*self.types, config.tag_field}
        self.ignores_unknown = not config.forbid_unknown_fields

    def strip(self, members: dict[str, Raw], *, ignores_unknown: bool) -> dict[str, Any]:
        ignores_unknown = ignores_unknown or self.ignores_unknown
        stripped: dict[str, Any] = {}
        for name, value in members.items():
            reader = self.types.get(name)
            if reader and reader.reads_objects:
                for stripped_value in reader.strip(value, ignores_unknown=ignores_unknown):
                    stripped[name] = stripped_value
            elif name in self.known or not ignores_unknown:
                stripped[name] = value
        return stripped


@cache
def _type_reader(kind: Any) -> _TypeReader:
    return _TypeReader(kind)


def _tag(struct: Any) -> bytes:
    """The JSON text of the struct's tag; empty for a struct without a tag."""
    config = struct.__struct_config__
    return msgspec.json.encode(config.tag) if config.tag_field else b""


def _alternatives(kind: Any) -> Iterator[Any]:
    """The member types of a union."""
    if get_origin(kind) is list or not get_args(kind):
        yield kind
        return
    for alternative in get_args(kind):
        yield from _alternatives(alternative)
