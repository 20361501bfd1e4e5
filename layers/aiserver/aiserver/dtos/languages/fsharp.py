"""F#."""

from aiserver.dtos.language import CommentStyle, Language, TypesFile, indent, pascal_case
from aiserver.dtos.languages.csharp import USING, VALUE_TYPES
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "String",
    "int": "Int32",
    "long": "Int64",
    "double": "Double",
    "bool": "Boolean",
    "date": "DateTime",
    "duration": "String",
    "any": "Object",
}
CLIENT_TYPES = """\
    [<AllowNullLiteral>]
    type IReturn<'T> = interface end
    [<AllowNullLiteral>]
    type IPost = interface end
    [<AllowNullLiteral>]
    type IGet = interface end
"""


def render_fsharp(file: TypesFile) -> str:
    """Types may refer to each other in any order: they are one recursive group."""
    adds_client_types = file.options.adds_client_types or False
    dtos = file.dtos if adds_client_types else file.own_dtos
    opens = "\n".join(f"open {name}" for name in USING if not (adds_client_types and name == "ServiceStack"))
    namespace = file.options.global_namespace or "AiServer"
    client_types = f"\n{CLIENT_TYPES}" if adds_client_types else ""
    enumerations = "\n\n".join(indent(_enumeration(row)) for row in file.enumerations)
    classes = "\n\n".join(
        indent(_class(file, dto, "type" if number == 0 else "and")) for number, dto in enumerate(dtos)
    )
    return f"namespace {namespace}\n\n{opens}\n{client_types}\n{enumerations}\n\n{classes}\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    | {value} = {number}" for number, value in enumerate(row.values))
    return f"/// {row.doc}\ntype {row.name} =\n{values}"


def _class(file: TypesFile, dto: Dto, keyword: str) -> str:
    base = f"\n    inherit {dto.base}()" if dto.base else ""
    members = "\n".join(indent(_member(file, member)) for member in dto.members)
    interfaces = ""
    if isinstance(dto, DtoRequest):
        interfaces = (
            f"\n    interface IReturn<{dto.returns}>\n    interface {'IGet' if dto.method == 'GET' else 'IPost'}"
        )
    body = members or ("" if dto.base or interfaces else "    class end")
    return f"/// {dto.doc}\n{keyword} [<DataContract; AllowNullLiteral>] {dto.name}() ={base}\n{body}{interfaces}"


def _member(file: TypesFile, member: DtoMember) -> str:
    type = _type(file, member)
    return (
        f'/// {member.doc}\n[<DataMember(Name="{member.name}", EmitDefaultValue=false)>]\n'
        f"member val {pascal_case(member.name)}:{type} = {_default(file, member, type)} with get,set"
    )


def _is_value(file: TypesFile, member: DtoMember) -> bool:
    is_value = member.element in VALUE_TYPES or member.element in file.table.enumeration_names
    return is_value and member.shape is Shape.VALUE


def _type(file: TypesFile, member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"ResizeArray<{name}>"
    if member.shape is Shape.MAP:
        return f"Dictionary<String, {name}>"
    return f"Nullable<{name}>" if _is_value(file, member) and not member.is_required else name


def _default(file: TypesFile, member: DtoMember, type: str) -> str:
    if not _is_value(file, member):
        return "null"
    if not member.is_required:
        return f"new {type}()"
    if member.element in file.table.enumeration_names:
        enumeration = next(row for row in file.table.enumerations if row.name == member.element)
        return f"{member.element}.{enumeration.values[0]}"
    return f"new {type}()"


# Tools that know no end of a comment in F# stop at the line `*/`.
FSHARP = Language("fsharp", "FSharp", render_fsharp, CommentStyle("(* Options:", "*/\n*)"))
