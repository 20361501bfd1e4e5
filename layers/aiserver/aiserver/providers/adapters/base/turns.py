"""Request mapping shared by the vendors: message parts, merged turns, data URLs, tool choice, fields by path."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.messages import (
    AssistantMessage,
    Members,
    Message,
    Part,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolMessage,
    is_empty,
)
from aiserver.providers.adapters.base.nulls import NULL

NO_USER_MESSAGE = "must contain at least one user message"
MEDIA_TYPE_ALIASES = {"image/jpg": "image/jpeg"}  # clients send it; some vendors accept registered media types only
_DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,(.*)", re.DOTALL)


def content_parts(chat: Chat, path: str, message: Message) -> list[tuple[str, Any]]:
    """The content parts of the message at `path`, each with its own path.

    The message's `name` becomes a prefix of the first text. Blank texts without vendor-specific members are skipped.
    """
    content = message.content
    if isinstance(content, list):
        parts: list[tuple[str, Any]] = [(f"{path}.content[{i}]", part) for i, part in enumerate(content)]
    else:
        parts = [(f"{path}.content", TextPart(content or ""))]
    if isinstance(message, AssistantMessage) and message.refusal:
        parts.append((f"{path}.refusal", RefusalPart(message.refusal)))
    vendor = chat.capabilities.extension_member
    visible = [(part_path, part) for part_path, part in parts if not is_blank(chat, part) or part.for_vendor(vendor)]
    if not message.name or isinstance(message, ToolMessage) or (isinstance(message, AssistantMessage) and not visible):
        return visible
    if visible and isinstance(visible[0][1], TextPart):
        first_path, first = visible[0]
        return [(first_path, msgspec.structs.replace(first, text=f"{message.name}: {first.text}")), *visible[1:]]
    return [(f"{path}.name", TextPart(f"{message.name}:")), *visible]


def is_blank(chat: Chat, part: Part) -> bool:
    """Whether the part is a text that the vendor rejects: empty, or white space only."""
    if not isinstance(part, TextPart | RefusalPart):
        return False
    text = part.text if isinstance(part, TextPart) else part.refusal
    return not text or (not chat.capabilities.accepts_blank_text and text.isspace())


def system_blocks(chat: Chat, map_message: Callable[[Chat, str, Message], list[Any]]) -> list[Any]:
    """The system and developer messages of all positions, as the vendor's blocks."""
    messages = [
        (f"messages[{i}]", message) for i, message in enumerate(chat.messages) if isinstance(message, SystemMessage)
    ]
    return [block for path, message in messages for block in map_message(chat, path, message)]


def merge_turns(chat: Chat, map_message: Callable[[Chat, str, Message], list[Any]]) -> list[dict[str, Any]]:
    """The user and assistant turns; consecutive turns of one role are merged, since tool results must be together.

    Messages without content are skipped.
    """
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(chat.messages):
        if isinstance(message, SystemMessage):
            continue
        content = map_message(chat, f"messages[{i}]", message)
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        if content and (not turns or turns[-1]["role"] != role):
            turns.append({"role": role, "content": []})
        if content:
            turns[-1]["content"] += content
    if not turns:
        raise chat.invalid("messages", NO_USER_MESSAGE)
    return turns


class DataUrl(NamedTuple):
    """The content of a data URL."""

    media_type: str
    base64: str


def parse_data_url(url: str) -> DataUrl | None:
    """Parse `data:<media type>;base64,…`; None for another URL."""
    match = _DATA_URL.fullmatch(url)
    return DataUrl(MEDIA_TYPE_ALIASES.get(match[1], match[1]), match[2]) if match else None


def has_tools(chat: Chat, extensions: Members) -> bool:
    """Whether the request offers tools, in `tools` or in `tools` of the vendor-specific `extensions`."""
    return bool(chat.tools) or not is_empty(extensions.get("tools", NULL))


def check_tool_choice(chat: Chat) -> None:
    """Raises: InvalidRequest, when a tool call is required and the request offers no tools."""
    if chat.tool_choice not in (None, "auto", "none"):
        raise chat.invalid("tool_choice", "must be 'auto' or 'none'", "the request offers no tools")


def set_path(request: dict[str, Any], path: str, value: Any) -> None:
    """Set a member by its path, such as `inferenceConfig.maxTokens`."""
    *parents, name = path.split(".")
    for parent in parents:
        request = request.setdefault(parent, {})
    request[name] = value
