"""How the API is described: types with their members, enumerations, and requests with their routes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

# A date is an ISO 8601 text in UTC, a duration an XSD text such as PT1.5S; `any` is any JSON value.
SCALARS = ("string", "int", "long", "double", "bool", "date", "duration", "any")
_TYPE = re.compile(r"(\{?)(\w+)(\[\])?\}?")


class Shape(StrEnum):
    """Whether a member is a value, a list of them, or a map from names to them."""

    VALUE = "value"
    LIST = "list"
    MAP = "map"


@dataclass(frozen=True)
class DtoMember:
    """A member of a type: its name on the wire, and its type as `string`, `Choice[]` (a list) or `{int}` (a map)."""

    name: str
    type: str
    doc: str
    is_required: bool = False

    @cached_property
    def element(self) -> str:
        """The scalar, or the name of the type or enumeration, of the value or of its elements."""
        return self._match[2]

    @cached_property
    def shape(self) -> Shape:
        if self._match[1]:
            return Shape.MAP
        return Shape.LIST if self._match[3] else Shape.VALUE

    @property
    def is_scalar(self) -> bool:
        return self.element in SCALARS

    @cached_property
    def _match(self) -> re.Match[str]:
        match = _TYPE.fullmatch(self.type)
        assert match, self.type
        return match


def required(name: str, type: str, doc: str) -> DtoMember:
    """A member that a request must have, or a response always has."""
    return DtoMember(name, type, doc, is_required=True)


@dataclass(frozen=True)
class Enumeration:
    """A type with named values, which are the names on the wire."""

    name: str
    doc: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Dto:
    """An object. `base` is the name of the type whose members it has as well."""

    name: str
    doc: str
    members: tuple[DtoMember, ...] = ()
    base: str | None = None


@dataclass(frozen=True)
class DtoRequest(Dto):
    """A request: `/api/{name}`, and `routes` that mean the same. `returns` is the type of its response.

    `files` are its files, by the name of their part in a form. `tag` groups requests.
    """

    returns: str = ""
    method: str = "POST"
    routes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    tag: str = ""


@dataclass(frozen=True)
class Route:
    """A route that is not AI Server's `/api/{name}`.

    `status` is that of a success, `request` and `response` are names of types, or empty where `doc` says what it is.
    """

    method: str
    path: str
    doc: str
    status: str = "200"
    request: str = ""
    response: str = ""


@dataclass(frozen=True)
class ErrorRow:
    """An error: its HTTP status, AI Server's name of it, and OpenAI's type and codes."""

    status: str
    error_code: str
    type: str
    codes: tuple[str, ...]
    doc: str


@dataclass(frozen=True)
class EventRow:
    """A message that the gateway sends by itself: an event of a stream or a bus, or a callback.

    `type` is the name of the type of its JSON, or empty where `doc` says what it is.
    """

    channel: str
    name: str
    doc: str
    type: str = ""


@dataclass(frozen=True)
class Table:
    """All types of the API, in the order in which they are rendered."""

    enumerations: tuple[Enumeration, ...]
    dtos: tuple[Dto, ...]

    @cached_property
    def _by_name(self) -> dict[str, Dto]:
        return {dto.name: dto for dto in self.dtos}

    @cached_property
    def enumeration_names(self) -> frozenset[str]:
        return frozenset(row.name for row in self.enumerations)

    @property
    def requests(self) -> list[DtoRequest]:
        return [dto for dto in self.dtos if isinstance(dto, DtoRequest)]

    def find(self, name: str) -> Dto | None:
        return self._by_name.get(name)

    def all_members(self, dto: Dto) -> list[DtoMember]:
        """The members of a type after those of its base."""
        base = self.find(dto.base) if dto.base else None
        return [*(self.all_members(base) if base else ()), *dto.members]

    def references(self, dto: Dto) -> Iterable[str]:
        """The names of the types and enumerations that a type refers to directly."""
        yield from (member.element for member in dto.members if not member.is_scalar)
        if dto.base:
            yield dto.base
        if isinstance(dto, DtoRequest):
            yield dto.returns
