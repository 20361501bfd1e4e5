"""Maps messages to Gemini's contents.

Source: https://ai.google.dev/api/caching#Content
"""

from typing import Any
from urllib.parse import urlsplit

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
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    call_arguments,
    decode_members,
)
from aiserver.providers.adapters.base.turns import NO_USER_MESSAGE, content_parts, parse_data_url, system_blocks
from aiserver.providers.adapters.google.capabilities import (
    AUDIO_TYPES,
    MEDIA_RESOLUTIONS,
    MEDIA_TYPES,
    PLACEHOLDER_SIGNATURE,
)
from aiserver.providers.adapters.google.models import is_before_3, needs_signatures

Parts = list[dict[str, Any]]
_FETCHABLE_SCHEMES = ("https://", "gs://")


def system_parts(chat: Chat) -> Parts:
    """The parts of the system and developer messages."""
    return system_blocks(chat, _user_parts)


def map_contents(chat: Chat) -> Parts:
    """The contents; consecutive messages of one kind are merged, since the results of parallel calls must be together.

    Tool results are a content of their own: some models take results next to text for their own output.
    https://github.com/pydantic/pydantic-ai/issues/4210
    """
    turns: Parts = []
    last_type: type[Message] | None = None
    for i, message in enumerate(chat.messages):
        parts = [] if isinstance(message, SystemMessage) else _message_parts(chat, f"messages[{i}]", message)
        if not parts:
            continue
        if last_type is not type(message):
            turns.append({"role": "model" if isinstance(message, AssistantMessage) else "user", "parts": []})
        turns[-1]["parts"] += parts
        last_type = type(message)
    if not turns:
        raise chat.invalid("messages", NO_USER_MESSAGE)
    return turns


def _message_parts(chat: Chat, path: str, message: Message) -> Parts:
    if isinstance(message, ToolMessage):
        return [_tool_response(chat, path, message)]
    if not isinstance(message, AssistantMessage):
        return _user_parts(chat, path, message)
    extensions = message.for_vendor("google")
    parts: Parts | None = chat.take_extension(extensions, "parts", list[dict[str, Raw]], path)
    chat.reject_extensions(extensions, path)
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
    parts = [_map_part(chat, part_path, part) for part_path, part in content_parts(chat, path, message)]
    return [part for part in parts if part != {"text": ""}]


def _map_part(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            mapped: dict[str, Any] = {"text": part.text}
        case RefusalPart():
            mapped = {"text": part.refusal}
        case ImagePart():
            mapped = _media_part(chat, f"{path}.image_url.url", part.image_url.url)
            if (detail := part.image_url.detail) not in (None, "auto"):
                mapped["mediaResolution"] = {"level": _media_resolution(chat, f"{path}.image_url.detail", detail)}
        case FilePart():
            mapped = _media_part(chat, f"{path}.file.file_data", part.file.file_data or "")
        case AudioPart():
            mime_type = chat.map_value(f"{path}.input_audio.format", part.input_audio.format, AUDIO_TYPES)
            mapped = {"inlineData": {"mimeType": mime_type, "data": part.input_audio.data}}
    return chat.merge(mapped, part.for_vendor("google"), path)


def _media_part(chat: Chat, path: str, url: str) -> dict[str, Any]:
    """https://ai.google.dev/gemini-api/docs/file-input-methods"""
    if data_url := parse_data_url(url):
        return {"inlineData": {"mimeType": data_url.media_type, "data": data_url.base64}}
    if not url.startswith(_FETCHABLE_SCHEMES):
        raise chat.invalid(path, "must be an https or gs URL, or data:<media type>;base64,…")
    mime_type = MEDIA_TYPES.get(urlsplit(url).path.rpartition(".")[2].lower())
    return {"fileData": ({"mimeType": mime_type} if mime_type else {}) | {"fileUri": url}}


def _media_resolution(chat: Chat, path: str, detail: str) -> str:
    if is_before_3(chat.model):
        reason = "this model has one resolution for all media: set 'google.generationConfig.mediaResolution'"
        raise chat.unsupported(path, reason)
    return chat.map_value(path, detail, MEDIA_RESOLUTIONS)


def _map_tool_call(chat: Chat, path: str, call: ToolCall) -> dict[str, Any]:
    call_part = {"id": call.id, "name": call.function.name, "args": call_arguments(call)}
    return chat.merge({"functionCall": call_part}, call.for_vendor("google"), path)


def _with_signature(parts: Parts) -> Parts:
    """The parts, with a signature at the first tool call; parallel calls need none."""
    first = next((i for i, part in enumerate(parts) if "functionCall" in part), None)
    if first is None or "thoughtSignature" in parts[first]:
        return parts
    return [*parts[:first], parts[first] | {"thoughtSignature": PLACEHOLDER_SIGNATURE}, *parts[first + 1 :]]


def _tool_response(chat: Chat, path: str, message: ToolMessage) -> dict[str, Any]:
    if not message.name:
        constraint, reason = "must be the id of a preceding tool call", "the message has no 'name'"
        raise chat.invalid(f"{path}.tool_call_id", constraint, reason)
    parts = _content_parts(chat, path, message)
    text = "".join(part.pop("text") for part in parts if "text" in part)
    response = {"id": message.tool_call_id, "name": message.name, "response": _response_object(text)}
    if media_parts := [part for part in parts if part]:
        response["parts"] = media_parts
    return {"functionResponse": chat.merge(response, message.for_vendor("google"), path)}


def _response_object(text: str) -> Any:
    """The tool result as an object; text that is not a JSON object becomes `output`."""
    try:
        decode_members(text)
    except (msgspec.DecodeError, RecursionError):
        return {"output": text}
    return Raw(text.encode())
