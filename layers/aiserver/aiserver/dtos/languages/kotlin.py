"""Kotlin."""

from aiserver.dtos.language import Language, TypesFile, camel_case, indent
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "String",
    "int": "Int",
    "long": "Long",
    "double": "Double",
    "bool": "Boolean",
    "date": "Date",
    "duration": "String",
    "any": "Any",
}
KEYWORDS = ("object", "in", "is", "fun", "class", "package", "return", "typealias", "interface", "val", "var", "when")
IMPORTS = (
    "java.math.*",
    "java.util.*",
    "java.io.InputStream",
    "net.servicestack.client.*",
    "com.google.gson.annotations.*",
)


def render_kotlin(file: TypesFile) -> str:
    package = f"package {file.options.package}\n\n" if file.options.package else ""
    imports = "\n".join(f"import {name}" for name in IMPORTS)
    dtos = file.dtos if file.options.adds_client_types else file.own_dtos
    blocks = [*(_enumeration(row) for row in file.enumerations), *map(_class, dtos)]
    return f"{package}{imports}\n\n" + "\n\n".join(blocks) + "\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    {value}," for value in row.values)
    return f"/** {row.doc} */\nenum class {row.name}\n{{\n{values}\n}}"


def _class(dto: Dto) -> str:
    bases = [f"{dto.base}()"] if dto.base else []
    response = ""
    if isinstance(dto, DtoRequest):
        bases += [f"IReturn<{dto.returns}>", "IGet" if dto.method == "GET" else "IPost"]
        response = (
            f"\n    companion object {{ private val responseType = {dto.returns}::class.java }}"
            f"\n    override fun getResponseType(): Any? = {dto.name}.responseType"
        )
    suffix = f" : {', '.join(bases)}" if bases else ""
    members = "\n".join(indent(_member(member)) for member in dto.members)
    return f"/** {dto.doc} */\n@DataContract\nopen class {dto.name}{suffix}\n{{\n{members}{response}\n}}"


def _member(member: DtoMember) -> str:
    name = camel_case(member.name)
    return (
        f'/** {member.doc} */\n@DataMember(Name="{member.name}") @SerializedName("{member.name}")\n'
        f"open var {f'`{name}`' if name in KEYWORDS else name}:{_type(member)}? = null"
    )


def _type(member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"ArrayList<{name}>"
    return f"HashMap<String, {name}>" if member.shape is Shape.MAP else name


KOTLIN = Language(
    "kotlin", "Kotlin", render_kotlin, options=("Package", "AddServiceStackTypes", "IncludeTypes", "ExcludeTypes")
)
