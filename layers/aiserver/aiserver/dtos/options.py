"""The options of `/types/{language}`, from its query string; unknown ones are ignored, as clients' tools send them."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aiserver.dtos.schema import Dto, DtoRequest, Table
from aiserver.errors import NotFound
from aiserver.wire.validation import invalid_field

_NAMESPACE = re.compile(r"[A-Za-z0-9_.]+")
_TAGS = re.compile(r"\{([^}]*)\}")
SERVICES, TYPES = "services", "types"  # in ExcludeTypes: all requests, all other types


@dataclass(frozen=True)
class TypeOptions:
    """The options by their names, as they were given; empty where absent.

    `package` and `global_namespace` are names in the language. `adds_client_types`: the file brings the types that a
    ServiceStack client brings otherwise; None is the default of the language.
    """

    include: str = ""
    exclude: str = ""
    package: str = ""
    global_namespace: str = ""
    adds_client_types: bool | None = None
    exports: bool = True


def parse_type_options(query: Mapping[str, str]) -> TypeOptions:
    """The options of a query string, whose names may have any case. Raises: InvalidRequest."""
    given = {name.lower(): value for name, value in query.items()}
    for name in ("Package", "GlobalNamespace"):
        if (value := given.get(name.lower())) and not _NAMESPACE.fullmatch(value):
            raise invalid_field("InvalidName", name, f"'{name}' may contain only letters, digits, '_' and '.'")
    adds_client_types = given.get("addservicestacktypes", "").lower()
    return TypeOptions(
        include=given.get("includetypes", ""),
        exclude=given.get("excludetypes", ""),
        package=given.get("package", ""),
        global_namespace=given.get("globalnamespace", ""),
        adds_client_types=adds_client_types == "true" if adds_client_types in ("true", "false") else None,
        exports=given.get("exportastypes", "").lower() != "false",
    )


def select_types(table: Table, options: TypeOptions) -> list[Dto]:
    """The types to render, in the order of the table. Raises: NotFound, for an unknown name.

    `IncludeTypes` contains names (`A` or `A.*`), or tags (`{AI}`), each with all types that they refer to.
    """
    names = {dto.name for dto in table.dtos}
    if options.include:
        names = set[str]()
        for name in _requested_names(table, options.include):
            _add_references(table, name, names)
    excluded = set(filter(None, re.split(r"[\s,]+", options.exclude)))
    excluded_kinds = {kind for kind in excluded if kind.lower() in (SERVICES, TYPES)}
    for name in excluded - excluded_kinds:
        _check_name(table, name)
    return [dto for dto in table.dtos if dto.name in names - excluded and not _is_excluded(dto, excluded_kinds)]


def _is_excluded(dto: Dto, kinds: set[str]) -> bool:
    return any(isinstance(dto, DtoRequest) == (kind.lower() == SERVICES) for kind in kinds)


def _requested_names(table: Table, include: str) -> Iterator[str]:
    for tags in _TAGS.findall(include):
        for tag in filter(None, re.split(r"[\s,]+", tags)):
            yield from _names_with_tag(table, tag)
    for name in filter(None, re.split(r"[\s,]+", _TAGS.sub("", include))):
        yield _check_name(table, name.removesuffix(".*"))


def _names_with_tag(table: Table, tag: str) -> list[str]:
    tags = sorted({request.tag for request in table.requests})
    if tag not in tags:
        raise NotFound(f"There is no tag {tag}: use {', '.join(tags)}")
    return [request.name for request in table.requests if request.tag == tag]


def _check_name(table: Table, name: str) -> str:
    known = [*(dto.name for dto in table.dtos), *table.enumeration_names]
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, cutoff=0.5))
        raise NotFound(f"There is no type {name}" + (f"; did you mean {near}?" if near else ""))
    return name


def _add_references(table: Table, name: str, names: set[str]) -> None:
    if name in names:
        return
    names.add(name)
    if dto := table.find(name):
        for reference in table.references(dto):
            _add_references(table, reference, names)
