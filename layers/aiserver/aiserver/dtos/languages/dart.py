"""Dart."""

from aiserver.dtos.language import Language, TypesFile, indent
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "String",
    "int": "int",
    "long": "int",
    "double": "double",
    "bool": "bool",
    "date": "DateTime",
    "duration": "String",
    "any": "dynamic",
}
KEYWORDS = ("in", "is", "class", "default", "enum", "operator")
START = "// ignore_for_file: non_constant_identifier_names\nimport 'package:servicestack/servicestack.dart';\n"


def render_dart(file: TypesFile) -> str:
    own = file.own_dtos
    blocks = [*(_enumeration(row) for row in file.enumerations), *(_class(file, dto) for dto in own)]
    return START + "\n" + "\n\n".join([*blocks, _context(file, own)]) + "\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    {value}," for value in row.values)
    return f"/// {row.doc}\nenum {row.name}\n{{\n{values}\n}}"


def _class(file: TypesFile, dto: Dto) -> str:
    base = f" extends {dto.base}" if dto.base else ""
    interfaces, methods = ["IConvertible"], ""
    if isinstance(dto, DtoRequest):
        interfaces = [f"IReturn<{dto.returns}>", "IGet" if dto.method == "GET" else "IPost", *interfaces]
        methods = f'\n    createResponse() => {dto.returns}();\n    getResponseTypeName() => "{dto.returns}";'
    fields = "\n".join(f"    /// {member.doc}\n    {_type(member)} {_name(member)};" for member in dto.members)
    return (
        f"/// {dto.doc}\nclass {dto.name}{base} implements {', '.join(interfaces)}\n{{\n{fields}\n"
        f"{indent(_constructor(file, dto))}\n{indent(_from_map(dto))}\n{indent(_to_json(file, dto))}{methods}\n"
        f'    getTypeName() => "{dto.name}";\n    TypeContext? context = _ctx;\n}}'
    )


def _constructor(file: TypesFile, dto: Dto) -> str:
    base = file.table.find(dto.base) if dto.base else None
    inherited = file.table.all_members(base) if base else []
    parameters = [f"this.{_name(m)}" for m in dto.members]
    parameters += [f"{_type(m)} {_name(m)}" for m in inherited]
    call = f" : super({', '.join(f'{_name(m)}: {_name(m)}' for m in inherited)})" if inherited else ""
    names = f"{{{', '.join(parameters)}}}" if parameters else ""
    return f"{dto.name}({names}){call};\n{dto.name}.fromJson(Map<String, dynamic> json) {{ fromMap(json); }}"


def _from_map(dto: Dto) -> str:
    lines = ["super.fromMap(json);"] if dto.base else []
    lines += [f"{_name(member)} = {_read(member)};" for member in dto.members]
    body = indent("\n".join([*lines, "return this;"]))
    return f"fromMap(Map<String, dynamic> json) {{\n{body}\n}}"


def _read(member: DtoMember) -> str:
    value = f"json['{member.name}']"
    if member.shape is Shape.VALUE and member.element in ("string", "int", "long", "bool", "duration", "any"):
        return value
    if member.shape is Shape.VALUE and member.element == "double":
        return f"JsonConverters.toDouble({value})"
    return f"JsonConverters.fromJson({value},'{_type(member).rstrip('?')}',context!)"


def _to_json(file: TypesFile, dto: Dto) -> str:
    """Members that are not set are left out: the client sends what stands here."""
    lines = ["...super.toJson(),"] if dto.base else []
    lines += [f"if ({_name(member)} != null) '{member.name}': {_write(member)}," for member in dto.members]
    return "Map<String, dynamic> toJson() => {\n" + indent("\n".join(lines)) + "\n};"


def _write(member: DtoMember) -> str:
    is_plain = member.element in ("string", "int", "long", "double", "bool", "duration", "any")
    return (
        _name(member) if is_plain else f"JsonConverters.toJson({_name(member)},'{_type(member).rstrip('?')}',context!)"
    )


def _context(file: TypesFile, own: list[Dto]) -> str:
    entries = [f"    '{row.name}': TypeInfo(TypeOf.Enum, enumValues:{row.name}.values)," for row in file.enumerations]
    entries += [f"    '{dto.name}': TypeInfo(TypeOf.Class, create:() => {dto.name}())," for dto in own]
    lists = sorted({m.element for dto in own for m in dto.members if m.shape is Shape.LIST and not m.is_scalar})
    entries += [f"    'List<{name}>': TypeInfo(TypeOf.Class, create:() => <{name}>[])," for name in lists]
    return (
        "TypeContext _ctx = TypeContext(library: 'aiserver', types: <String, TypeInfo> {\n"
        + "\n".join(entries)
        + "\n});"
    )


def _name(member: DtoMember) -> str:
    return f"{member.name}_" if member.name in KEYWORDS else member.name


def _type(member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"List<{name}>?"
    if member.shape is Shape.MAP:
        return f"Map<String,{name}>?"
    return name if name == "dynamic" else f"{name}?"


DART = Language("dart", "Dart", render_dart, options=("AddServiceStackTypes", "IncludeTypes", "ExcludeTypes"))
