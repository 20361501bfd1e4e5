"""PHP."""

from aiserver.dtos.language import ERROR_TYPES, Language, TypesFile, indent
from aiserver.dtos.languages.typescript import JAVASCRIPT
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

# The client reads dates only as /Date(ms)/, so that dates are texts.
TYPES = {
    "string": "string",
    "int": "int",
    "long": "int",
    "double": "float",
    "bool": "bool",
    "date": "string",
    "duration": "string",
    "any": "mixed",
}
USES = ("DateTime", "Exception", "DateInterval", "JsonSerializable")
CLIENT_USES = ("IReturn", "IReturnVoid", "IGet", "IPost", "ResponseStatus", "ResponseError", "JsonConverters")


def render_php(file: TypesFile) -> str:
    uses = "\n".join(f"use {name};" for name in USES)
    client_uses = f"use ServiceStack\\{{{','.join(CLIENT_USES)}}};"
    blocks = [*(_enumeration(row) for row in file.enumerations), *(_class(file, dto) for dto in file.own_dtos)]
    return f"{uses}\n{client_uses}\n\n" + "\n\n".join(blocks) + "\n"


def _before(file: TypesFile) -> str:
    return f"<?php namespace {(file.options.global_namespace or 'dtos').replace('.', chr(92))};\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    case {value} = '{value}';" for value in row.values)
    return f"/** {row.doc} */\nenum {row.name} : string\n{{\n{values}\n}}"


def _class(file: TypesFile, dto: Dto) -> str:
    base = f" extends {dto.base}" if dto.base else ""
    interfaces, methods = "", ""
    if isinstance(dto, DtoRequest):
        interfaces = f"IReturn, {'IGet' if dto.method == 'GET' else 'IPost'}, "
        methods = (
            f"\n    public function getTypeName(): string {{ return '{dto.name}'; }}"
            f"\n    public function getMethod(): string {{ return '{dto.method}'; }}"
            f"\n    public function createResponse(): mixed {{ return new {dto.returns}(); }}"
        )
    return (
        f"/** {dto.doc} */\nclass {dto.name}{base} implements {interfaces}JsonSerializable\n{{\n"
        f"{indent(_constructor(file, dto))}\n{indent(_from_map(file, dto))}\n{indent(_to_json(dto))}{methods}\n}}"
    )


def _constructor(file: TypesFile, dto: Dto) -> str:
    base = file.table.find(dto.base) if dto.base else None
    inherited = file.table.all_members(base) if base else []
    own = [f"/** {member.doc} */ public {_parameter(member)}" for member in dto.members]
    parameters = ",\n    ".join([*own, *(_parameter(member) for member in inherited)])
    call = f" parent::__construct({', '.join(f'{m.name}: ${m.name}' for m in inherited)}); " if base else ""
    return f"public function __construct(\n    {parameters}) {{{call}}}"


def _parameter(member: DtoMember) -> str:
    is_array = member.shape is not Shape.VALUE
    type = "array" if is_array else TYPES.get(member.element, member.element)
    return f"{'' if type == 'mixed' else '?'}{type} ${member.name}=null"


def _from_map(file: TypesFile, dto: Dto) -> str:
    call = "parent::fromMap($o); " if dto.base else ""
    lines = [f"if (isset($o['{m.name}'])) $this->{m.name} = {_read(file, m)};" for m in dto.members]
    body = indent("\n".join(filter(None, [call.strip(), *lines])))
    read = f"public static function read($o): {dto.name} {{ $to = new {dto.name}(); $to->fromMap($o); return $to; }}"
    return f"public function fromMap($o): void {{\n{body}\n}}\n{read}"


def _read(file: TypesFile, member: DtoMember) -> str:
    value = f"$o['{member.name}']"
    if member.element in file.table.enumeration_names:
        return f"{member.element}::tryFrom({value})"
    if member.is_scalar:
        return value
    if member.element in ERROR_TYPES:  # the client's
        return f"JsonConverters::from('{member.element}', {value})"
    if member.shape is Shape.LIST:
        return f"array_map(fn($item) => {member.element}::read($item), {value})"
    return f"{member.element}::read({value})"


def _to_json(dto: Dto) -> str:
    start = "$o = (array) parent::jsonSerialize();" if dto.base else "$o = [];"
    lines = [f"if (isset($this->{m.name})) $o['{m.name}'] = $this->{m.name};" for m in dto.members]
    end = "return empty($o) ? new \\stdClass() : $o;"
    return "public function jsonSerialize(): mixed {\n" + indent("\n".join([start, *lines, end])) + "\n}"


PHP = Language(
    "php",
    "Php",
    render_php,
    options=("GlobalNamespace", "IncludeTypes", "ExcludeTypes"),
    before=_before,
    content_type=JAVASCRIPT,
)
