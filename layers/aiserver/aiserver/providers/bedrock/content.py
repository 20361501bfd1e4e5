"""The parts of a message as Converse's content blocks.

A block is a union of one member: what a part has of `bedrock` goes into that member, and stands for a text as a whole.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Raw

from aiserver.providers.bedrock.document_names import document_name_for
from aiserver.providers.bedrock.history import restore_blocks
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
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
from aiserver.providers.translation.nulls import is_absent
from aiserver.providers.translation.turns import content_parts, parse_data_url

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
DOCUMENT_EXTENSIONS = {ending: ending for ending in DOCUMENTS.values()}
AUDIO_FORMATS = {
    ending: ending
    for ending in (
        *("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg"),
        *("mkv", "mka", "m4a", "mpeg", "mpga", "pcm", "webm"),
    )
}
S3 = "s3://"


class _CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    """Anthropic's word for it, which other vendors' clients send, too."""

    type: Literal["ephemeral"]
    ttl: str | None = None


def content_blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """What a message says. Raises: InvalidRequest."""
    own = message.for_vendor("bedrock")
    if isinstance(message, ToolMessage):
        return _tool_result(chat, path, message, own)
    content: list[Raw] | None = chat.take_extension(own, "content", list[Raw], path)
    chat.reject_extensions(own, path)
    calls = (message.tool_calls or ()) if isinstance(message, AssistantMessage) else ()
    if content is not None:
        return restore_blocks(content, calls)
    said = _part_blocks(chat, path, message)
    return [*said, *(_map_tool_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(calls))]


def cache_point(chat: Chat, path: str, cache_control: Raw) -> list[dict[str, Any]]:
    """What stands after that which is to be cached, if it is. Raises: InvalidRequest."""
    if is_absent(cache_control):
        return []
    try:
        cached = msgspec.json.decode(cache_control, type=_CacheControl | None)
    except msgspec.ValidationError:
        raise chat.unsupported(f"{path}.cache_control", 'it is {"type": "ephemeral"}, with a \'ttl\'') from None
    return [{"cachePoint": {"type": "default"} | ({"ttl": cached.ttl} if cached.ttl else {})}] if cached else []


def _part_blocks(chat: Chat, path: str, message: Message) -> Iterator[dict[str, Any]]:
    """No text may be blank. https://github.com/NousResearch/hermes-agent/pull/55093"""
    for place, part in content_parts(chat, path, message):
        yield _map_part(chat, place, part)
        yield from cache_point(chat, place, getattr(part, "cache_control", ABSENT))


def _tool_result(chat: Chat, path: str, message: ToolMessage, own: dict[str, Any]) -> list[Any]:
    """A result holds no cache point: it stands after all of it."""
    said = list(_part_blocks(chat, path, message))
    content = [block for block in said if "cachePoint" not in block]
    points = [block for block in said if "cachePoint" in block]
    made: dict[str, Any] = {"toolUseId": message.tool_call_id, "content": content}
    return [{"toolResult": chat.merge(made, own, path)}, *points]


def _map_part(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    own = part.for_vendor("bedrock")
    match part:
        case TextPart():
            return own or {"text": part.text}
        case RefusalPart():
            return own or {"text": part.refusal}
        case ImagePart():
            return {"image": chat.merge(_image_block(chat, f"{path}.image_url.url", part.image_url.url), own, path)}
        case FilePart():
            return {"document": chat.merge(_document_block(chat, path, part), own, path)}
        case AudioPart():
            format = chat.map_value(f"{path}.input_audio.format", part.input_audio.format, AUDIO_FORMATS)
            return {"audio": chat.merge({"format": format, "source": {"bytes": part.input_audio.data}}, own, path)}


def _image_block(chat: Chat, path: str, url: str) -> dict[str, Any]:
    held = parse_data_url(url)
    if held and held.media_type in IMAGES:
        return {"format": IMAGES[held.media_type], "source": {"bytes": held.base64}}
    if url.startswith(S3) and _extension(url) in IMAGE_EXTENSIONS:
        return {"format": IMAGE_EXTENSIONS[_extension(url)], "source": {"s3Location": {"uri": url}}}
    raise chat.unsupported(path, "it must be data:<media type>;base64,… or s3://…, of a PNG, JPEG, GIF or WebP")


def _document_block(chat: Chat, path: str, part: FilePart) -> dict[str, Any]:
    url, filename = part.file.file_data or "", part.file.filename or ""
    held = parse_data_url(url)
    named = DOCUMENT_EXTENSIONS.get(_extension(filename) or _extension(url))
    format = DOCUMENTS.get(held.media_type, named) if held else named
    if format is None or not (held or url.startswith(S3)):
        kinds = ", ".join(DOCUMENT_EXTENSIONS)
        raise chat.unsupported(f"{path}.file.file_data", f"it must be data:<media type>;base64,… or s3://…, of {kinds}")
    source = {"bytes": held.base64} if held else {"s3Location": {"uri": url}}
    return {"format": format, "name": document_name_for(filename, path), "source": source}


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _map_tool_call(chat: Chat, path: str, call: ToolCall) -> dict[str, Any]:
    made = {"toolUseId": call.id, "name": call.function.name, "input": call_arguments(call)}
    return {"toolUse": chat.merge(made, call.for_vendor("bedrock"), path)}
