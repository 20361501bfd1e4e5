"""What vendors are told alike: who says what, the turns in blocks of theirs, media, a schema, a member by its path."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
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
from aiserver.providers.translation.nulls import NULL

NO_USER_MESSAGE = "nobody says a word in them but the system"
MEDIA_TYPE_ALIASES = {"image/jpg": "image/jpeg"}  # by many, and refused by those who go by the register
_DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,(.*)", re.DOTALL)


def content_parts(chat: Chat, path: str, message: Message) -> list[tuple[str, Any]]:
    """What the message at `path` says, as parts and where each stands.

    A speaker's name stands before the first text; a blank text is none, unless the vendor's own members stand with it.
    """
    content = message.content
    if isinstance(content, list):
        all_said: list[tuple[str, Any]] = [(f"{path}.content[{i}]", part) for i, part in enumerate(content)]
    else:
        all_said = [(f"{path}.content", TextPart(content or ""))]
    if isinstance(message, AssistantMessage) and message.refusal:
        all_said.append((f"{path}.refusal", RefusalPart(message.refusal)))
    own = chat.capabilities.extension_member
    said = [(place, part) for place, part in all_said if not is_blank(chat, part) or part.for_vendor(own)]
    if not message.name or isinstance(message, ToolMessage) or (isinstance(message, AssistantMessage) and not said):
        return said
    if said and isinstance(said[0][1], TextPart):
        place, first = said[0]
        return [(place, msgspec.structs.replace(first, text=f"{message.name}: {first.text}")), *said[1:]]
    return [(f"{path}.name", TextPart(f"{message.name}:")), *said]


def is_blank(chat: Chat, part: Part) -> bool:
    """Whether it is a text that the vendor refuses, since it is empty, or white space only."""
    if not isinstance(part, TextPart | RefusalPart):
        return False
    text = part.text if isinstance(part, TextPart) else part.refusal
    return not text or (not chat.capabilities.accepts_blank_text and text.isspace())


def system_blocks(chat: Chat, blocks: Callable[[Chat, str, Message], list[Any]]) -> list[Any]:
    """What the system and the developer say, in blocks of the vendor's, wherever they do."""
    said = [
        (f"messages[{i}]", message) for i, message in enumerate(chat.messages) if isinstance(message, SystemMessage)
    ]
    return [block for path, message in said for block in blocks(chat, path, message)]


def merge_turns(chat: Chat, blocks: Callable[[Chat, str, Message], list[Any]]) -> list[dict[str, Any]]:
    """The turns of user and assistant, each role's in a row as one: results of calls must stand together.

    One that says nothing is none.
    """
    told: list[dict[str, Any]] = []
    for i, message in enumerate(chat.messages):
        if isinstance(message, SystemMessage):
            continue
        said = blocks(chat, f"messages[{i}]", message)
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        if said and (not told or told[-1]["role"] != role):
            told.append({"role": role, "content": []})
        if said:
            told[-1]["content"] += said
    if not told:
        raise chat.unsupported("messages", NO_USER_MESSAGE)
    return told


class DataUrl(NamedTuple):
    """What a data URL holds."""

    media_type: str
    base64: str


def parse_data_url(url: str) -> DataUrl | None:
    """What stands in `data:<media type>;base64,…`."""
    found = _DATA_URL.fullmatch(url)
    return DataUrl(MEDIA_TYPE_ALIASES.get(found[1], found[1]), found[2]) if found else None


def has_tools(chat: Chat, extensions: Members) -> bool:
    """Whether the request offers tools: the caller's, or the vendor's own in `tools` of `own`."""
    return bool(chat.tools) or not is_empty(extensions.get("tools", NULL))


def check_tool_choice(chat: Chat) -> None:
    """Raises: InvalidRequest, where a tool must be called and none is offered."""
    if chat.tool_choice not in (None, "auto", "none"):
        raise chat.unsupported("tool_choice", "the request offers no tools")


def set_path(request: dict[str, Any], path: str, value: Any) -> None:
    """Set a member by its path, `inferenceConfig.maxTokens`."""
    *above, name = path.split(".")
    for step in above:
        request = request.setdefault(step, {})
    request[name] = value
