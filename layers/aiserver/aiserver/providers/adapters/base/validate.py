"""Parses a chat and checks each of its fields against a vendor's capabilities."""

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.capabilities import Capabilities, Unsupported
from aiserver.providers.adapters.base.chat import UNKNOWN_FIELD, Chat
from aiserver.providers.adapters.base.messages import (
    ABSENT,
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
    VendorExtensions,
    call_arguments,
    decode_members,
)
from aiserver.providers.adapters.base.nulls import is_absent
from aiserver.wire.upstream_body import VENDORS


def parse_chat(body: bytes, capabilities: Capabilities, model: str | None = None) -> Chat:
    """The chat in `body`; `model` replaces the model that it names.

    Raises: InvalidRequest, which names the path of a field that is invalid or that the vendor does not support.
    """
    chat = Chat(body, capabilities, model)
    _check_supported(chat)
    return chat


def _check_supported(chat: Chat) -> None:
    for name, value in chat.members.items():
        if name not in VENDORS:
            _check_capability(chat, name, name, value)
    for i, message in enumerate(chat.messages):
        _check_message(chat, f"messages[{i}]", message)
    for i, tool in enumerate(chat.tools):
        _check_extensions(chat, f"tools[{i}]", tool)
        if not is_absent(tool.cache_control):
            _check_capability(chat, "tools[].cache_control", f"tools[{i}].cache_control")
        if tool.function.strict:
            _check_capability(chat, "tools[].function.strict", f"tools[{i}].function.strict")


def _check_message(chat: Chat, path: str, message: Message) -> None:
    _check_extensions(chat, path, message)
    role = str(message.__struct_config__.tag)
    _check_capability(chat, f"messages[].role: {role}", f"{path}.role")
    if message.name:
        _check_capability(chat, "messages[].name", f"{path}.name")
    if isinstance(message, AssistantMessage):
        for name in ("function_call", "audio"):
            if getattr(message, name) is not None:
                _check_capability(chat, f"messages[].{name}", f"{path}.{name}")
        for i, call in enumerate(message.tool_calls or ()):
            _check_extensions(chat, f"{path}.tool_calls[{i}]", call)
            _check_arguments(chat, f"{path}.tool_calls[{i}].function.arguments", call)
    if isinstance(message.content, list):
        for i, part in enumerate(message.content):
            _check_part(chat, f"{path}.content[{i}]", role, part)


def _check_part(chat: Chat, path: str, role: str, part: Part) -> None:
    _check_extensions(chat, path, part)
    kind = str(part.__struct_config__.tag)
    role_suffix = (
        "" if role in ("system", "developer", "user") or isinstance(part, TextPart | RefusalPart) else f" ({role})"
    )
    _check_capability(chat, f"messages[].content[].{kind}{role_suffix}", f"{path}.{kind}")
    if not is_absent(getattr(part, "cache_control", ABSENT)):
        _check_capability(chat, "messages[].content[].cache_control", f"{path}.cache_control")
    if isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto"):
        _check_capability(chat, "messages[].content[].image_url.detail", f"{path}.image_url.detail")
    if isinstance(part, FilePart) and part.file.file_id:
        _check_capability(chat, "messages[].content[].file.file_id", f"{path}.file.file_id")


def _check_extensions(chat: Chat, path: str, value: VendorExtensions) -> None:
    try:
        value.for_vendor(chat.capabilities.extension_member)
    except msgspec.ValidationError:
        raise chat.invalid(f"{path}.{chat.capabilities.extension_member}", "must be an object") from None


def _check_capability(chat: Chat, rule_path: str, path: str, value: Raw = ABSENT) -> None:
    rule = chat.capabilities.rules.get(rule_path)
    if rule is None:
        hint = f"put vendor-specific fields in '{chat.capabilities.extension_member}'"
        raise chat.unsupported(path, f"{UNKNOWN_FIELD}; {hint}")
    if isinstance(rule, Unsupported) and not any(_is_equal(value, text) for text in rule.allowed_values):
        raise chat.unsupported(path, rule.reason)


def _check_arguments(chat: Chat, path: str, call: ToolCall) -> None:
    try:
        decode_members(call_arguments(call))
    except msgspec.DecodeError:
        raise chat.invalid(path, "must be the JSON text of an object") from None


def _is_equal(value: Raw, text: str) -> bool:
    return bool(value) and msgspec.json.decode(value) == msgspec.json.decode(text)
