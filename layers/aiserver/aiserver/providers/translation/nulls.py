"""Reads JSON in which null means absent, at every depth of what is read; JSON that is passed on keeps its nulls.

Clients and vendors write null for members that they do not have. What a type does not read (`Raw`) stays as it came.
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
    """Any object; nothing of it is built."""


_objects = msgspec.json.Decoder(list[_Object]).decode


def is_absent(raw: Raw) -> bool:
    return len(raw) == 0 or (len(raw) == len(NULL) and raw == NULL)


def null_tolerant_decoder(kind: type[Read], empty: bytes = b"{}") -> Callable[[bytes], Read]:
    """Decodes a value of that type; null, and no text at all, is an empty one. Raises: what msgspec raises."""
    decoder = msgspec.json.Decoder(kind)

    def read(text: bytes) -> Read:
        if len(text) <= len(NULL) and is_absent(Raw(text)):
            return decoder.decode(empty)
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            return decoder.decode(msgspec.json.encode(strip_nulls(Raw(text), kind)))

    return read


def strip_nulls(raw: Raw, kind: Any) -> Any:
    """The JSON value without the nulls that `kind` does not read.

    Below a struct that ignores unknown members, unknown members and unknown kinds of objects are left out as well.
    A list ends at its first element that is wrong all the same: decoding the result fails there.
    """
    found = _type_reader(kind).strip(raw, ignores_unknown=False)
    return found[0] if found else raw


class _TypeReader:
    """What is read of the values of one type: its structs by their tags, and what its lists hold."""

    def __init__(self, kind: Any) -> None:
        kinds = list(_alternatives(kind))
        structs = [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        item = next((_type_reader(get_args(one)[0]) for one in kinds if get_origin(one) is list), None)
        self.structs = {_tag(struct): _StructReader(struct) for struct in structs}
        self.tag_field = structs[0].__struct_config__.tag_field if structs else None
        self.item = item if item and item.structs else None
        self.decode = msgspec.json.Decoder(kind).decode

    @property
    def reads_objects(self) -> bool:
        return bool(self.structs or self.item)

    def strip(self, raw: Raw, *, ignores_unknown: bool) -> list[Any]:
        """One value, or none where the object is to be left out."""
        first = bytes(memoryview(raw)[:1])
        if first == b"[" and self.item:
            return [self.item.strip_list(raw, ignores_unknown=ignores_unknown)]
        if first == b"{" and self.structs:
            return self._object(_members(raw), ignores_unknown=ignores_unknown)
        return [raw]

    def strip_list(self, raw: Raw, *, ignores_unknown: bool) -> list[Raw]:
        """The elements of a list of this type; one that can be decoded as it is stays as it is."""
        _objects(raw)  # raises, before a list of them takes memory, where one is no object
        kept: list[Raw] = []
        for item in _elements(raw):
            if self._is_one(item):
                kept.append(item)
                continue
            for one in self.strip(item, ignores_unknown=ignores_unknown):
                kept.append(Raw(msgspec.json.encode(one)))
                if not self._is_one(kept[-1]):
                    return kept
        return kept

    def _is_one(self, raw: Raw) -> bool:
        try:
            self.decode(raw)
        except msgspec.ValidationError:
            return False
        return True

    def _object(self, given: dict[str, Raw], *, ignores_unknown: bool) -> list[Any]:
        members = {name: value for name, value in given.items() if not is_absent(value)}
        tag = bytes(members.get(self.tag_field, b"")) if self.tag_field else b""
        if struct := self.structs.get(tag):
            return [struct.strip(members, ignores_unknown=ignores_unknown)]
        return [] if ignores_unknown else [members]


class _StructReader:
    """The members that a struct reads."""

    def __init__(self, struct: Any) -> None:
        config, fields = struct.__struct_config__, msgspec.structs.fields(struct)
        self.types = {field.encode_name: _type_reader(field.type) for field in fields}
        self.known = {*self.types, config.tag_field}
        self.ignores_unknown = not config.forbid_unknown_fields

    def strip(self, members: dict[str, Raw], *, ignores_unknown: bool) -> dict[str, Any]:
        ignores_unknown = ignores_unknown or self.ignores_unknown
        read: dict[str, Any] = {}
        for name, value in members.items():
            member = self.types.get(name)
            if member and member.reads_objects:
                for one in member.strip(value, ignores_unknown=ignores_unknown):
                    read[name] = one
            elif name in self.known or not ignores_unknown:
                read[name] = value
        return read


@cache
def _type_reader(kind: Any) -> _TypeReader:
    return _TypeReader(kind)


def _tag(struct: Any) -> bytes:
    """The JSON text of its tag; nothing where it has none."""
    config = struct.__struct_config__
    return msgspec.json.encode(config.tag) if config.tag_field else b""


def _alternatives(kind: Any) -> Iterator[Any]:
    """The types of a union, one by one."""
    if get_origin(kind) is list or not get_args(kind):
        yield kind
        return
    for one in get_args(kind):
        yield from _alternatives(one)
