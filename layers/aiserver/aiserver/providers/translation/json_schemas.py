"""Schemas of a caller's, which OpenAI takes without a type at the root and others refuse.

Anthropic: "tools.0.custom.input_schema.type: Field required"; Bedrock: "inputSchema.json.type must be object".
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import SchemaFormat, ToolDefinition, decode_members
from aiserver.providers.translation.nulls import is_absent


def tool_parameters(chat: Chat, path: str, tool: ToolDefinition) -> Raw | dict[str, Any] | None:
    """The schema of what a tool is called with, with a type; None where it is called with nothing.

    Raises: InvalidRequest, where it is no object.
    """
    given = tool.function.parameters
    if is_absent(given):
        return None
    try:
        schema = decode_members(given)
    except msgspec.DecodeError:
        raise chat.unsupported(f"{path}.function.parameters", "it must be an object") from None
    return _ensure_type(schema, given) if schema else None


def empty_parameters() -> dict[str, Any]:
    return {"type": "object", "properties": {}}


def response_schema(chat: Chat, format: SchemaFormat) -> Raw | dict[str, Any]:
    """The schema of an answer, with a type where it has properties. Raises: InvalidRequest."""
    given = format.json_schema.schema
    try:
        schema = decode_members(given)
    except msgspec.DecodeError:
        raise chat.unsupported("response_format.json_schema.schema", "it must be an object") from None
    return _ensure_type(schema, given) if "properties" in schema else given


def schema_with_description(chat: Chat, format: SchemaFormat) -> Raw | dict[str, Any]:
    """The same with the description that stands beside it."""
    given, description = response_schema(chat, format), format.json_schema.description
    whole: dict[str, Any] = given if isinstance(given, dict) else decode_members(given)
    return {**whole, "description": description} if description and "description" not in whole else given


def _ensure_type(schema: dict[str, Raw], given: Raw) -> Raw | dict[str, Any]:
    """The caller's own text where it has a type; another spelling of an object's is set right."""
    given_type = schema.get("type", Raw(b""))
    kind: Any = None if is_absent(given_type) else msgspec.json.decode(given_type)
    is_spelled = kind == [] or kind == "" or "object" in [str(one).lower() for one in _as_list(kind)]
    return {**schema, "type": "object"} if kind is None or (is_spelled and kind != "object") else given


def _as_list(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]  # pyright: ignore[reportUnknownVariableType]
