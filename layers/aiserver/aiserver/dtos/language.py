"""What a language needs: the header of its file, its names, and a function that renders the types.

The header is read by the tools that update a file: they send its options to the URL in it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiserver.dtos.options import TypeOptions
from aiserver.dtos.schema import Dto, DtoRequest, Enumeration, Table

DATE = "2026-12-01 00:00:00"  # of the table's last change: a file that is updated without one stays the same
VERSION = "1.0"
TIP = 'To override a DTO option, remove "{}" prefix before updating'
ERROR_TYPES = ("ResponseStatus", "ResponseError")


@dataclass(frozen=True)
class TypesFile:
    """What is rendered: the selected types and enumerations, and the options."""

    table: Table
    dtos: Sequence[Dto]
    enumerations: Sequence[Enumeration]
    options: TypeOptions

    def has(self, name: str) -> bool:
        return any(dto.name == name for dto in self.dtos)

    @property
    def own_dtos(self) -> list[Dto]:
        """The types without those that a ServiceStack client brings."""
        return [dto for dto in self.dtos if dto.name not in ERROR_TYPES]

    @property
    def requests(self) -> list[DtoRequest]:
        return [dto for dto in self.dtos if isinstance(dto, DtoRequest)]


@dataclass(frozen=True)
class CommentStyle:
    """The comment with the options: its start and end, and what precedes each line, and each option left out."""

    start: str = "/* Options:"
    end: str = "*/"
    line: str = ""
    option: str = "//"


@dataclass(frozen=True)
class Language:
    """One language. `name` is its path under /types, `label` its key in the list of /types.

    `options` are those in the header; `before` is text that must precede it.
    """

    name: str
    label: str
    render: Callable[[TypesFile], str]
    comment: CommentStyle = CommentStyle()
    options: tuple[str, ...] = ("GlobalNamespace", "AddServiceStackTypes", "IncludeTypes", "ExcludeTypes")
    before: Callable[[TypesFile], str] = lambda file: ""
    content_type: str = "text/plain; charset=utf-8"
    aliases: tuple[str, ...] = ()


def render_file(language: Language, table: Table, dtos: Sequence[Dto], options: TypeOptions, base_url: str) -> str:
    """The file of a language with these types. `base_url` is the deployment's own."""
    names = {name for dto in dtos for name in table.references(dto)}
    enumerations = [row for row in table.enumerations if row.name in names]
    file = TypesFile(table, dtos, enumerations, options)
    return f"{language.before(file)}{_header(language, options, base_url)}\n{language.render(file)}"


def _header(language: Language, options: TypeOptions, base_url: str) -> str:
    comment = language.comment
    given = {
        "Package": options.package,
        "GlobalNamespace": options.global_namespace,
        "AddServiceStackTypes": "" if options.adds_client_types is None else str(options.adds_client_types),
        "ExportAsTypes": "" if options.exports else "False",
        "IncludeTypes": options.include,
        "ExcludeTypes": options.exclude,
    }
    lines = [
        f"Date: {DATE}",
        f"Version: {VERSION}",
        f"Tip: {TIP.format(comment.option)}",
        f"BaseUrl: {base_url}",
        "",
        *(f"{'' if given[name] else comment.option}{name}: {given[name]}" for name in language.options),
    ]
    prefixed = [f"{comment.line}{line}" for line in lines]  # the first empty line ends VB.NET's header
    return "\n".join([f"{comment.line}{comment.start}", *prefixed, *([comment.end] if comment.end else []), ""])


def pascal_case(name: str) -> str:
    """`MaxTokens` of `max_tokens`, `RefId` of `refId`."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def camel_case(name: str) -> str:
    """`maxTokens` of `max_tokens`."""
    pascal = pascal_case(name)
    return pascal[:1].lower() + pascal[1:]


def snake_case(name: str) -> str:
    """`ref_id` of `refId`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def indent(text: str, width: int = 4) -> str:
    return "\n".join(f"{' ' * width}{line}" if line else "" for line in text.split("\n"))
