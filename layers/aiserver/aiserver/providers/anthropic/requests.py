"""A chat as Anthropic is asked for it."""

import base64
import binascii
import re
from typing import Any

import msgspec

from aiserver.providers.anthropic.words import (
    BUDGETS,
    BY_BUDGET,
    EFFORTS,
    MAX_TOKENS,
    MIN_BUDGET,
    OLDER_MAX_TOKENS,
)
from aiserver.providers.exchange import Asked
from aiserver.providers.translation.chat import Chat, put, schema
from aiserver.providers.translation.messages import (
    Assistant,
    Audio,
    Call,
    Chosen,
    File,
    Image,
    JsonFormat,
    Message,
    Part,
    Refusal,
    SchemaFormat,
    System,
    Text,
    Tool,
    ToolDefinition,
    arguments,
    spoken,
)

PATH = "/v1/messages"
MODELS_PATH = "/v1/models?limit=1000"
VERSION = "2026-10-21"  # https://platform.claude.com/docs/en/api/versioning
SAMPLING_VERSION = "2023-06-01"  # the last that takes temperature, top_p and top_k
SAMPLING = ("temperature", "top_p", "top_k")
RELAYED_AS = {
    "request-id": "x-request-id",
    "anthropic-ratelimit-requests-limit": "x-ratelimit-limit-requests",
    "anthropic-ratelimit-requests-remaining": "x-ratelimit-remaining-requests",
    "anthropic-ratelimit-tokens-limit": "x-ratelimit-limit-tokens",
    "anthropic-ratelimit-tokens-remaining": "x-ratelimit-remaining-tokens",
}
TIERS = {"auto": "auto", "default": "standard_only"}
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
_DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,(.*)", re.DOTALL)
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def request(chat: Chat) -> Asked:
    """Raises: InvalidRequest."""
    asked: dict[str, Any] = {}
    for path, value in chat.passed():
        put(asked, path, value)
    asked["max_tokens"] = chat.max_tokens or _max_tokens(chat.model)
    if system := _system(chat):
        asked["system"] = system
    asked["messages"] = _messages(chat)
    if chat.tools:
        asked["tools"] = [_tool(tool) for tool in chat.tools]
    if choice := _choice(chat):
        asked["tool_choice"] = choice
    if chat.stop:
        asked["stop_sequences"] = chat.stop
    if user := chat.either("safety_identifier", "user"):
        asked["metadata"] = {"user_id": user}
    if tier := chat.read("service_tier", str):
        asked["service_tier"] = chat.one_of("service_tier", tier, TIERS)
    _format(chat, asked)
    _reason(chat, asked)
    if (temperature := chat.read("temperature", float)) and temperature > 1:
        raise chat.refusal("temperature", "it is at most 1")
    own = dict(chat.own)
    headers = {"content-type": "application/json"}
    if betas := chat.read_own(own, "betas", list[str]):
        headers["anthropic-beta"] = ",".join(betas)
    whole = chat.merged(asked, own)
    headers["anthropic-version"] = SAMPLING_VERSION if any(name in whole for name in SAMPLING) else VERSION
    return Asked("POST", PATH, None, msgspec.json.encode(whole), headers, relayed_as=RELAYED_AS)


def models(after: str | None) -> Asked:
    path = MODELS_PATH + (f"&after_id={after}" if after else "")
    return Asked("GET", path, None, headers={"anthropic-version": VERSION})


def _max_tokens(model: str) -> int:
    return next((most for name, most in OLDER_MAX_TOKENS.items() if model.startswith(name)), MAX_TOKENS)


def _system(chat: Chat) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for i, message in enumerate(chat.messages):
        if isinstance(message, System):
            chat.nothing_left(message.of("anthropic"), f"messages[{i}]")
            told += [_text(part) for part in spoken(message)]
    return told


def _messages(chat: Chat) -> list[dict[str, Any]]:
    """The turns of user and assistant, each role's in a row as one: results of calls must stand together."""
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(chat.messages):
        if isinstance(message, System):
            continue
        role = "assistant" if isinstance(message, Assistant) else "user"
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": []})
        turns[-1]["content"] += _blocks(chat, f"messages[{i}]", message)
    return turns


