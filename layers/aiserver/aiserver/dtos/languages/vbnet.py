"""VB.NET."""

from aiserver.dtos.language import CommentStyle, Language, TypesFile, indent, pascal_case
from aiserver.dtos.languages.csharp import USING, VALUE_TYPES
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "String",
    "int": "Integer",
    "long": "Long",
    "double": "Double",
    "bool": "Boolean",
    "date": "Date",
    "duration": "String",
    "any": "Object",
}
KEYWORDS = ("Error", "Object", "Stop", "Function", "Property", "Operator")
CLIENT_TYPES = """\
Namespace Global.ServiceStack
    Public Interface IReturn(Of T)
    End Interface
    Public Interface IPost
    End Interface
    Public Interface IGet
    End Interface
End Namespace
"""


def render_vbnet(file: TypesFile) -> str:
    adds_client_types = file.options.adds_client_types or False
    dtos = file.dtos if adds_client_types else file.own_dtos
    blocks = [*(_enumeration(row) for row in file.enumerations), *(_class(file, dto) for dto in dtos)]
    imports = "\n".join(f"Imports {name}" for name in USING)
    client_types = f"\n{CLIENT_TYPES}" if adds_client_types else ""
    namespace = file.options.global_namespace or "Global.AiServer"
    body = indent("\n\n".join(blocks))
    return f"{imports}\n{client_types}\nNamespace {namespace}\n{body}\nEnd Namespace\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    {value}" for value in row.values)
    return f"''' <summary>{row.doc}</summary>\nPublic Enum {row.name}\n{values}\nEnd Enum"


def _class(file: TypesFile, dto: Dto) -> str:
    lines = [f"Inherits {dto.base}"] if dto.base else []
    if isinstance(dto, DtoRequest):
        lines.append(f"Implements IReturn(Of {dto.returns}), {'IGet' if dto.method == 'GET' else 'IPost'}")
    body = "\n".join([*lines, *(_member(file, member) for member in dto.members)])
    return (
        f"''' <summary>{_escape(dto.doc)}</summary>\n<DataContract>\nPartial Public Class {dto.name}\n"
        f"{indent(body)}\nEnd Class"
    )


def _member(file: TypesFile, member: DtoMember) -> str:
    name = pascal_case(member.name)
    name = f"[{name}]" if name in KEYWORDS else name
    return (
        f"''' <summary>{_escape(member.doc)}</summary>\n"
        f'<DataMember(Name:="{member.name}", EmitDefaultValue:=False)>\n'
        f"Public Overridable Property {name} As {_type(file, member)}"
    )


def _type(file: TypesFile, member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"List(Of {name})"
    if member.shape is Shape.MAP:
        return f"Dictionary(Of String, {name})"
    is_value = member.element in VALUE_TYPES or member.element in file.table.enumeration_names
    return f"{name}?" if is_value and not member.is_required else name


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


VBNET = Language("vbnet", "VbNet", render_vbnet, CommentStyle("Options:", "", "'", "''"))
