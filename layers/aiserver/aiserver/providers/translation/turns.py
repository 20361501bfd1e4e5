"""What vendors are told alike: who says what, the turns in blocks of theirs, media, a schema, a member by its path."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
    Assistant,
    Members,
    Message,
    Part,
    Refusal,
    System,
    Text,
    Tool,
    says_nothing,
)
from aiserver.providers.translation.nulls import NULL

NOBODY = "nobody says a word in them but the system"
MISNAMED = {"image/jpg": "image/jpeg"}  # by many, and refused by those who go by the register
_DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,(.*)", re.DOTALL)


def spoken(chat: Chat, path: str, message: Message) -> list[tuple[str, Any]]:
    """What the message at `path` says, as parts and where each stands.

    A speaker's name stands before the first text; a blank text is none, unless the vendor's own members stand with it.
    """
    content = message.content
    if isinstance(content, list):
        all_said: list[tuple[str, Any]] = [(f"{path}.content[{i}]", part) for i, part in enumerate(content)]
    else:
        all_said = [(f"{path}.content", Text(content or ""))]
    if isinstance(message, Assistant) and message.refusal:
        all_said.append((f"{path}.refusal", Refusal(message.refusal)))
    own = chat.words.member
    said = [(place, part) for place, part in all_said if not is_blank(chat, part) or part.of(own)]
    if not message.name or isinstance(message, Tool) or (isinstance(message, Assistant) and not said):
        return said
    if said and isinstance(said[0][1], Text):
        place, first = said[0]
        return [(place, msgspec.structs.replace(first, text=f"{message.name}: {first.text}")), *said[1:]]
    return [(f"{path}.name", Text(f"{message.name}:")), *said]


def is_blank(chat: Chat, part: Part) -> bool:
    """Whether it is a text that the vendor refuses, since it is empty, or white space only."""
    if not isinstance(part, Text | Refusal):
        return False
    text = part.text if isinstance(part, Text) else part.refusal
    return not text or (not chat.words.takes_white_space and text.isspace())


def systems(chat: Chat, blocks: Callable[[Chat, str, Message], list[Any]]) -> list[Any]:
    """What the system and the developer say, in blocks of the vendor's, wherever they do."""
    said = [(f"messages[{i}]", message) for i, message in enumerate(chat.messages) if isinstance(message, System)]
    return [block for path, message in said for block in blocks(chat, path, message)]


def turns(chat: Chat, blocks: Callable[[Chat, str, Message], list[Any]]) -> list[dict[str, Any]]:
    """The turns of user and assistant, each role's in a row as one: results of calls must stand together.

    One that says nothing is none.
    """
    told: list[dict[str, Any]] = []
    for i, message in enumerate(chat.messages):
        if isinstance(message, System):
            continue
        said = blocks(chat, f"messages[{i}]", message)
        role = "assistant" if isinstance(message, Assistant) else "user"
        if said and (not told or told[-1]["role"] != role):
            told.append({"role": role, "content": []})
        if said:
            told[-1]["content"] += said
    if not told:
        raise chat.refusal("messages", NOBODY)
    return told


class Data(NamedTuple):
    """What a data URL holds."""

    media_type: str
    base64: str


def data(url: str) -> Data | None:
    """What stands in `data:<media type>;base64,…`."""
    found = _DATA_URL.fullmatch(url)
    return Data(MISNAMED.get(found[1], found[1]), found[2]) if found else None


def has_tools(chat: Chat, own: Members) -> bool:
    """Whether the request offers tools: the caller's, or the vendor's own in `tools` of `own`."""
    return bool(chat.tools) or not says_nothing(own.get("tools", NULL))


def check_choice(chat: Chat) -> None:
    """Raises: InvalidRequest, where a tool must be called and none is offered."""
    if chat.choice not in (None, "auto", "none"):
        raise chat.refusal("tool_choice", "the request offers no tools")


def put(request: dict[str, Any], path: str, value: Any) -> None:
    """Set a member by its path, `inferenceConfig.maxTokens`."""
    *above, name = path.split(".")
    for step in above:
        request = request.setdefault(step, {})
    request[name] = value
