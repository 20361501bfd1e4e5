"""JSON schemas from callers: OpenAI accepts a root without a type, other vendors reject it.

Anthropic: "tools.0.custom.input_schema.type: Field required"; Bedrock: "inputSchema.json.type must be object".
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.messages import SchemaFormat, ToolDefinition, decode_members
from aiserver.providers.adapters.base.nulls import is_absent


def tool_parameters(chat: Chat, path: str, tool: ToolDefinition) -> Raw | dict[str, Any] | None:
    """The schema of a tool's arguments, with a type; None for a tool without arguments.

    Raises: InvalidRequest, when the schema is not an object.
    """
    parameters = tool.function.parameters
    if is_absent(parameters):
        return None
    try:
        schema = decode_members(parameters)
    except msgspec.DecodeError:
        raise chat.invalid(f"{path}.function.parameters", "must be an object") from None
    return _ensure_type(schema, parameters) if schema else None


def empty_parameters() -> dict[str, Any]:
    return {"type": "object", "properties": {}}


def response_schema(chat: Chat, format: SchemaFormat) -> Raw | dict[str, Any]:
    """The schema of the response, with a type when it has properties. Raises: InvalidRequest."""
    text = format.json_schema.schema
    try:
        schema = decode_members(text)
    except msgspec.DecodeError:
        raise chat.invalid("response_format.json_schema.schema", "must be an object") from None
    return _ensure_type(schema, text) if "properties" in schema else text


def schema_with_description(chat: Chat, format: SchemaFormat) -> Raw | dict[str, Any]:
    """The schema of the response, including the description of `json_schema`."""
    schema, description = response_schema(chat, format), format.json_schema.description
    members: dict[str, Any] = schema if isinstance(schema, dict) else decode_members(schema)
    return {**members, "description": description} if description and "description" not in members else schema


def _ensure_type(schema: dict[str, Raw], original: Raw) -> Raw | dict[str, Any]:
    """The caller's text, when it has a type; a missing type, or a variant of "object", becomes "object"."""
    raw_type = schema.get("type", Raw(b""))
    kind: Any = None if is_absent(raw_type) else msgspec.json.decode(raw_type)
    is_object_variant = kind == [] or kind == "" or "object" in [str(name).lower() for name in _as_list(kind)]
    return {**schema, "type": "object"} if kind is None or (is_object_variant and kind != "object") else original


def _as_list(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]  # pyright: ignore[reportUnknownVariableType]
