"""Java."""

from aiserver.dtos.language import Language, TypesFile, camel_case, indent, pascal_case
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
KEYWORDS = ("default", "function", "object", "class", "package", "private", "public", "import")
IMPORTS = (
    "java.math.*",
    "java.util.*",
    "java.io.InputStream",
    "net.servicestack.client.*",
    "com.google.gson.annotations.*",
)


def render_java(file: TypesFile) -> str:
    """The types within one class, as the client's tools expect."""
    package = f"package {file.options.package};\n" if file.options.package else ""
    imports = "\n".join(f"import {name};" for name in IMPORTS)
    dtos = file.dtos if file.options.adds_client_types else file.own_dtos
    blocks = [*(_enumeration(row) for row in file.enumerations), *(_class(file, dto) for dto in dtos)]
    body = indent("\n\n".join(blocks))
    return f"{package}{imports}\n\npublic class {file.options.global_namespace or 'dtos'}\n{{\n{body}\n}}\n"


def _enumeration(row: Enumeration) -> str:
    values = ",\n".join(f"    {value}" for value in row.values)
    return f"/** {row.doc} */\npublic static enum {row.name}\n{{\n{values};\n}}"


def _class(file: TypesFile, dto: Dto) -> str:
    base = f" extends {dto.base}" if dto.base else ""
    implements, response = "", ""
    if isinstance(dto, DtoRequest):
        implements = f" implements IReturn<{dto.returns}>, {'IGet' if dto.method == 'GET' else 'IPost'}"
        response = (
            f"\n    private static Object responseType = {dto.returns}.class;"
            "\n    public Object getResponseType() { return responseType; }"
        )
    fields = "\n".join(indent(_field(member)) for member in dto.members)
    # A setter returns its own class, so that calls can be chained: those of the base are repeated.
    methods = "\n".join(indent(_methods(dto, member)) for member in file.table.all_members(dto))
    return (
        f"/** {dto.doc} */\n@DataContract\npublic static class {dto.name}{base}{implements}\n"
        f"{{\n{fields}\n{methods}{response}\n}}"
    )


def _field(member: DtoMember) -> str:
    return (
        f'/** {member.doc} */\n@DataMember(Name="{member.name}")\n@SerializedName("{member.name}")\n'
        f"public {_type(member)} {_name(member)} = null;"
    )


def _methods(dto: Dto, member: DtoMember) -> str:
    type, name, suffix = _type(member), _name(member), pascal_case(member.name)
    setter = f"public {dto.name} set{suffix}({type} value) {{ this.{name} = value; return this; }}"
    return setter if member not in dto.members else f"public {type} get{suffix}() {{ return {name}; }}\n{setter}"


def _name(member: DtoMember) -> str:
    name = camel_case(member.name)
    return f"{name}_" if name in KEYWORDS else name


def _type(member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"ArrayList<{name}>"
    return f"HashMap<String, {name}>" if member.shape is Shape.MAP else name


JAVA = Language(
    "java",
    "Java",
    render_java,
    options=("Package", "GlobalNamespace", "AddServiceStackTypes", "IncludeTypes", "ExcludeTypes"),
)
