"""The turns of a chat as Anthropic reads them.

Source: https://platform.claude.com/docs/en/api/messages
"""

import base64
import binascii
import re
from typing import Any

import msgspec

from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
    Assistant,
    Audio,
    Call,
    File,
    Image,
    Message,
    Part,
    Refusal,
    Text,
    Tool,
    ToolDefinition,
    arguments,
)
from aiserver.providers.translation.turns import data, spoken

Block = dict[str, Any]
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """What a message says. Raises: InvalidRequest."""
    match message:
        case Tool():
            content = message.content if isinstance(message.content, str) else _blocks(chat, path, message)
            made = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": content}
            return [chat.merged(made, message.of("anthropic"), path)]
        case Assistant():
            own = message.of("anthropic")
            as_said = chat.read_own(own, "content", list[msgspec.Raw], path)
            chat.nothing_left(own, path)
            calls = enumerate(message.tool_calls or ())
            said = [*_blocks(chat, path, message), *(_call(chat, f"{path}.tool_calls[{i}]", c) for i, c in calls)]
            return said if as_said is None else as_said
        case _:
            chat.nothing_left(message.of("anthropic"), path)
            return _blocks(chat, path, message)


def _blocks(chat: Chat, path: str, message: Message) -> list[Block]:
    return [_block(chat, place, part) for place, part in spoken(path, message)]


def _block(chat: Chat, path: str, part: Part) -> Block:
    match part:
        case Text():
            made: Block = {"type": "text", "text": part.text} | cached(part)
        case Refusal():
            made = {"type": "text", "text": part.refusal}
        case Image():
            made = {"type": "image", "source": _image(chat, f"{path}.image_url.url", part.image_url.url)} | cached(part)
        case File():
            made = {"type": "document", "source": _document(chat, f"{path}.file.file_data", part.file.file_data or "")}
            made |= ({"title": part.file.filename} if part.file.filename else {}) | cached(part)
        case Audio():
            raise chat.refusal(path)
    return chat.merged(made, part.of("anthropic"), path)


def cached(part: Text | Image | File | ToolDefinition) -> Block:
    """Whether the cache shall begin anew after it."""
    return {"cache_control": part.cache_control} if part.cache_control else {}


def _image(chat: Chat, path: str, url: str) -> dict[str, Any]:
    if held := data(url):
        return {"type": "base64", "media_type": held.media_type, "data": held.base64}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.refusal(path, "it must be an https URL, or data:<media type>;base64,…")


def _document(chat: Chat, path: str, url: str) -> dict[str, Any]:
    held = data(url)
    if held and held.media_type == "application/pdf":
        return {"type": "base64", "media_type": held.media_type, "data": held.base64}
    if held and held.media_type == "text/plain":
        try:
            text = base64.b64decode(held.base64, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise chat.refusal(path, "it is no text in base64") from None
        return {"type": "text", "media_type": held.media_type, "data": text}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.refusal(path, "it must be a PDF or plain text, as data:<media type>;base64,…, or an https URL")


def _call(chat: Chat, path: str, call: Call) -> Block:
    made = {"type": "tool_use", "id": _id(call.id), "name": call.function.name, "input": arguments(call)}
    return chat.merged(made, call.of("anthropic"), path)


def _id(id: str) -> str:
    """An id of another vendor's may hold what one of Anthropic's must not."""
    return _NOT_IN_AN_ID.sub("_", id)
