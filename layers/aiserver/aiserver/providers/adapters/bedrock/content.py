"""Maps messages to the content blocks of the Converse API.

A block is a union with one member: a part's `bedrock` members are added to that member, and replace a text block.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.messages import (
    ABSENT,
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolMessage,
    call_arguments,
)
from aiserver.providers.adapters.base.nulls import is_absent
from aiserver.providers.adapters.base.turns import content_parts, parse_data_url
from aiserver.providers.adapters.bedrock.document_names import document_name_for
from aiserver.providers.adapters.bedrock.history import restore_blocks

IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
IMAGE_EXTENSIONS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "gif": "gif", "webp": "webp"}
DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
DOCUMENT_EXTENSIONS = {extension: extension for extension in DOCUMENTS.values()}
AUDIO_FORMATS = {
    extension: extension
    for extension in (
        *("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg"),
        *("mkv", "mka", "m4a", "mpeg", "mpga", "pcm", "webm"),
    )
}
S3 = "s3://"


class _CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    """Anthropic's format, which clients of other vendors send, too."""

    type: Literal["ephemeral"]
    ttl: str | None = None


def content_blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """The content blocks of a message. Raises: InvalidRequest."""
    extensions = message.for_vendor("bedrock")
    if isinstance(message, ToolMessage):
        return _tool_result(chat, path, message, extensions)
    content: list[Raw] | None = chat.take_extension(extensions, "content", list[Raw], path)
    chat.reject_extensions(extensions, path)
    calls = (message.tool_calls or ()) if isinstance(message, AssistantMessage) else ()
    if content is not None:
        return restore_blocks(content, calls)
    blocks = _part_blocks(chat, path, message)
    return [*blocks, *(_map_tool_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(calls))]


def cache_point(chat: Chat, path: str, cache_control: Raw) -> list[dict[str, Any]]:
    """The `cachePoint` block to put after a cached block, if requested. Raises: InvalidRequest."""
    if is_absent(cache_control):
        return []
    try:
        control = msgspec.json.decode(cache_control, type=_CacheControl | None)
    except msgspec.ValidationError:
        constraint = 'must be {"type": "ephemeral"} with an optional \'ttl\''
        raise chat.invalid(f"{path}.cache_control", constraint) from None
    return [{"cachePoint": {"type": "default"} | ({"ttl": control.ttl} if control.ttl else {})}] if control else []


def _part_blocks(chat: Chat, path: str, message: Message) -> Iterator[dict[str, Any]]:
    """Bedrock rejects blank texts. https://github.com/NousResearch/hermes-agent/pull/55093"""
    for part_path, part in content_parts(chat, path, message):
        yield _map_part(chat, part_path, part)
        yield from cache_point(chat, part_path, getattr(part, "cache_control", ABSENT))


def _tool_result(chat: Chat, path: str, message: ToolMessage, extensions: dict[str, Any]) -> list[Any]:
    """A tool result cannot contain cache points: they follow it."""
    blocks = list(_part_blocks(chat, path, message))
    content = [block for block in blocks if "cachePoint" not in block]
    points = [block for block in blocks if "cachePoint" in block]
    result: dict[str, Any] = {"toolUseId": message.tool_call_id, "content": content}
    return [{"toolResult": chat.merge(result, extensions, path)}, *points]


def _map_part(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    extensions = part.for_vendor("bedrock")
    match part:
        case TextPart():
            return extensions or {"text": part.text}
        case RefusalPart():
            return extensions or {"text": part.refusal}
        case ImagePart():
            return {
                "image": chat.merge(_image_block(chat, f"{path}.image_url.url", part.image_url.url), extensions, path)
            }
        case FilePart():
            return {"document": chat.merge(_document_block(chat, path, part), extensions, path)}
        case AudioPart():
            format = chat.map_value(f"{path}.input_audio.format", part.input_audio.format, AUDIO_FORMATS)
            return {
                "audio": chat.merge({"format": format, "source": {"bytes": part.input_audio.data}}, extensions, path)
            }


def _image_block(chat: Chat, path: str, url: str) -> dict[str, Any]:
    data_url = parse_data_url(url)
    if data_url and data_url.media_type in IMAGES:
        return {"format": IMAGES[data_url.media_type], "source": {"bytes": data_url.base64}}
    if url.startswith(S3) and _extension(url) in IMAGE_EXTENSIONS:
        return {"format": IMAGE_EXTENSIONS[_extension(url)], "source": {"s3Location": {"uri": url}}}
    raise chat.invalid(path, "must be data:<media type>;base64,… or s3://… of a PNG, JPEG, GIF or WebP")


def _document_block(chat: Chat, path: str, part: FilePart) -> dict[str, Any]:
    url, filename = part.file.file_data or "", part.file.filename or ""
    data_url = parse_data_url(url)
    extension_format = DOCUMENT_EXTENSIONS.get(_extension(filename) or _extension(url))
    format = DOCUMENTS.get(data_url.media_type, extension_format) if data_url else extension_format
    if format is None or not (data_url or url.startswith(S3)):
        formats = ", ".join(DOCUMENT_EXTENSIONS)
        constraint = f"must be data:<media type>;base64,… or s3://… of one of the formats {formats}"
        raise chat.invalid(f"{path}.file.file_data", constraint)
    source = {"bytes": data_url.base64} if data_url else {"s3Location": {"uri": url}}
    return {"format": format, "name": document_name_for(filename, path), "source": source}


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _map_tool_call(chat: Chat, path: str, call: ToolCall) -> dict[str, Any]:
    tool_use = {"toolUseId": call.id, "name": call.function.name, "input": call_arguments(call)}
    return {"toolUse": chat.merge(tool_use, call.for_vendor("bedrock"), path)}
