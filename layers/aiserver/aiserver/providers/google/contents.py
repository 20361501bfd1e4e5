"""The turns of a chat as Gemini reads them.

Source: https://ai.google.dev/api/caching#Content
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from aiserver.providers.google.capabilities import DETAILS, MEDIA, NO_SIGNATURE, SOUNDS
from aiserver.providers.google.models import is_before_3, needs_signatures
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
    System,
    Text,
    Tool,
    arguments,
    members,
)
from aiserver.providers.translation.turns import NOBODY, data, spoken, systems

Parts = list[dict[str, Any]]
_FETCHED = ("https://", "gs://")


def instruction(chat: Chat) -> Parts:
    """What the system and the developer say."""
    return systems(chat, _parts)


def contents(chat: Chat) -> Parts:
    """The turns, those of one kind after each other as one: what one call of several brought must stand together.

    What tools answered stands in a turn of its own: with words beside it some models take it for what they said.
    https://github.com/pydantic/pydantic-ai/issues/4210
    """
    turns: Parts = []
    last: type[Message] | None = None
    for i, message in enumerate(chat.messages):
        parts = [] if isinstance(message, System) else _turn(chat, f"messages[{i}]", message)
        if not parts:
            continue
        if last is not type(message):
            turns.append({"role": "model" if isinstance(message, Assistant) else "user", "parts": []})
        turns[-1]["parts"] += parts
        last = type(message)
    if not turns:
        raise chat.refusal("messages", NOBODY)
    return turns


def _turn(chat: Chat, path: str, message: Message) -> Parts:
    if isinstance(message, Tool):
        return [_result(chat, path, message)]
    if not isinstance(message, Assistant):
        return _parts(chat, path, message)
    own = message.of("google")
    parts: Parts | None = chat.read_own(own, "parts", list[dict[str, Raw]], path)
    chat.nothing_left(own, path)
    if parts is None:
        calls = [_call(chat, f"{path}.tool_calls[{i}]", call) for i, call in enumerate(message.tool_calls or ())]
        parts = _said(chat, path, message) + calls
    return _signed(parts) if needs_signatures(chat.model) else parts


def _parts(chat: Chat, path: str, message: Message) -> Parts:
    chat.nothing_left(message.of("google"), path)
    return _said(chat, path, message)


def _said(chat: Chat, path: str, message: Message) -> Parts:
    parts = [_part(chat, place, part) for place, part in spoken(chat, path, message)]
    return [part for part in parts if part != {"text": ""}]


def _part(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    match part:
        case Text():
            made: dict[str, Any] = {"text": part.text}
        case Refusal():
            made = {"text": part.refusal}
        case Image():
            made = _media(chat, f"{path}.image_url.url", part.image_url.url)
            if (detail := part.image_url.detail) not in (None, "auto"):
                made["mediaResolution"] = {"level": _level(chat, f"{path}.image_url.detail", detail)}
        case File():
            made = _media(chat, f"{path}.file.file_data", part.file.file_data or "")
        case Audio():
            mime_type = chat.one_of(f"{path}.input_audio.format", part.input_audio.format, SOUNDS)
            made = {"inlineData": {"mimeType": mime_type, "data": part.input_audio.data}}
    return chat.merged(made, part.of("google"), path)


def _media(chat: Chat, path: str, url: str) -> dict[str, Any]:
    """https://ai.google.dev/gemini-api/docs/file-input-methods"""
    if held := data(url):
        return {"inlineData": {"mimeType": held.media_type, "data": held.base64}}
    if not url.startswith(_FETCHED):
        raise chat.refusal(path, "it must be an https or gs URL, or data:<media type>;base64,…")
    mime_type = MEDIA.get(urlsplit(url).path.rpartition(".")[2].lower())
    return {"fileData": ({"mimeType": mime_type} if mime_type else {}) | {"fileUri": url}}


def _level(chat: Chat, path: str, detail: str) -> str:
    if is_before_3(chat.model):
        raise chat.refusal(path, "this model looks at all in one way: `google.generationConfig.mediaResolution`")
    return chat.one_of(path, detail, DETAILS)


def _call(chat: Chat, path: str, call: Call) -> dict[str, Any]:
    made = {"id": call.id, "name": call.function.name, "args": arguments(call)}
    return chat.merged({"functionCall": made}, call.of("google"), path)


def _signed(parts: Parts) -> Parts:
    """The parts, whose first call has a signature; those beside it need none."""
    first = next((i for i, part in enumerate(parts) if "functionCall" in part), None)
    if first is None or "thoughtSignature" in parts[first]:
        return parts
    return [*parts[:first], parts[first] | {"thoughtSignature": NO_SIGNATURE}, *parts[first + 1 :]]


def _result(chat: Chat, path: str, message: Tool) -> dict[str, Any]:
    if not message.name:
        raise chat.refusal(f"{path}.tool_call_id", "no call before it has this id, and it has no name")
    parts = _said(chat, path, message)
    text = "".join(part.pop("text") for part in parts if "text" in part)
    made = {"id": message.tool_call_id, "name": message.name, "response": _response(text)}
    if more := [part for part in parts if part]:
        made["parts"] = more
    return {"functionResponse": chat.merged(made, message.of("google"), path)}


def _response(text: str) -> Any:
    """What a tool brought, as the object that it must be."""
    try:
        members(text)
    except (msgspec.DecodeError, RecursionError):
        return {"output": text}
    return Raw(text.encode())
