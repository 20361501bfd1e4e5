"""TypeScript, its declarations, and JavaScript modules."""

from aiserver.dtos.language import Language, TypesFile, indent
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "string",
    "int": "number",
    "long": "number",
    "double": "number",
    "bool": "boolean",
    "date": "string",
    "duration": "string",
    "any": "any",
}
JAVASCRIPT = "text/javascript; charset=utf-8"
CLIENT_TYPES = """\
export interface IReturn<T> { createResponse(): T; }
export interface IPost {}
export interface IGet {}"""


def _type(member: DtoMember) -> str:
    name = TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"{name}[]"
    return f"{{ [index: string]: {name}; }}" if member.shape is Shape.MAP else name


def render_typescript(file: TypesFile) -> str:
    blocks = [CLIENT_TYPES] if file.options.adds_client_types is not False else []
    dtos = file.dtos if file.options.adds_client_types is not False else file.own_dtos
    blocks += [_enumeration(row) for row in file.enumerations]
    blocks += [_class(dto) for dto in dtos]
    text = "\n\n".join(blocks)
    if not file.options.exports:
        text = text.replace("\nexport ", "\n").removeprefix("export ")
    if namespace := file.options.global_namespace:
        text = f"export namespace {namespace} {{\n{indent(text)}\n}}"
    return f"{text}\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    {value} = '{value}'," for value in row.values)
    return f"/** {row.doc} */\nexport enum {row.name}\n{{\n{values}\n}}"


def _class(dto: Dto) -> str:
    base = f" extends {dto.base}" if dto.base else ""
    implements, methods = "", ""
    if isinstance(dto, DtoRequest):
        implements = f" implements IReturn<{dto.returns}>, {'IGet' if dto.method == 'GET' else 'IPost'}"
        methods = (
            f"\n    public getTypeName() {{ return '{dto.name}'; }}"
            f"\n    public getMethod() {{ return '{dto.method}'; }}"
            f"\n    public createResponse() {{ return new {dto.returns}(); }}"
        )
    members = "\n".join(
        f"    /** {member.doc} */\n    public {member.name}?: {_type(member)};" for member in dto.members
    )
    call = "super(init); Object.assign(this, init);" if dto.base else "Object.assign(this, init);"
    return (
        f"/** {dto.doc} */\nexport class {dto.name}{base}{implements}\n{{\n{members}\n"
        f"    public constructor(init?: Partial<{dto.name}>) {{ {call} }}{methods}\n}}"
    )


def render_declarations(file: TypesFile) -> str:
    """TypeScript's declarations: interfaces without code."""
    enumerations = [
        f"type {row.name} = {' | '.join(repr(value) for value in row.values)};" for row in file.enumerations
    ]
    return "\n\n".join([*enumerations, *(_interface(dto) for dto in file.dtos)]) + "\n"


def _interface(dto: Dto) -> str:
    base = f" extends {dto.base}" if dto.base else ""
    members = "\n".join(f"    /** {member.doc} */\n    {member.name}?: {_type(member)};" for member in dto.members)
    return f"/** {dto.doc} */\ninterface {dto.name}{base}\n{{\n{members}\n}}"


def render_mjs(file: TypesFile) -> str:
    blocks = [_frozen(row) for row in file.enumerations]
    blocks += [_mjs_class(file, dto) for dto in file.dtos]
    return '"use strict";\n' + "\n\n".join(blocks) + "\n"


def _frozen(row: Enumeration) -> str:
    union = "|".join(f"'{value}'" for value in row.values)
    values = ", ".join(f"{value}: '{value}'" for value in row.values)
    return f"/** {row.doc} @typedef {{{union}}} */\nexport var {row.name} = Object.freeze({{ {values} }})"


def _mjs_class(file: TypesFile, dto: Dto) -> str:
    base = f" extends {dto.base}" if dto.base else ""
    call = "super(init); Object.assign(this, init)" if dto.base else "Object.assign(this, init)"
    parameters = ", ".join(f"{member.name}?: {_type(member)}" for member in file.table.all_members(dto))
    methods = ""
    if isinstance(dto, DtoRequest):
        methods = (
            f"\n    getTypeName() {{ return '{dto.name}' }}\n    getMethod() {{ return '{dto.method}' }}"
            f"\n    createResponse() {{ return new {dto.returns}() }}"
        )
    fields = "\n".join(
        f"    /** @type {{undefined|{_type(member)}}} {member.doc} */\n    {member.name};" for member in dto.members
    )
    return (
        f"/** {dto.doc} */\nexport class {dto.name}{base} {{\n"
        f"    /** @param {{{{ {parameters} }}}} [init] */\n    constructor(init) {{ {call} }}\n{fields}{methods}\n}}"
    )


OPTIONS = ("GlobalNamespace", "AddServiceStackTypes", "ExportAsTypes", "IncludeTypes", "ExcludeTypes")
TYPESCRIPT = Language("typescript", "TypeScript", render_typescript, options=OPTIONS)
DECLARATIONS = Language("typescript.d", "TypeScriptDefinition", render_declarations)
MJS = Language("mjs", "Mjs", render_mjs, content_type=JAVASCRIPT, aliases=("js",))
