"""Swift."""

from aiserver.dtos.language import CommentStyle, Language, TypesFile, indent
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape

TYPES = {
    "string": "String",
    "int": "Int",
    "long": "Int",
    "double": "Double",
    "bool": "Bool",
    "date": "Date",
    "duration": "String",
    "any": "JsonValue",
}
KEYWORDS = ("default", "in", "is", "self", "operator", "extension", "class", "func", "repeat")
# `content` of a message is a text or a list of parts: two members in Swift, so that a text can be assigned.
TEXT_OR_PARTS = ("OpenAiMessage", "content")
JSON_VALUE = """\
/// Any JSON value.
public indirect enum JsonValue : Codable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    case null, bool(Bool), int(Int), double(Double), string(String), array([JsonValue]), object([String:JsonValue])
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int) { self = .int(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(arrayLiteral elements: JsonValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JsonValue)...) {
        self = .object(Dictionary(elements, uniquingKeysWith: { $1 }))
    }
    public init(from decoder: Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() { self = .null }
        else if let value = try? container.decode(Bool.self) { self = .bool(value) }
        else if let value = try? container.decode(Int.self) { self = .int(value) }
        else if let value = try? container.decode(Double.self) { self = .double(value) }
        else if let value = try? container.decode(String.self) { self = .string(value) }
        else if let value = try? container.decode([JsonValue].self) { self = .array(value) }
        else { self = .object(try container.decode([String:JsonValue].self)) }
    }
    public func encode(to encoder: Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .int(let value): try container.encode(value)
        case .double(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}"""


def render_swift(file: TypesFile) -> str:
    blocks = [JSON_VALUE, *(_enumeration(row) for row in file.enumerations), *(_class(dto) for dto in file.own_dtos)]
    return "import Foundation\nimport ServiceStack\n\n" + "\n\n".join(blocks) + "\n"


def _enumeration(row: Enumeration) -> str:
    values = "\n".join(f"    case {value}" for value in row.values)
    return f"/// {row.doc}\npublic enum {row.name} : String, Codable\n{{\n{values}\n}}"


def _class(dto: Dto) -> str:
    bases = [dto.base] if dto.base else []
    alias = ""
    if isinstance(dto, DtoRequest):
        bases += ["IReturn", "IGet" if dto.method == "GET" else "IPost"]
        alias = f"    public typealias Return = {dto.returns}\n"
    bases += [] if dto.base else ["Codable"]
    fields = "".join(
        f"    /// {member.doc}\n    public var {_name(member)}:{_type(dto, member)}?\n" for member in dto.members
    )
    has_parts = any(_is_text_or_parts(dto, member) for member in dto.members)
    if has_parts:
        fields += "    /// The parts of the content, instead of a text\n    public var contentParts:[JsonValue]?\n"
    init = "required public init(){ super.init() }" if dto.base else "required public init(){}"
    init = "required public override init(){ super.init() }" if dto.base else init
    code = indent(_coding(dto)) + "\n" if dto.base or has_parts else ""
    return f"/// {dto.doc}\npublic class {dto.name} : {', '.join(bases)}\n{{\n{alias}{fields}    {init}\n{code}}}"


def _coding(dto: Dto) -> str:
    """What is not synthesized: the members of a subclass, and a content of two types."""
    keys = ", ".join(_name(member) for member in dto.members)
    decode = [
        f"{_name(m)} = try container.decodeIfPresent({_type(dto, m)}.self, forKey: .{_name(m)})" for m in dto.members
    ]
    encode = [f"try container.encodeIfPresent({_name(m)}, forKey: .{_name(m)})" for m in dto.members]
    for index, member in enumerate(dto.members):
        if _is_text_or_parts(dto, member):
            decode[index] = (
                "content = try? container.decodeIfPresent(String.self, forKey: .content)\n"
                "contentParts = try? container.decodeIfPresent([JsonValue].self, forKey: .content)"
            )
            encode[index] = (
                "if let parts = contentParts { try container.encode(parts, forKey: .content) }\n"
                "else { try container.encodeIfPresent(content, forKey: .content) }"
            )
    first = ["try super.init(from: decoder)"] if dto.base else []
    start = ["let container = try decoder.container(keyedBy: CodingKeys.self)"]
    override = "override " if dto.base else ""
    encode_first = ["try super.encode(to: encoder)"] if dto.base else []
    lines = [
        f"private enum CodingKeys : String, CodingKey {{ case {keys} }}",
        "required public init(from decoder: Decoder) throws {",
        indent("\n".join([*first, *start, *decode])),
        "}",
        f"public {override}func encode(to encoder: Encoder) throws {{",
        indent("\n".join([*encode_first, "var container = encoder.container(keyedBy: CodingKeys.self)", *encode])),
        "}",
    ]
    return "\n".join(lines)


def _is_text_or_parts(dto: Dto, member: DtoMember) -> bool:
    return (dto.name, member.name) == TEXT_OR_PARTS


def _name(member: DtoMember) -> str:
    return f"`{member.name}`" if member.name in KEYWORDS else member.name


def _type(dto: Dto, member: DtoMember) -> str:
    name = "String" if _is_text_or_parts(dto, member) else TYPES.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return f"[{name}]"
    return f"[String:{name}]" if member.shape is Shape.MAP else name


SWIFT = Language(
    "swift",
    "Swift",
    render_swift,
    CommentStyle("/* Options:\nSwiftVersion: 6.0"),
    options=("AddServiceStackTypes", "IncludeTypes", "ExcludeTypes"),
    aliases=("swift4",),
)
