"""The turns of a chat as Gemini reads them.

Source: https://ai.google.dev/api/caching#Content
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from aiserver.providers.google.capabilities import AUDIO_TYPES, DETAILS, MEDIA_TYPES, NO_SIGNATURE
from aiserver.providers.google.models import is_before_3, needs_signatures
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    call_arguments,
    decode_members,
)
from aiserver.providers.translation.turns import NO_USER_MESSAGE, content_parts, parse_data_url, system_blocks

Parts = list[dict[str, Any]]
_FETCHABLE_SCHEMES = ("https://", "gs://")


def system_parts(chat: Chat) -> Parts:
    """What the system and the developer say."""
    return system_blocks(chat, _user_parts)


def map_contents(chat: Chat) -> Parts:
    """The turns, those of one kind after each other as one: what one call of several brought must stand together.

    What tools answered stands in a turn of its own: with words beside it some models take it for what they said.
    https://github.com/pydantic/pydantic-ai/issues/4210
    """
    turns: Parts = []
    last: type[Message] | None = None
    for i, message in enumerate(chat.messages):
        parts = [] if isinstance(message, SystemMessage) else _message_parts(chat, f"messages[{i}]", message)
        if not parts:
            continue
        if last is not type(message):
            turns.append({"role": "model" if isinstance(message, AssistantMessage) else "user", "parts": []})
        turns[-1]["parts"] += parts
        last = type(message)
    if not turns:
        raise chat.unsupported("messages", NO_USER_MESSAGE)
    return turns


def _message_parts(chat: Chat, path: str, message: Message) -> Parts:
    if isinstance(message, ToolMessage):
        return [_tool_response(chat, path, message)]
    if not isinstance(message, AssistantMessage):
        return _user_parts(chat, path, message)
    own = message.for_vendor("google")
    parts: Parts | None = chat.take_extension(own, "parts", list[dict[str, Raw]], path)
    chat.reject_extensions(own, path)
    if parts is None:
        calls = [
            _map_tool_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(message.tool_calls or ())
        ]
        parts = _content_parts(chat, path, message) + calls
    return _with_signature(parts) if needs_signatures(chat.model) else parts


def _user_parts(chat: Chat, path: str, message: Message) -> Parts:
    chat.reject_extensions(message.for_vendor("google"), path)
    return _content_parts(chat, path, message)


def _content_parts(chat: Chat, path: str, message: Message) -> Parts:
    parts = [_map_part(chat, place, part) for place, part in content_parts(chat, path, message)]
    return [part for part in parts if part != {"text": ""}]


def _map_part(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            made: dict[str, Any] = {"text": part.text}
        case RefusalPart():
            made = {"text": part.refusal}
        case ImagePart():
            made = _media_part(chat, f"{path}.image_url.url", part.image_url.url)
            if (detail := part.image_url.detail) not in (None, "auto"):
                made["mediaResolution"] = {"level": _media_resolution(chat, f"{path}.image_url.detail", detail)}
        case FilePart():
            made = _media_part(chat, f"{path}.file.file_data", part.file.file_data or "")
        case AudioPart():
            mime_type = chat.map_value(f"{path}.input_audio.format", part.input_audio.format, AUDIO_TYPES)
            made = {"inlineData": {"mimeType": mime_type, "data": part.input_audio.data}}
    return chat.merge(made, part.for_vendor("google"), path)


def _media_part(chat: Chat, path: str, url: str) -> dict[str, Any]:
    """https://ai.google.dev/gemini-api/docs/file-input-methods"""
    if held := parse_data_url(url):
        return {"inlineData": {"mimeType": held.media_type, "data": held.base64}}
    if not url.startswith(_FETCHABLE_SCHEMES):
        raise chat.unsupported(path, "it must be an https or gs URL, or data:<media type>;base64,…")
    mime_type = MEDIA_TYPES.get(urlsplit(url).path.rpartition(".")[2].lower())
    return {"fileData": ({"mimeType": mime_type} if mime_type else {}) | {"fileUri": url}}


def _media_resolution(chat: Chat, path: str, detail: str) -> str:
    if is_before_3(chat.model):
        raise chat.unsupported(path, "this model looks at all in one way: `google.generationConfig.mediaResolution`")
    return chat.map_value(path, detail, DETAILS)


def _map_tool_call(chat: Chat, path: str, call: ToolCall) -> dict[str, Any]:
    made = {"id": call.id, "name": call.function.name, "args": call_arguments(call)}
    return chat.merge({"functionCall": made}, call.for_vendor("google"), path)


def _with_signature(parts: Parts) -> Parts:
    """The parts, whose first call has a signature; those beside it need none."""
    first = next((i for i, part in enumerate(parts) if "functionCall" in part), None)
    if first is None or "thoughtSignature" in parts[first]:
        return parts
    return [*parts[:first], parts[first] | {"thoughtSignature": NO_SIGNATURE}, *parts[first + 1 :]]


def _tool_response(chat: Chat, path: str, message: ToolMessage) -> dict[str, Any]:
    if not message.name:
        raise chat.unsupported(f"{path}.tool_call_id", "no call before it has this id, and it has no name")
    parts = _content_parts(chat, path, message)
    text = "".join(part.pop("text") for part in parts if "text" in part)
    made = {"id": message.tool_call_id, "name": message.name, "response": _response_object(text)}
    if more := [part for part in parts if part]:
        made["parts"] = more
    return {"functionResponse": chat.merge(made, message.for_vendor("google"), path)}


def _response_object(text: str) -> Any:
    """What a tool brought, as the object that it must be."""
    try:
        decode_members(text)
    except (msgspec.DecodeError, RecursionError):
        return {"output": text}
    return Raw(text.encode())
