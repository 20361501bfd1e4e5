"""A chat as Converse is asked for it."""

import re
from typing import Any
from urllib.parse import quote

import msgspec

from aiserver.providers.bedrock.capabilities import TIERS
from aiserver.providers.bedrock.content import cache_point, content_blocks
from aiserver.providers.bedrock.document_names import make_names_unique
from aiserver.providers.bedrock.models import FIELDS, is_claude, params_to_omit, set_reasoning
from aiserver.providers.http import ProviderRequest
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.json_schemas import empty_parameters, response_schema, tool_parameters
from aiserver.providers.translation.messages import (
    AssistantMessage,
    JsonFormat,
    Members,
    SchemaFormat,
    ToolChoice,
    ToolDefinition,
    ToolMessage,
    member_object,
)
from aiserver.providers.translation.turns import check_tool_choice, has_tools, merge_turns, set_path, system_blocks

EVENT_STREAM_TYPE = "application/vnd.amazon.eventstream"
ERROR_TYPE_HEADER = "x-amzn-errortype"  # where an error's type is told, and nowhere else
RELAYED_HEADERS = {"x-amzn-requestid": "x-request-id", ERROR_TYPE_HEADER: ERROR_TYPE_HEADER}
MAX_METADATA = 16
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}", re.ASCII)


def build_request(chat: Chat) -> ProviderRequest:
    """Raises: InvalidRequest."""
    system = system_blocks(chat, content_blocks)
    asked: dict[str, Any] = {"messages": merge_turns(chat, content_blocks)} | ({"system": system} if system else {})
    make_names_unique(asked["messages"])
    unsaid = params_to_omit(chat)
    for path, value in chat.pass_through():
        if path not in unsaid:
            set_path(asked, path, value)
    if (temperature := chat.get_typed("temperature", float)) and temperature > 1:
        raise chat.unsupported("temperature", "it is at most 1")
    if chat.max_tokens is not None:
        set_path(asked, "inferenceConfig.maxTokens", chat.max_tokens)
    if chat.stop:
        set_path(asked, "inferenceConfig.stopSequences", chat.stop)
    _map_tools(chat, asked)
    _map_response_format(chat, asked)
    set_reasoning(chat, asked)
    if metadata := _map_metadata(chat):
        asked["requestMetadata"] = metadata
    tier = chat.get_typed("service_tier", str)
    if tier and (type := chat.map_value("service_tier", tier, TIERS)):
        asked["serviceTier"] = {"type": type}
    whole = chat.merge(asked, chat.extensions)
    if _has_calls(chat) and "toolConfig" not in whole:
        raise chat.unsupported("tools", "they must be named wherever messages hold calls or their results")
    # Escaped as AWS's own SDKs do it: a model's id may hold `:`, an ARN `/`.
    path = f"/model/{quote(chat.model, safe='')}/{'converse-stream' if chat.stream else 'converse'}"
    headers = {"content-type": "application/json"} | ({"accept": EVENT_STREAM_TYPE} if chat.stream else {})
    return ProviderRequest("POST", path, None, msgspec.json.encode(whole), headers, relayed_headers=RELAYED_HEADERS)


def _has_calls(chat: Chat) -> bool:
    return any(isinstance(m, ToolMessage) or (isinstance(m, AssistantMessage) and m.tool_calls) for m in chat.messages)


def _map_tools(chat: Chat, asked: dict[str, Any]) -> None:
    """The tools, and whether they must be called; there is no word for that they must not be.

    https://github.com/boto/boto3/issues/4687
    """
    tools = [block for i, tool in enumerate(chat.tools) for block in _map_tool(chat, f"tools[{i}]", tool)]
    if not has_tools(chat, _extension_tool_config(chat)):
        check_tool_choice(chat)
        return
    if chat.tool_choice == "none":
        if "toolConfig" in chat.extensions or _has_calls(chat):
            raise chat.unsupported("tool_choice", "'none' cannot be said beside tools that must be named")
        return
    config: dict[str, Any] = {"tools": tools} if tools else {}
    asked["toolConfig"] = config
    if chat.single_tool_call and is_claude(chat.model):
        set_path(asked, f"{FIELDS}.tool_choice", _single_call_choice(chat))
    elif isinstance(chat.tool_choice, ToolChoice):
        config["toolChoice"] = {"tool": {"name": chat.tool_choice.function.name}}
    elif chat.tool_choice is not None:
        config["toolChoice"] = {"any" if chat.tool_choice == "required" else "auto": {}}


def _extension_tool_config(chat: Chat) -> Members:
    try:
        return member_object(chat.extensions, "toolConfig")
    except msgspec.ValidationError:
        raise chat.unsupported("bedrock.toolConfig", "it must be an object") from None


def _single_call_choice(chat: Chat) -> dict[str, Any]:
    """All of the choice in Claude's own words, for it may be told in one place only.

    https://github.com/BerriAI/litellm/pull/34347 https://github.com/BerriAI/litellm/issues/36536
    """
    match chat.tool_choice:
        case ToolChoice():
            choice = {"type": "tool", "name": chat.tool_choice.function.name}
        case "required":
            choice = {"type": "any"}
        case _:
            choice = {"type": "auto"}
    return choice | {"disable_parallel_tool_use": True}


def _map_tool(chat: Chat, path: str, tool: ToolDefinition) -> list[dict[str, Any]]:
    told: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        told["description"] = tool.function.description
    told["inputSchema"] = {"json": tool_parameters(chat, path, tool) or empty_parameters()}
    if tool.function.strict:
        told["strict"] = True
    return [
        {"toolSpec": chat.merge(told, tool.for_vendor("bedrock"), path)},
        *cache_point(chat, path, tool.cache_control),
    ]


def _map_response_format(chat: Chat, asked: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html"""
    if isinstance(chat.response_format, JsonFormat):
        raise chat.unsupported("response_format.type", "it writes JSON by a schema only: use json_schema")
    if isinstance(chat.response_format, SchemaFormat):
        told = chat.response_format.json_schema
        described = {"description": told.description} if told.description else {}
        text = msgspec.json.encode(response_schema(chat, chat.response_format)).decode()
        named = {"schema": text, "name": told.name, **described}
        set_path(asked, "outputConfig.textFormat", {"type": "json_schema", "structure": {"jsonSchema": named}})


def _map_metadata(chat: Chat) -> dict[str, str]:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_RequestBody"""
    metadata: dict[str, str] = chat.get_typed("metadata", dict[str, str]) or {}
    for name in ("user", "safety_identifier"):
        if (said := chat.get_typed(name, str)) is not None:
            if metadata.get(name, said) != said:
                raise chat.unsupported(f"metadata.{name}", f"'{name}' says something else")
            metadata[name] = said
    for name, said in metadata.items():
        if not name or not _METADATA.fullmatch(name) or not _METADATA.fullmatch(said):
            path = name if name in ("user", "safety_identifier") else f"metadata.{name}"
            raise chat.unsupported(path, "it is at most 256 letters, digits, spaces and : _ @ $ # = / + , . -")
    if len(metadata) > MAX_METADATA:
        raise chat.unsupported("metadata", f"it is at most {MAX_METADATA}, with 'user' and 'safety_identifier'")
    return metadata
