"""Python."""

from aiserver.dtos.language import CommentStyle, Language, TypesFile, camel_case, snake_case
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "str",
    "int": "int",
    "long": "int",
    "double": "float",
    "bool": "bool",
    "date": "datetime.datetime",
    "duration": "datetime.timedelta",
    "any": "Json",
}
KEYWORDS = ("in", "is", "from", "class", "global", "lambda", "import")
START = '''\
import datetime
from dataclasses import dataclass, field
from enum import Enum
from typing import Dict, List, Optional

from dataclasses_json import LetterCase, Undefined, config, dataclass_json
from servicestack import IGet, IPost, IReturn, ResponseError, ResponseStatus


class Json:
    """Any JSON value: a text, a number, a list or a dict."""

    def __new__(cls, value=None):
        return value
'''


def render_python(file: TypesFile) -> str:
    """Types are defined before they are used: the client evaluates annotations."""
    blocks = [*(_enumeration(row) for row in file.enumerations), *(_class(dto) for dto in _in_order(file))]
    return START + "\n\n" + "\n\n\n".join(blocks) + "\n"


def _in_order(file: TypesFile) -> list[Dto]:
    """Each type after those that it refers to, except itself."""
    ordered: list[Dto] = []

    def add(dto: Dto) -> None:
        for name in file.table.references(dto):
            reference = file.table.find(name)
            if reference and reference in own and reference not in ordered and reference is not dto:
                add(reference)
        if dto not in ordered:
            ordered.append(dto)

    own = file.own_dtos
    for dto in own:
        add(dto)
    return ordered


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    {value.upper()} = '{value}'" for value in row.values)
    return f'class {row.name}(str, Enum):\n    """{row.doc}"""\n\n{values}'


def _class(dto: Dto) -> str:
    bases = [dto.base] if dto.base else []
    if isinstance(dto, DtoRequest):
        bases += [f"IReturn[{dto.returns}]", "IGet" if dto.method == "GET" else "IPost"]
    suffix = f"({', '.join(bases)})" if bases else ""
    members = "".join(f"\n    {_member(dto, member)}  # {member.doc}" for member in dto.members)
    return (
        "@dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)\n@dataclass\n"
        f'class {dto.name}{suffix}:\n    """{dto.doc}"""\n{members}'
    )


def _member(dto: Dto, member: DtoMember) -> str:
    """A member whose name on the wire is not the camel case of its name states it."""
    name = snake_case(member.name)
    name = f"{name}_" if name in KEYWORDS else name
    type = _type(dto, member)
    if camel_case(name) == member.name:
        return f"{name}: Optional[{type}] = None"
    return f"{name}: Optional[{type}] = field(default=None, metadata=config(field_name='{member.name}'))"


def _type(dto: Dto, member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    name = f"'{name}'" if name == dto.name else name
    if member.shape is Shape.LIST:
        return f"List[{name}]"
    return f"Dict[str, {name}]" if member.shape is Shape.MAP else name


PYTHON = Language(
    "python",
    "Python",
    render_python,
    CommentStyle('""" Options:', '"""', "", "#"),
    options=("IncludeTypes", "ExcludeTypes"),
)
