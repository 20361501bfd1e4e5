"""What vendors are told alike: who says what, the turns in blocks of theirs, media, a schema, a member by its path."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
    Assistant,
    Message,
    Refusal,
    SchemaFormat,
    System,
    Text,
    Tool,
    members,
)

NOBODY = "nobody says a word in them but the system"
MISNAMED = {"image/jpg": "image/jpeg"}  # by many, and refused by those who go by the register
_DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,(.*)", re.DOTALL)


def spoken(path: str, message: Message) -> list[tuple[str, Any]]:
    """What the message at `path` says, as parts and where each stands.

    A speaker's name stands before the first text, an empty text is none.
    """
    content = message.content
    if isinstance(content, list):
        all_said: list[tuple[str, Any]] = [(f"{path}.content[{i}]", part) for i, part in enumerate(content)]
    else:
        all_said = [(f"{path}.content", Text(content or ""))]
    said = [(place, part) for place, part in all_said if not isinstance(part, Text) or part.says_something]
    if isinstance(message, Assistant) and message.refusal:
        said.append((f"{path}.refusal", Refusal(message.refusal)))
    if not message.name or isinstance(message, Tool) or (isinstance(message, Assistant) and not said):
        return said
    if said and isinstance(said[0][1], Text):
        place, first = said[0]
        return [(place, msgspec.structs.replace(first, text=f"{message.name}: {first.text}")), *said[1:]]
    return [(f"{path}.name", Text(f"{message.name}:")), *said]


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


def schema(chat: Chat, format: SchemaFormat) -> Any:
    """The schema that is asked for, with its description. Raises: InvalidRequest."""
    told = format.json_schema
    try:
        said = members(told.schema)
    except msgspec.DecodeError:
        raise chat.refusal("response_format.json_schema.schema", "it must be an object") from None
    described = {"description": told.description} if told.description and "description" not in said else {}
    return said | described if described else told.schema


def put(request: dict[str, Any], path: str, value: Any) -> None:
    """Set a member by its path, `inferenceConfig.maxTokens`."""
    *above, name = path.split(".")
    for step in above:
        request = request.setdefault(step, {})
    request[name] = value
