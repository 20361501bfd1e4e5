"""Builds the request for the Converse API."""

import re
from typing import Any
from urllib.parse import quote

import msgspec

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.json_schemas import empty_parameters, response_schema, tool_parameters
from aiserver.providers.adapters.base.messages import (
    AssistantMessage,
    JsonFormat,
    Members,
    SchemaFormat,
    ToolChoice,
    ToolDefinition,
    ToolMessage,
    member_object,
)
from aiserver.providers.adapters.base.turns import check_tool_choice, has_tools, merge_turns, set_path, system_blocks
from aiserver.providers.adapters.bedrock.capabilities import TIERS
from aiserver.providers.adapters.bedrock.content import cache_point, content_blocks
from aiserver.providers.adapters.bedrock.document_names import make_names_unique
from aiserver.providers.adapters.bedrock.models import FIELDS, is_claude, params_to_omit, set_reasoning
from aiserver.providers.request import ProviderRequest

EVENT_STREAM_TYPE = "application/vnd.amazon.eventstream"
ERROR_TYPE_HEADER = "x-amzn-errortype"  # the only place of an error's type
RELAYED_HEADERS = {"x-amzn-requestid": "x-request-id", ERROR_TYPE_HEADER: ERROR_TYPE_HEADER}
MAX_METADATA = 16
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}", re.ASCII)


def build_request(chat: Chat) -> ProviderRequest:
    """Raises: InvalidRequest."""
    system = system_blocks(chat, content_blocks)
    request: dict[str, Any] = {"messages": merge_turns(chat, content_blocks)} | ({"system": system} if system else {})
    make_names_unique(request["messages"])
    omitted = params_to_omit(chat)
    for path, value in chat.pass_through():
        if path not in omitted:
            set_path(request, path, value)
    if (temperature := chat.get_typed("temperature", float)) and temperature > 1:
        raise chat.invalid("temperature", "must be at most 1")
    if chat.max_tokens is not None:
        set_path(request, "inferenceConfig.maxTokens", chat.max_tokens)
    if chat.stop:
        set_path(request, "inferenceConfig.stopSequences", chat.stop)
    _map_tools(chat, request)
    _map_response_format(chat, request)
    set_reasoning(chat, request)
    if metadata := _map_metadata(chat):
        request["requestMetadata"] = metadata
    tier = chat.get_typed("service_tier", str)
    if tier and (type := chat.map_value("service_tier", tier, TIERS)):
        request["serviceTier"] = {"type": type}
    merged = chat.merge(request, chat.extensions)
    if _has_calls(chat) and "toolConfig" not in merged:
        raise chat.invalid("tools", "must be set", "messages contain tool calls or tool results")
    # Escaped as in AWS's SDKs: a model id may contain `:`, an ARN `/`.
    path = f"/model/{quote(chat.model, safe='')}/{'converse-stream' if chat.stream else 'converse'}"
    headers = {"content-type": "application/json"} | ({"accept": EVENT_STREAM_TYPE} if chat.stream else {})
    return ProviderRequest("POST", path, None, msgspec.json.encode(merged), headers, relayed_headers=RELAYED_HEADERS)


def _has_calls(chat: Chat) -> bool:
    return any(isinstance(m, ToolMessage) or (isinstance(m, AssistantMessage) and m.tool_calls) for m in chat.messages)


def _map_tools(chat: Chat, request: dict[str, Any]) -> None:
    """Set the tools and the tool choice; Converse has no `none`.

    https://github.com/boto/boto3/issues/4687
    """
    tools = [block for i, tool in enumerate(chat.tools) for block in _map_tool(chat, f"tools[{i}]", tool)]
    if not has_tools(chat, _extension_tool_config(chat)):
        check_tool_choice(chat)
        return
    if chat.tool_choice == "none":
        if "toolConfig" in chat.extensions or _has_calls(chat):
            reason = "messages contain tool calls or tool results, or 'bedrock.toolConfig' is set"
            raise chat.invalid("tool_choice", "must not be 'none'", reason)
        return
    config: dict[str, Any] = {"tools": tools} if tools else {}
    request["toolConfig"] = config
    if chat.single_tool_call and is_claude(chat.model):
        set_path(request, f"{FIELDS}.tool_choice", _single_call_choice(chat))
    elif isinstance(chat.tool_choice, ToolChoice):
        config["toolChoice"] = {"tool": {"name": chat.tool_choice.function.name}}
    elif chat.tool_choice is not None:
        config["toolChoice"] = {"any" if chat.tool_choice == "required" else "auto": {}}


def _extension_tool_config(chat: Chat) -> Members:
    try:
        return member_object(chat.extensions, "toolConfig")
    except msgspec.ValidationError:
        raise chat.invalid("bedrock.toolConfig", "must be an object") from None


def _single_call_choice(chat: Chat) -> dict[str, Any]:
    """The tool choice in Claude's format, since Bedrock accepts it in one place only.

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
    spec: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        spec["description"] = tool.function.description
    spec["inputSchema"] = {"json": tool_parameters(chat, path, tool) or empty_parameters()}
    if tool.function.strict:
        spec["strict"] = True
    return [
        {"toolSpec": chat.merge(spec, tool.for_vendor("bedrock"), path)},
        *cache_point(chat, path, tool.cache_control),
    ]


def _map_response_format(chat: Chat, request: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html"""
    if isinstance(chat.response_format, JsonFormat):
        raise chat.invalid("response_format.type", "must be 'json_schema' or 'text'", "JSON output requires a schema")
    if isinstance(chat.response_format, SchemaFormat):
        json_schema = chat.response_format.json_schema
        description = {"description": json_schema.description} if json_schema.description else {}
        text = msgspec.json.encode(response_schema(chat, chat.response_format)).decode()
        schema_config = {"schema": text, "name": json_schema.name, **description}
        set_path(
            request, "outputConfig.textFormat", {"type": "json_schema", "structure": {"jsonSchema": schema_config}}
        )


def _map_metadata(chat: Chat) -> dict[str, str]:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_RequestBody"""
    metadata: dict[str, str] = chat.get_typed("metadata", dict[str, str]) or {}
    for name in ("user", "safety_identifier"):
        if (text := chat.get_typed(name, str)) is not None:
            if metadata.get(name, text) != text:
                raise chat.invalid(f"metadata.{name}", f"must equal '{name}'")
            metadata[name] = text
    for name, text in metadata.items():
        if not name or not _METADATA.fullmatch(name) or not _METADATA.fullmatch(text):
            path = name if name in ("user", "safety_identifier") else f"metadata.{name}"
            allowed = "letters, digits, spaces and : _ @ $ # = / + , . - are allowed"
            raise chat.invalid(path, "must have at most 256 characters", allowed)
    if len(metadata) > MAX_METADATA:
        count_rule = "'user' and 'safety_identifier' count as entries"
        raise chat.invalid("metadata", f"must have at most {MAX_METADATA} entries", count_rule)
    return metadata
