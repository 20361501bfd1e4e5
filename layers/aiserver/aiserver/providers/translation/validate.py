"""Judges each member of a request by what a vendor has words for."""

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from aiserver.providers.translation.capabilities import Refused
from aiserver.providers.translation.messages import (
    NOTHING,
    Assistant,
    Call,
    File,
    Image,
    Message,
    Own,
    Part,
    Refusal,
    Text,
    arguments,
    members,
)
from aiserver.providers.translation.nulls import is_absent
from aiserver.wire.upstream_body import VENDORS

if TYPE_CHECKING:
    from aiserver.providers.translation.chat import Chat

NOT_KNOWN = "it is no member of OpenAI's that is known here"


def judge(chat: "Chat") -> None:
    """Raises: InvalidRequest, for what the vendor has no words for, by its place."""
    for name, value in chat.given.items():
        if name not in VENDORS:
            _allow(chat, name, name, value)
    for i, message in enumerate(chat.messages):
        _judge_message(chat, f"messages[{i}]", message)
    for i, tool in enumerate(chat.tools):
        _judge_own(chat, f"tools[{i}]", tool)
        if not is_absent(tool.cache_control):
            _allow(chat, "tools[].cache_control", f"tools[{i}].cache_control")
        if tool.function.strict:
            _allow(chat, "tools[].function.strict", f"tools[{i}].function.strict")


def _judge_message(chat: "Chat", path: str, message: Message) -> None:
    _judge_own(chat, path, message)
    role = str(message.__struct_config__.tag)
    _allow(chat, f"messages[].role: {role}", f"{path}.role")
    if message.name:
        _allow(chat, "messages[].name", f"{path}.name")
    if isinstance(message, Assistant):
        for name in ("function_call", "audio"):
            if getattr(message, name) is not None:
                _allow(chat, f"messages[].{name}", f"{path}.{name}")
        for i, call in enumerate(message.tool_calls or ()):
            _judge_own(chat, f"{path}.tool_calls[{i}]", call)
            _judge_arguments(chat, f"{path}.tool_calls[{i}].function.arguments", call)
    if isinstance(message.content, list):
        for i, part in enumerate(message.content):
            _judge_part(chat, f"{path}.content[{i}]", role, part)


def _judge_part(chat: "Chat", path: str, role: str, part: Part) -> None:
    _judge_own(chat, path, part)
    kind = str(part.__struct_config__.tag)
    said_by = "" if role in ("system", "developer", "user") or isinstance(part, Text | Refusal) else f" ({role})"
    _allow(chat, f"messages[].content[].{kind}{said_by}", f"{path}.{kind}")
    if not is_absent(getattr(part, "cache_control", NOTHING)):
        _allow(chat, "messages[].content[].cache_control", f"{path}.cache_control")
    if isinstance(part, Image) and part.image_url.detail not in (None, "auto"):
        _allow(chat, "messages[].content[].image_url.detail", f"{path}.image_url.detail")
    if isinstance(part, File) and part.file.file_id:
        _allow(chat, "messages[].content[].file.file_id", f"{path}.file.file_id")


def _judge_own(chat: "Chat", path: str, given: Own) -> None:
    try:
        given.of(chat.words.member)
    except msgspec.ValidationError:
        raise chat.refusal(f"{path}.{chat.words.member}", "it must be an object") from None


def _allow(chat: "Chat", rule_path: str, path: str, value: Raw = NOTHING) -> None:
    rule = chat.words.rules.get(rule_path)
    if rule is None:
        raise chat.refusal(path, NOT_KNOWN + f"; what is {chat.words.vendor}'s own stands in '{chat.words.member}'")
    if isinstance(rule, Refused) and not any(_is_same(value, text) for text in rule.unless):
        raise chat.refusal(path, rule.words)


def _judge_arguments(chat: "Chat", path: str, call: Call) -> None:
    try:
        members(arguments(call))
    except msgspec.DecodeError:
        raise chat.refusal(path, "it must be the JSON text of an object") from None


def _is_same(value: Raw, text: str) -> bool:
    return bool(value) and msgspec.json.decode(value) == msgspec.json.decode(text)
