"""The parts of a message as Converse's content blocks.

A block is a union of one member: what a part has of `bedrock` goes into that member, and stands for a text as a whole.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Raw

from aiserver.providers.bedrock.document_names import name
from aiserver.providers.bedrock.history import again
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
    NOTHING,
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
    arguments,
)
from aiserver.providers.translation.nulls import is_absent
from aiserver.providers.translation.turns import data, spoken

IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
IMAGE_ENDINGS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "gif": "gif", "webp": "webp"}
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
DOCUMENT_ENDINGS = {ending: ending for ending in DOCUMENTS.values()}
SOUNDS = {
    ending: ending
    for ending in (
        *("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg"),
        *("mkv", "mka", "m4a", "mpeg", "mpga", "pcm", "webm"),
    )
}
S3 = "s3://"


class _Cached(msgspec.Struct, forbid_unknown_fields=True):
    """Anthropic's word for it, which other vendors' clients send, too."""

    type: Literal["ephemeral"]
    ttl: str | None = None


def blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    """What a message says. Raises: InvalidRequest."""
    own = message.of("bedrock")
    if isinstance(message, Tool):
        return _result(chat, path, message, own)
    content: list[Raw] | None = chat.read_own(own, "content", list[Raw], path)
    chat.nothing_left(own, path)
    calls = (message.tool_calls or ()) if isinstance(message, Assistant) else ()
    if content is not None:
        return again(content, calls)
    said = _said(chat, path, message)
    return [*said, *(_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(calls))]


def cache_point(chat: Chat, path: str, cache_control: Raw) -> list[dict[str, Any]]:
    """What stands after that which is to be cached, if it is. Raises: InvalidRequest."""
    if is_absent(cache_control):
        return []
    try:
        cached = msgspec.json.decode(cache_control, type=_Cached | None)
    except msgspec.ValidationError:
        raise chat.refusal(f"{path}.cache_control", 'it is {"type": "ephemeral"}, with a \'ttl\'') from None
    return [{"cachePoint": {"type": "default"} | ({"ttl": cached.ttl} if cached.ttl else {})}] if cached else []


def _said(chat: Chat, path: str, message: Message) -> Iterator[dict[str, Any]]:
    """No text may be blank. https://github.com/NousResearch/hermes-agent/pull/55093"""
    for place, part in spoken(chat, path, message):
        yield _block(chat, place, part)
        yield from cache_point(chat, place, getattr(part, "cache_control", NOTHING))


def _result(chat: Chat, path: str, message: Tool, own: dict[str, Any]) -> list[Any]:
    """A result holds no cache point: it stands after all of it."""
    said = list(_said(chat, path, message))
    content = [block for block in said if "cachePoint" not in block]
    points = [block for block in said if "cachePoint" in block]
    made: dict[str, Any] = {"toolUseId": message.tool_call_id, "content": content}
    return [{"toolResult": chat.merged(made, own, path)}, *points]


def _block(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    own = part.of("bedrock")
    match part:
        case Text():
            return own or {"text": part.text}
        case Refusal():
            return own or {"text": part.refusal}
        case Image():
            return {"image": chat.merged(_image(chat, f"{path}.image_url.url", part.image_url.url), own, path)}
        case File():
            return {"document": chat.merged(_document(chat, path, part), own, path)}
        case Audio():
            format = chat.one_of(f"{path}.input_audio.format", part.input_audio.format, SOUNDS)
            return {"audio": chat.merged({"format": format, "source": {"bytes": part.input_audio.data}}, own, path)}


def _image(chat: Chat, path: str, url: str) -> dict[str, Any]:
    held = data(url)
    if held and held.media_type in IMAGES:
        return {"format": IMAGES[held.media_type], "source": {"bytes": held.base64}}
    if url.startswith(S3) and _ending(url) in IMAGE_ENDINGS:
        return {"format": IMAGE_ENDINGS[_ending(url)], "source": {"s3Location": {"uri": url}}}
    raise chat.refusal(path, "it must be data:<media type>;base64,… or s3://…, of a PNG, JPEG, GIF or WebP")


def _document(chat: Chat, path: str, part: File) -> dict[str, Any]:
    url, filename = part.file.file_data or "", part.file.filename or ""
    held = data(url)
    named = DOCUMENT_ENDINGS.get(_ending(filename) or _ending(url))
    format = DOCUMENTS.get(held.media_type, named) if held else named
    if format is None or not (held or url.startswith(S3)):
        kinds = ", ".join(DOCUMENT_ENDINGS)
        raise chat.refusal(f"{path}.file.file_data", f"it must be data:<media type>;base64,… or s3://…, of {kinds}")
    source = {"bytes": held.base64} if held else {"s3Location": {"uri": url}}
    return {"format": format, "name": name(filename, path), "source": source}


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _call(chat: Chat, path: str, call: Call) -> dict[str, Any]:
    made = {"toolUseId": call.id, "name": call.function.name, "input": arguments(call)}
    return {"toolUse": chat.merged(made, call.of("bedrock"), path)}
