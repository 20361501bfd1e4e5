"""The parts of a chat request that are read to be translated: messages, tools, formats.

Schemas and a tool's arguments stay the caller's own text. An object with a member that is not here is refused, but in
a turn of the assistant's: there it is ignored, since clients send back what a provider answered, with its own members.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Collection
from typing import Any, Literal

import msgspec
from msgspec import Raw

from aiserver.providers.translation.nulls import is_absent

Members = dict[str, Raw]
NOTHING = Raw(b"")
NOT_GIVEN = (b"", b"null", b"{}", b"[]")
members = msgspec.json.Decoder(Members).decode


class Own(msgspec.Struct, kw_only=True):
    """What one vendor only shall read."""

    anthropic: Raw = NOTHING
    google: Raw = NOTHING
    bedrock: Raw = NOTHING

    def of(self, member: str) -> dict[str, Raw]:
        """The vendor's members of this object."""
        given: Raw = getattr(self, member)
        return {} if is_absent(given) else members(given)


class Text(Own, tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: Raw = NOTHING


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class Image(Own, tag="image_url", forbid_unknown_fields=True):
    image_url: ImageUrl
    cache_control: Raw = NOTHING


class Sound(msgspec.Struct, forbid_unknown_fields=True):
    data: str
    format: str


class Audio(Own, tag="input_audio", forbid_unknown_fields=True):
    input_audio: Sound


class FileData(msgspec.Struct, forbid_unknown_fields=True):
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class File(Own, tag="file", forbid_unknown_fields=True):
    file: FileData
    cache_control: Raw = NOTHING


class Refusal(Own, tag="refusal", forbid_unknown_fields=True):
    refusal: str


Part = Text | Image | Audio | File | Refusal


class Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class Call(Own):
    function: Function
    id: str | None = None
    type: Literal["function"] | None = None


class System(Own, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str | list[Text]
    name: str | None = None


class Developer(System, tag_field="role", tag="developer", forbid_unknown_fields=True):
    pass


class User(Own, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str | list[Part]
    name: str | None = None


class Assistant(Own, tag_field="role", tag="assistant"):
    """A turn of the model's; clients send back what they were answered, with all that stood in it."""

    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Any = None
    audio: Any = None


class Tool(Own, tag_field="role", tag="tool", forbid_unknown_fields=True):
    """`name` is that of the tool that was called, once the call is known."""

    content: str | list[Part]
    tool_call_id: str | None = None
    name: str | None = None


Message = System | Developer | User | Assistant | Tool


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: Raw = NOTHING
    strict: bool | None = None


class ToolDefinition(Own, forbid_unknown_fields=True):
    function: FunctionTool
    type: Literal["function"] | None = None
    cache_control: Raw = NOTHING


class ChosenFunction(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    function: ChosenFunction
    type: Literal["function"]


class Schema(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    schema: Raw = NOTHING
    description: str | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class JsonFormat(msgspec.Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: Schema


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def arguments(call: Call) -> Raw:
    """The object that a tool is called with, as its text; no text, and null, is an empty one."""
    text = (call.function.arguments or "").strip()
    return Raw(b"{}" if text in ("", "null") else text.encode())


def members_if_any(raw: Raw) -> Members:
    """The members of an object; of null, or nothing, none."""
    return {} if is_absent(raw) else members(raw)


def held(found: Members, name: str) -> Members:
    """The members of one that is an object; of one that is null, or is not there, none."""
    return members_if_any(found.get(name, NOTHING))


def says_nothing(value: Raw) -> bool:
    return len(value) <= 4 and bytes(value) in NOT_GIVEN


def given(found: Members, but: Collection[str]) -> Members:
    """The members of a vendor's that say something, less those that are told otherwise."""
    return {name: value for name, value in found.items() if name not in but and not says_nothing(value)}
