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
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    call_arguments,
    decode_members,
)
from aiserver.providers.translation.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.translation.tool_call_ids import restore_call_ids
from aiserver.providers.translation.turns import content_parts, is_blank, parse_data_url

Block = dict[str, Any]


class _ReplayedBlock(msgspec.Struct):
    """What is read of a block that Anthropic said before."""

    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""


_replayed_block = null_tolerant_decoder(_ReplayedBlock)


def content_blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """What a message says. Raises: InvalidRequest."""
    match message:
        case ToolMessage():
            content = message.content if isinstance(message.content, str) else _part_blocks(chat, path, message)
            if isinstance(content, str) and content.isspace():
                content = ""
            made = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
            return [chat.merge(made, message.for_vendor("anthropic"), path)]
        case AssistantMessage():
            own = message.for_vendor("anthropic")
            as_said: list[Raw] | None = chat.take_extension(own, "content", list[Raw], path)
            chat.reject_extensions(own, path)
            calls = message.tool_calls or ()
            if as_said is not None:
                return _restore_blocks(as_said, calls)
            called = [_map_tool_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(calls)]
            return [*_part_blocks(chat, path, message), *called]
        case _:
            chat.reject_extensions(message.for_vendor("anthropic"), path)
            return _part_blocks(chat, path, message)


def _part_blocks(chat: Chat, path: str, message: Message) -> list[Block]:
    """Anthropic refuses a blank text with members of its own, too."""
    said = content_parts(chat, path, message)
    return [_map_part(chat, place, part) for place, part in said if not is_blank(chat, part)]


def _map_part(chat: Chat, path: str, part: Part) -> Block:
    match part:
        case TextPart():
            made: Block = {"type": "text", "text": part.text} | cache_control(part)
        case RefusalPart():
            made = {"type": "text", "text": part.refusal}
        case ImagePart():
            made = {
                "type": "image",
                "source": _image_source(chat, f"{path}.image_url.url", part.image_url.url),
            } | cache_control(part)
        case FilePart():
            made = {
                "type": "document",
                "source": _document_source(chat, f"{path}.file.file_data", part.file.file_data or ""),
            }
            made |= ({"title": part.file.filename} if part.file.filename else {}) | cache_control(part)
        case AudioPart():
            raise chat.unsupported(path)
    return chat.merge(made, part.for_vendor("anthropic"), path)


def _restore_blocks(content: list[Raw], calls: Sequence[ToolCall]) -> list[Any]:
    """The blocks of an answer as Anthropic said them, less blank texts, which it does not take back.

    A call has the id that its result has here.
    """
    read = [_decode_block(raw) for raw in content]
    ids = restore_call_ids([(one.name, one.id) for one in read if one.type == "tool_use"], calls)
    kept: list[Any] = []
    for raw, one in zip(content, read, strict=True):
        id = next(ids) if one.type == "tool_use" else one.id
        if id != one.id:
            kept.append(decode_members(raw) | {"id": id})
        elif one.type != "text" or one.text.strip():
            kept.append(raw)
    return kept


def _decode_block(raw: Raw) -> _ReplayedBlock:
    try:
        return _replayed_block(raw)
    except msgspec.ValidationError:
        return _ReplayedBlock()  # Anthropic says what is wrong with it


def cache_control(part: TextPart | ImagePart | FilePart | ToolDefinition) -> Block:
    """Whether the cache shall begin anew after it."""
    return {} if is_absent(part.cache_control) else {"cache_control": part.cache_control}


def _image_source(chat: Chat, path: str, url: str) -> dict[str, Any]:
    if held := parse_data_url(url):
        return {"type": "base64", "media_type": held.media_type, "data": held.base64}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.unsupported(path, "it must be an https URL, or data:<media type>;base64,…")


def _document_source(chat: Chat, path: str, url: str) -> dict[str, Any]:
    held = parse_data_url(url)
    if held and held.media_type == "application/pdf":
        return {"type": "base64", "media_type": held.media_type, "data": held.base64}
    if held and held.media_type == "text/plain":
        try:
            text = base64.b64decode(held.base64, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise chat.unsupported(path, "it is no text in base64") from None
        return {"type": "text", "media_type": held.media_type, "data": text}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.unsupported(path, "it must be a PDF or plain text, as data:<media type>;base64,…, or an https URL")


def _map_tool_call(chat: Chat, path: str, call: ToolCall) -> Block:
    made = {"type": "tool_use", "id": call.id, "name": call.function.name, "input": call_arguments(call)}
    return chat.merge(made, call.for_vendor("anthropic"), path)
