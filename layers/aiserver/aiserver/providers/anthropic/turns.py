"""The turns of a chat as Anthropic reads them.

Source: https://platform.claude.com/docs/en/api/messages
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

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
    members,
)
from aiserver.providers.translation.nulls import is_absent, reader
from aiserver.providers.translation.tool_call_ids import ids_again
from aiserver.providers.translation.turns import data, is_blank, spoken

Block = dict[str, Any]


class _AsSaid(msgspec.Struct):
    """What is read of a block that Anthropic said before."""

    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""


_as_said = reader(_AsSaid)


def blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """What a message says. Raises: InvalidRequest."""
    match message:
        case Tool():
            content = message.content if isinstance(message.content, str) else _blocks(chat, path, message)
            if isinstance(content, str) and content.isspace():
                content = ""
            made = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
            return [chat.merged(made, message.of("anthropic"), path)]
        case Assistant():
            own = message.of("anthropic")
            as_said: list[Raw] | None = chat.read_own(own, "content", list[Raw], path)
            chat.nothing_left(own, path)
            calls = message.tool_calls or ()
            if as_said is not None:
                return _again(as_said, calls)
            called = [_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(calls)]
            return [*_blocks(chat, path, message), *called]
        case _:
            chat.nothing_left(message.of("anthropic"), path)
            return _blocks(chat, path, message)


def _blocks(chat: Chat, path: str, message: Message) -> list[Block]:
    """Anthropic refuses a blank text with members of its own, too."""
    said = spoken(chat, path, message)
    return [_block(chat, place, part) for place, part in said if not is_blank(chat, part)]


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


def _again(content: list[Raw], calls: Sequence[Call]) -> list[Any]:
    """The blocks of an answer as Anthropic said them, less blank texts, which it does not take back.

    A call has the id that its result has here.
    """
    read = [_read(raw) for raw in content]
    ids = ids_again([(one.name, one.id) for one in read if one.type == "tool_use"], calls)
    kept: list[Any] = []
    for raw, one in zip(content, read, strict=True):
        id = next(ids) if one.type == "tool_use" else one.id
        if id != one.id:
            kept.append(members(raw) | {"id": id})
        elif one.type != "text" or one.text.strip():
            kept.append(raw)
    return kept


def _read(raw: Raw) -> _AsSaid:
    try:
        return _as_said(raw)
    except msgspec.ValidationError:
        return _AsSaid()  # Anthropic says what is wrong with it


def cached(part: Text | Image | File | ToolDefinition) -> Block:
    """Whether the cache shall begin anew after it."""
    return {} if is_absent(part.cache_control) else {"cache_control": part.cache_control}


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
    made = {"type": "tool_use", "id": call.id, "name": call.function.name, "input": arguments(call)}
    return chat.merged(made, call.of("anthropic"), path)