def _blocks(chat: Chat, path: str, message: Message) -> list[Any]:
    own = message.of("anthropic")
    if isinstance(message, Assistant):
        as_said = chat.read_own(own, "content", list[msgspec.Raw], path)
        chat.nothing_left(own, path)
        if as_said is not None:
            return as_said
    blocks = [_block(chat, f"{path}.content[{i}]", part) for i, part in enumerate(spoken(message))]
    if isinstance(message, Assistant):
        return blocks + [_call(call) for call in message.tool_calls or ()]
    if isinstance(message, Tool):
        content = message.content if isinstance(message.content, str) else blocks
        return [{"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": content} | own]
    chat.nothing_left(own, path)
    return blocks


def _block(chat: Chat, path: str, part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return _text(part)
        case Refusal():
            return {"type": "text", "text": part.refusal} | part.of("anthropic")
        case Image():
            source = _image(chat, f"{path}.image_url.url", part.image_url.url)
            return _cached(part) | {"type": "image", "source": source} | part.of("anthropic")
        case File():
            title = {"title": part.file.filename} if part.file.filename else {}
            source = _document(chat, f"{path}.file.file_data", part.file.file_data or "")
            return _cached(part) | {"type": "document", "source": source} | title | part.of("anthropic")
        case Audio():
            raise chat.refusal(path)


def _text(part: Text) -> dict[str, Any]:
    return _cached(part) | {"type": "text", "text": part.text} | part.of("anthropic")


def _cached(part: Text | Image | File | ToolDefinition) -> dict[str, Any]:
    return {"cache_control": part.cache_control} if part.cache_control else {}


def _image(chat: Chat, path: str, url: str) -> dict[str, Any]:
    if data := _DATA_URL.fullmatch(url):
        return {"type": "base64", "media_type": data[1], "data": data[2]}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.refusal(path, "it must be an https URL, or data:<media type>;base64,…")


def _document(chat: Chat, path: str, url: str) -> dict[str, Any]:
    data = _DATA_URL.fullmatch(url)
    if data and data[1] == "application/pdf":
        return {"type": "base64", "media_type": data[1], "data": data[2]}
    if data and data[1] == "text/plain":
        try:
            text = base64.b64decode(data[2], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise chat.refusal(path, "it is no text in base64") from None
        return {"type": "text", "media_type": data[1], "data": text}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise chat.refusal(path, "it must be a PDF or plain text, as data:<media type>;base64,…, or an https URL")


def _call(call: Call) -> dict[str, Any]:
    made = {"type": "tool_use", "id": _id(call.id), "name": call.function.name, "input": arguments(call)}
    return made | call.of("anthropic")


def _id(id: str) -> str:
    """An id of another vendor's may hold what one of Anthropic's must not."""
    return _NOT_IN_AN_ID.sub("_", id)


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        told["description"] = tool.function.description
    told["input_schema"] = tool.function.parameters or NO_PARAMETERS
    if tool.function.strict:
        told["strict"] = True
    return told | _cached(tool) | tool.of("anthropic")


def _choice(chat: Chat) -> dict[str, Any] | None:
    match chat.choice:
        case Chosen():
            choice: dict[str, Any] = {"type": "tool", "name": chat.choice.function.name}
        case None:
            choice = {"type": "auto"} if chat.one_call and chat.tools else {}
        case word:
            choice = {"type": {"required": "any"}.get(word, word)}
    if chat.one_call and choice.get("type") not in (None, "none"):
        choice["disable_parallel_tool_use"] = True
    return choice or None


def _format(chat: Chat, asked: dict[str, Any]) -> None:
    if isinstance(chat.format, JsonFormat):
        raise chat.refusal("response_format.type", "it writes JSON by a schema only: use json_schema")
    if isinstance(chat.format, SchemaFormat):
        put(asked, "output_config.format", {"type": "json_schema", "schema": schema(chat, chat.format)})


def _reason(chat: Chat, asked: dict[str, Any]) -> None:
    effort = chat.read("reasoning_effort", str)
    if effort is None:
        return
    if effort == "none":
        asked["thinking"] = {"type": "disabled"}
    elif not chat.model.startswith(BY_BUDGET):
        asked["thinking"] = {"type": "adaptive", "display": "summarized"}
        put(asked, "output_config.effort", chat.one_of("reasoning_effort", effort, EFFORTS))
    else:
        budget = min(chat.one_of("reasoning_effort", effort, BUDGETS), asked["max_tokens"] - 1)
        if budget < MIN_BUDGET:
            raise chat.refusal(
                "reasoning_effort", f"this model reasons where it may write more than {MIN_BUDGET} tokens"
            )
        asked["thinking"] = {"type": "enabled", "budget_tokens": budget}
