"""Maps messages to the content blocks of Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/api/messages
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.messages import (
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
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.base.tool_call_ids import restore_call_ids
from aiserver.providers.adapters.base.turns import content_parts, is_blank, parse_data_url

Block = dict[str, Any]


class _ReplayedBlock(msgspec.Struct):
    """The decoded members of a block from an earlier response."""

    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""


_replayed_block = null_tolerant_decoder(_ReplayedBlock)


def content_blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """The content blocks of a message. Raises: InvalidRequest."""
    match message:
        case ToolMessage():
            content = message.content if isinstance(message.content, str) else _part_blocks(chat, path, message)
            if isinstance(content, str) and content.isspace():
                content = ""
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
            return [chat.merge(result, message.for_vendor("anthropic"), path)]
        case AssistantMessage():
            extensions = message.for_vendor("anthropic")
            original_blocks: list[Raw] | None = chat.take_extension(extensions, "content", list[Raw], path)
            chat.reject_extensions(extensions, path)
            calls = message.tool_calls or ()
            if original_blocks is not None:
                return _restore_blocks(original_blocks, calls)
            call_blocks = [_map_tool_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(calls)]
            return [*_part_blocks(chat, path, message), *call_blocks]
        case _:
            chat.reject_extensions(message.for_vendor("anthropic"), path)
            return _part_blocks(chat, path, message)


def _part_blocks(chat: Chat, path: str, message: Message) -> list[Block]:
    """Blank texts are skipped, since Anthropic rejects them also with vendor-specific members."""
    parts = content_parts(chat, path, message)
    return [_map_part(chat, part_path, part) for part_path, part in parts if not is_blank(chat, part)]


def _map_part(chat: Chat, path: str, part: Part) -> Block:
    match part:
        case TextPart():
            block: Block = {"type": "text", "text": part.text} | cache_control(part)
        case RefusalPart():
            block = {"type": "text", "text": part.refusal}
        case ImagePart():
            block = {
                "type": "image",
                "source": _image_source(chat, f"{path}.image_url.url", part.image_url.url),
            } | cache_control(part)
        case FilePart():
            block = {
                "type": "document",
                "source": _document_source(chat, f"{path}.file.file_data", part.file.file_data or ""),
            }
            block |= ({"title": part.file.filename} if part.file.filename else {}) | cache_control(part)
        case AudioPart():
            raise chat.unsupported(path)
    return chat.merge(block, part.for_vendor("anthropic"), path)


def _restore_blocks(content: list[Raw], calls: Sequence[ToolCall]) -> list[Any]:
    """The unchanged blocks of an earlier response, without blank texts, which Anthropic rejects.

    A tool call gets the id that its result has in this request.
    """
    blocks = [_decode_block(raw) for raw in content]
    ids = restore_call_ids([(block.name, block.id) for block in blocks if block.type == "tool_use"], calls)
    restored: list[Any] = []
    for raw, block in zip(content, blocks, strict=True):
        id = next(ids) if block.type == "tool_use" else block.id
        if id != block.id:
            restored.append(decode_members(raw) | {"id": id})
        elif block.type != "text" or block.text.strip():
            restored.append(raw)
    return restored


def _decode_block(raw: Raw) -> _ReplayedBlock:
    try:
        return _replayed_block(raw)
    except msgspec.ValidationError:
        return _ReplayedBlock()  # Anthropic reports the error


def cache_control(part: TextPart | ImagePart | FilePart | ToolDefinition) -> Block:
    """The `cache_control` member: it sets a cache breakpoint after the block."""
    return {} if is_absent(part.cache_control) else {"cache_control": part.cache_control}


def _image_source(chat: Chat, path: str, url: str) -> dict[str, Any]:
    if data_url := parse_data_url(url):
        return {"type": "base64", "media_type": data_url.media_type, "data": data_url.base64}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.invalid(path, "must be an https URL or data:<media type>;base64,…")


def _document_source(chat: Chat, path: str, url: str) -> dict[str, Any]:
    data_url = parse_data_url(url)
    if data_url and data_url.media_type == "application/pdf":
        return {"type": "base64", "media_type": data_url.media_type, "data": data_url.base64}
    if data_url and data_url.media_type == "text/plain":
        try:
            text = base64.b64decode(data_url.base64, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise chat.invalid(path, "must be base64-encoded UTF-8 text") from None
        return {"type": "text", "media_type": data_url.media_type, "data": text}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.invalid(path, "must be a PDF or plain text as data:<media type>;base64,…, or an https URL")


def _map_tool_call(chat: Chat, path: str, call: ToolCall) -> Block:
    block = {"type": "tool_use", "id": call.id, "name": call.function.name, "input": call_arguments(call)}
    return chat.merge(block, call.for_vendor("anthropic"), path)
