"""C#."""

from collections.abc import Iterable

from aiserver.dtos.language import Language, TypesFile, indent, pascal_case
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "string",
    "int": "int",
    "long": "long",
    "double": "double",
    "bool": "bool",
    "date": "DateTime",
    "duration": "string",
    "any": "object",
}
VALUE_TYPES = ("int", "long", "double", "bool", "date")
USING = ("System", "System.Collections.Generic", "System.Runtime.Serialization", "ServiceStack")
# What the ServiceStack client brings otherwise.
CLIENT_TYPES = """\
namespace ServiceStack
{
    public interface IReturn<T> { }
    public interface IPost { }
    public interface IGet { }
}
"""


def render_csharp(file: TypesFile) -> str:
    adds_client_types = file.options.adds_client_types or False
    dtos = file.dtos if adds_client_types else file.own_dtos
    blocks = [*(_enumeration(row) for row in file.enumerations), *(_class(file, dto) for dto in dtos)]
    namespace = file.options.global_namespace or "AiServer"
    body = "\n\n".join(blocks)
    using = "\n".join(f"using {name};" for name in USING)
    client_types = f"\n{CLIENT_TYPES}" if adds_client_types else ""
    return f"{using}\n{client_types}\nnamespace {namespace}\n{{\n{indent(body)}\n}}\n"


def _enumeration(row: Enumeration) -> str:
    values = ",\n".join(f"    {value}" for value in row.values)
    return f"/// <summary>{row.doc}</summary>\npublic enum {row.name}\n{{\n{values},\n}}"


def _class(file: TypesFile, dto: Dto) -> str:
    bases = f" : {', '.join(names)}" if (names := list(_bases(dto))) else ""
    members = "\n\n".join(_member(file, member) for member in dto.members)
    return (
        f"/// <summary>{_escape(dto.doc)}</summary>\n[DataContract]\npublic partial class {dto.name}{bases}\n"
        f"{{\n{indent(members)}\n}}"
    )


def _bases(dto: Dto) -> Iterable[str]:
    if dto.base:
        yield dto.base
    if isinstance(dto, DtoRequest):
        yield f"IReturn<{dto.returns}>"
        yield "IGet" if dto.method == "GET" else "IPost"


def _member(file: TypesFile, member: DtoMember) -> str:
    return (
        f"/// <summary>{_escape(member.doc)}</summary>\n"
        f'[DataMember(Name="{member.name}", EmitDefaultValue=false)]\n'
        f"public virtual {_type(file, member)} {pascal_case(member.name)} {{ get; set; }}"
    )


def _type(file: TypesFile, member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"List<{name}>"
    if member.shape is Shape.MAP:
        return f"Dictionary<string, {name}>"
    is_value = member.element in VALUE_TYPES or member.element in file.table.enumeration_names
    return f"{name}?" if is_value and not member.is_required else name


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


CSHARP = Language("csharp", "CSharp", render_csharp)
