"""The parsed parts of a chat request: messages, tools, response formats.

Schemas and tool arguments stay the caller's text. Unknown members of an object are rejected, except in assistant
messages: there they are ignored, since clients send back a provider's response with its vendor-specific members.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Collection
from typing import Any, Literal

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.nulls import is_absent

Members = dict[str, Raw]
ABSENT = Raw(b"")
EMPTY_VALUES = (b"", b"null", b"{}", b"[]")
decode_members = msgspec.json.Decoder(Members).decode


class VendorExtensions(msgspec.Struct, kw_only=True):
    """Members that are sent to one vendor only."""

    anthropic: Raw = ABSENT
    google: Raw = ABSENT
    bedrock: Raw = ABSENT

    def for_vendor(self, member: str) -> dict[str, Raw]:
        """The vendor-specific members of this object."""
        extensions: Raw = getattr(self, member)
        return {} if is_absent(extensions) else decode_members(extensions)


class TextPart(VendorExtensions, tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: Raw = ABSENT


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class ImagePart(VendorExtensions, tag="image_url", forbid_unknown_fields=True):
    image_url: ImageUrl
    cache_control: Raw = ABSENT


class AudioData(msgspec.Struct, forbid_unknown_fields=True):
    data: str
    format: str


class AudioPart(VendorExtensions, tag="input_audio", forbid_unknown_fields=True):
    input_audio: AudioData


class FileData(msgspec.Struct, forbid_unknown_fields=True):
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class FilePart(VendorExtensions, tag="file", forbid_unknown_fields=True):
    file: FileData
    cache_control: Raw = ABSENT


class RefusalPart(VendorExtensions, tag="refusal", forbid_unknown_fields=True):
    refusal: str


Part = TextPart | ImagePart | AudioPart | FilePart | RefusalPart


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str | None = None


class ToolCall(VendorExtensions):
    function: FunctionCall
    id: str | None = None
    type: Literal["function"] | None = None


class SystemMessage(VendorExtensions, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str | list[TextPart]
    name: str | None = None


class DeveloperMessage(SystemMessage, tag_field="role", tag="developer", forbid_unknown_fields=True):
    pass


class UserMessage(VendorExtensions, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str | list[Part]
    name: str | None = None


class AssistantMessage(VendorExtensions, tag_field="role", tag="assistant"):
    """A turn of the model; clients send back the response they received, with all its members."""

    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Any = None
    audio: Any = None


class ToolMessage(VendorExtensions, tag_field="role", tag="tool", forbid_unknown_fields=True):
    """`name` is that of the called tool, after assign_call_ids has matched the call."""

    content: str | list[Part]
    tool_call_id: str | None = None
    name: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionDefinition(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class ToolDefinition(VendorExtensions, forbid_unknown_fields=True):
    function: FunctionDefinition
    type: Literal["function"] | None = None
    cache_control: Raw = ABSENT


class ToolChoiceFunction(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    function: ToolChoiceFunction
    type: Literal["function"]


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    schema: Raw = ABSENT
    description: str | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class JsonFormat(msgspec.Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: JsonSchema


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def call_arguments(call: ToolCall) -> Raw:
    """The arguments object of a tool call, as JSON text; a missing text and null are an empty object."""
    text = (call.function.arguments or "").strip()
    return Raw(b"{}" if text in ("", "null") else text.encode())


def optional_members(raw: Raw) -> Members:
    """The members of an object; no members for null or an absent value."""
    return {} if is_absent(raw) else decode_members(raw)


def member_object(members: Members, name: str) -> Members:
    """The members of the object `name`; no members when it is null or absent."""
    return optional_members(members.get(name, ABSENT))


def is_empty(value: Raw) -> bool:
    return len(value) <= 4 and bytes(value) in EMPTY_VALUES


def vendor_members(members: Members, exclude: Collection[str]) -> Members:
    """The non-empty members that have no mapping; `exclude` names the mapped ones."""
    return {name: value for name, value in members.items() if name not in exclude and not is_empty(value)}
