"""Reads JSON in which null means absent, at every depth of what is read; JSON that is passed on keeps its nulls.

Clients and vendors write null for members that they do not have. What a type does not read (`Raw`) stays as it came.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw

NULL = Raw(b"null")
Read = TypeVar("Read")

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_elements = msgspec.json.Decoder(list[Raw]).decode


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
    A list ends at its first element that is wrong all the same: decoding the result fails there.
    """
    found = list(_without(raw, kind, ignores_unknown=False))
    return found[0] if found else raw


def _without(raw: Raw, kind: Any, *, ignores_unknown: bool) -> Iterator[Any]:
    """One value, or none where the object is to be left out."""
    first, kinds = bytes(memoryview(raw)[:1]), list(_alternatives(kind))
    if first == b"[":
        items = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
        yield _of_list(raw, items[0], ignores_unknown=ignores_unknown) if items else raw
    elif first == b"{" and (structs := _structs(kinds)):
        yield from _of_object(_members(raw), structs, ignores_unknown=ignores_unknown)
    else:
        yield raw


def _of_list(raw: Raw, kind: Any, *, ignores_unknown: bool) -> list[Raw]:
    """An element that can be decoded as it is stays as it is: most have no nulls, and are not built."""
    decode, kept = _decoder(kind).decode, list[Raw]()
    for item in _elements(raw):
        with suppress(msgspec.ValidationError):
            decode(item)
            kept.append(item)
            continue
        for one in _without(item, kind, ignores_unknown=ignores_unknown):
            kept.append(Raw(msgspec.json.encode(one)))
            try:
                decode(kept[-1])
            except msgspec.ValidationError:
                return kept
    return kept


def _structs(kinds: list[Any]) -> list[Any]:
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


def _of_object(given: dict[str, Raw], structs: list[Any], *, ignores_unknown: bool) -> Iterator[Any]:
    members = {name: value for name, value in given.items() if not is_absent(value)}
    chosen = next((struct for struct in structs if _has_tag(struct, members)), None)
    if chosen:
        yield _of_members(members, chosen, ignores_unknown=ignores_unknown)
    elif not ignores_unknown:
        yield members


def _of_members(members: dict[str, Raw], struct: Any, *, ignores_unknown: bool) -> dict[str, Any]:
    known, config = _known(struct), struct.__struct_config__
    ignores_unknown = ignores_unknown or not config.forbid_unknown_fields
    return {
        name: one
        for name, value in members.items()
        if not ignores_unknown or name in known or name == config.tag_field
        for one in _without(value, known.get(name, Raw), ignores_unknown=ignores_unknown)
    }


@cache
def _known(struct: Any) -> dict[str, Any]:
    """The type of each member that it reads."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


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
