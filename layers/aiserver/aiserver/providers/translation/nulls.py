"""Reads JSON in which null means absent, at every depth of what is read; JSON that is passed on keeps its nulls.

Clients and vendors write null for members that they do not have. What a type does not read (`Raw`) stays as it came.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw

NULL = Raw(b"null")
Read = TypeVar("Read")

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode


def is_absent(raw: Raw) -> bool:
    return len(raw) == 0 or (len(raw) == len(NULL) and raw == NULL)


def reader(kind: type[Read], empty: bytes = b"{}") -> Callable[[bytes], Read]:
    """Decodes a value of that type; null, and no text at all, is an empty one. Raises: what msgspec raises."""
    decoder = msgspec.json.Decoder(kind)

    def read(text: bytes) -> Read:
        if len(text) <= len(NULL) and is_absent(Raw(text)):
            return decoder.decode(empty)
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            return decoder.decode(msgspec.json.encode(without_nulls(Raw(text), kind)))

    return read


def without_nulls(raw: Raw, kind: Any) -> Any:
    """The JSON value without the nulls that `kind` does not read.

    Below a struct that ignores unknown members, unknown members and unknown kinds of objects are left out as well.
    """
    found = list(_without(raw, list(_alternatives(kind)), ignores_unknown=False))
    return found[0] if found else raw


def _without(raw: Raw, kinds: list[Any], *, ignores_unknown: bool) -> Iterator[Any]:
    """One value, or none where the object is to be left out."""
    first = bytes(memoryview(raw)[:1])
    items = [item for kind in kinds if get_origin(kind) is list for item in _alternatives(get_args(kind)[0])]
    if first == b"[" and _structs(items):
        each = _objects(raw)  # raises, before they are built, where one is no object
        yield [one for item in each for one in _of_object(item, _structs(items), ignores_unknown=ignores_unknown)]
    elif first == b"{" and _structs(kinds):
        yield from _of_object(_members(raw), _structs(kinds), ignores_unknown=ignores_unknown)
    else:
        yield raw


def _structs(kinds: list[Any]) -> list[Any]:
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


def _of_object(given: dict[str, Raw], structs: list[Any], *, ignores_unknown: bool) -> Iterator[Any]:
    members = {name: value for name, value in given.items() if not is_absent(value)}
    chosen = [struct for struct in structs if _has_tag(struct, members)]
    if chosen or not ignores_unknown:
        yield _of_members(members, chosen or structs, ignores_unknown=ignores_unknown)


def _of_members(members: dict[str, Raw], structs: list[Any], *, ignores_unknown: bool) -> dict[str, Any]:
    known = _known(tuple(structs))
    ignores_unknown = ignores_unknown or any(not one.__struct_config__.forbid_unknown_fields for one in structs)
    tags = {struct.__struct_config__.tag_field for struct in structs}
    return {
        name: one
        for name, value in members.items()
        if not ignores_unknown or name in known or name in tags
        for one in _without(value, known.get(name, []), ignores_unknown=ignores_unknown)
    }


@cache
def _known(structs: tuple[Any, ...]) -> dict[str, list[Any]]:
    """The types of each member that one of them reads."""
    known: dict[str, list[Any]] = {}
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            known.setdefault(field.encode_name, []).extend(_alternatives(field.type))
    return known


def _has_tag(struct: Any, members: dict[str, Raw]) -> bool:
    config = struct.__struct_config__
    return config.tag_field is None or members.get(config.tag_field) == Raw(msgspec.json.encode(config.tag))


def _alternatives(kind: Any) -> Iterator[Any]:
    """The types of a union, one by one."""
    if get_origin(kind) is list or not get_args(kind):
        yield kind
        return
    for one in get_args(kind):
        yield from _alternatives(one)
