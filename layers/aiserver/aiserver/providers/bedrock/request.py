"""A chat as Converse is asked for it."""

import re
from typing import Any
from urllib.parse import quote

import msgspec

from aiserver.providers.bedrock.capabilities import TIERS
from aiserver.providers.bedrock.content import blocks, cache_point
from aiserver.providers.bedrock.document_names import make_distinct
from aiserver.providers.bedrock.models import FIELDS, is_claude, neutral, reason
from aiserver.providers.http import Asked
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.json_schemas import no_parameters, parameters, schema
from aiserver.providers.translation.messages import (
    Assistant,
    Chosen,
    JsonFormat,
    Members,
    SchemaFormat,
    Tool,
    ToolDefinition,
    held,
)
from aiserver.providers.translation.turns import check_choice, has_tools, put, systems, turns

EVENTS = "application/vnd.amazon.eventstream"
ERROR_TYPE = "x-amzn-errortype"  # where an error's type is told, and nowhere else
RELAYED_AS = {"x-amzn-requestid": "x-request-id", ERROR_TYPE: ERROR_TYPE}
MAX_METADATA = 16
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}", re.ASCII)


def request(chat: Chat) -> Asked:
    """Raises: InvalidRequest."""
    system = systems(chat, blocks)
    asked: dict[str, Any] = {"messages": turns(chat, blocks)} | ({"system": system} if system else {})
    make_distinct(asked["messages"])
    unsaid = neutral(chat)
    for path, value in chat.passed():
        if path not in unsaid:
            put(asked, path, value)
    if (temperature := chat.read("temperature", float)) and temperature > 1:
        raise chat.refusal("temperature", "it is at most 1")
    if chat.max_tokens is not None:
        put(asked, "inferenceConfig.maxTokens", chat.max_tokens)
    if chat.stop:
        put(asked, "inferenceConfig.stopSequences", chat.stop)
    _offer(chat, asked)
    _format(chat, asked)
    reason(chat, asked)
    if metadata := _metadata(chat):
        asked["requestMetadata"] = metadata
    tier = chat.read("service_tier", str)
    if tier and (type := chat.one_of("service_tier", tier, TIERS)):
        asked["serviceTier"] = {"type": type}
    whole = chat.merged(asked, chat.own)
    if _has_calls(chat) and "toolConfig" not in whole:
        raise chat.refusal("tools", "they must be named wherever messages hold calls or their results")
    # Escaped as AWS's own SDKs do it: a model's id may hold `:`, an ARN `/`.
    path = f"/model/{quote(chat.model, safe='')}/{'converse-stream' if chat.streams else 'converse'}"
    headers = {"content-type": "application/json"} | ({"accept": EVENTS} if chat.streams else {})
    return Asked("POST", path, None, msgspec.json.encode(whole), headers, relayed_as=RELAYED_AS)


def _has_calls(chat: Chat) -> bool:
    return any(isinstance(m, Tool) or (isinstance(m, Assistant) and m.tool_calls) for m in chat.messages)


def _offer(chat: Chat, asked: dict[str, Any]) -> None:
    """The tools, and whether they must be called; there is no word for that they must not be.

    https://github.com/boto/boto3/issues/4687
    """
    tools = [block for i, tool in enumerate(chat.tools) for block in _tool(chat, f"tools[{i}]", tool)]
    if not has_tools(chat, _own_config(chat)):
        check_choice(chat)
        return
    if chat.choice == "none":
        if "toolConfig" in chat.own or _has_calls(chat):
            raise chat.refusal("tool_choice", "'none' cannot be said beside tools that must be named")
        return
    config: dict[str, Any] = {"tools": tools} if tools else {}
    asked["toolConfig"] = config
    if chat.one_call and is_claude(chat.model):
        put(asked, f"{FIELDS}.tool_choice", _one_at_a_time(chat))
    elif isinstance(chat.choice, Chosen):
        config["toolChoice"] = {"tool": {"name": chat.choice.function.name}}
    elif chat.choice is not None:
        config["toolChoice"] = {"any" if chat.choice == "required" else "auto": {}}


def _own_config(chat: Chat) -> Members:
    try:
        return held(chat.own, "toolConfig")
    except msgspec.ValidationError:
        raise chat.refusal("bedrock.toolConfig", "it must be an object") from None


def _one_at_a_time(chat: Chat) -> dict[str, Any]:
    """All of the choice in Claude's own words, for it may be told in one place only.

    https://github.com/BerriAI/litellm/pull/34347 https://github.com/BerriAI/litellm/issues/36536
    """
    match chat.choice:
        case Chosen():
            choice = {"type": "tool", "name": chat.choice.function.name}
        case "required":
            choice = {"type": "any"}
        case _:
            choice = {"type": "auto"}
    return choice | {"disable_parallel_tool_use": True}


def _tool(chat: Chat, path: str, tool: ToolDefinition) -> list[dict[str, Any]]:
    told: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        told["description"] = tool.function.description
    told["inputSchema"] = {"json": parameters(chat, path, tool) or no_parameters()}
    if tool.function.strict:
        told["strict"] = True
    return [{"toolSpec": chat.merged(told, tool.of("bedrock"), path)}, *cache_point(chat, path, tool.cache_control)]


def _format(chat: Chat, asked: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html"""
    if isinstance(chat.format, JsonFormat):
        raise chat.refusal("response_format.type", "it writes JSON by a schema only: use json_schema")
    if isinstance(chat.format, SchemaFormat):
        told = chat.format.json_schema
        described = {"description": told.description} if told.description else {}
        text = msgspec.json.encode(schema(chat, chat.format)).decode()
        named = {"schema": text, "name": told.name, **described}
        put(asked, "outputConfig.textFormat", {"type": "json_schema", "structure": {"jsonSchema": named}})


def _metadata(chat: Chat) -> dict[str, str]:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_RequestBody"""
    metadata: dict[str, str] = chat.read("metadata", dict[str, str]) or {}
    for name in ("user", "safety_identifier"):
        if (said := chat.read(name, str)) is not None:
            if metadata.get(name, said) != said:
                raise chat.refusal(f"metadata.{name}", f"'{name}' says something else")
            metadata[name] = said
    for name, said in metadata.items():
        if not name or not _METADATA.fullmatch(name) or not _METADATA.fullmatch(said):
            path = name if name in ("user", "safety_identifier") else f"metadata.{name}"
            raise chat.refusal(path, "it is at most 256 letters, digits, spaces and : _ @ $ # = / + , . -")
    if len(metadata) > MAX_METADATA:
        raise chat.refusal("metadata", f"it is at most {MAX_METADATA}, with 'user' and 'safety_identifier'")
    return metadata
