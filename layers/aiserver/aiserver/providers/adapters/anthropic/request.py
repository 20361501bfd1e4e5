"""Builds the request for Anthropic's Messages API, except its turns."""

from typing import Annotated, Any

import msgspec

from aiserver.providers.adapters.anthropic.content import cache_control, content_blocks
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.json_schemas import empty_parameters, schema_with_description, tool_parameters
from aiserver.providers.adapters.base.messages import JsonFormat, SchemaFormat, ToolChoice, ToolDefinition
from aiserver.providers.adapters.base.turns import check_tool_choice, has_tools, merge_turns, set_path, system_blocks
from aiserver.providers.adapters.families.claude import (
    MAX_TOKENS,
    OLDER_MAX_TOKENS,
    sampling_params_to_omit,
    thinking_params,
)
from aiserver.providers.request import ProviderRequest

PATH = "/v1/messages"
MODELS_PATH = "/v1/models?limit=1000"
VERSION = "2026-10-21"  # https://platform.claude.com/docs/en/api/versioning
SAMPLING_VERSION = "2023-06-01"  # the last with temperature, top_p and top_k
SAMPLING = ("temperature", "top_p", "top_k")
RELAYED_HEADERS = {
    "request-id": "x-request-id",
    "anthropic-ratelimit-requests-limit": "x-ratelimit-limit-requests",
    "anthropic-ratelimit-requests-remaining": "x-ratelimit-remaining-requests",
    "anthropic-ratelimit-tokens-limit": "x-ratelimit-limit-tokens",
    "anthropic-ratelimit-tokens-remaining": "x-ratelimit-remaining-tokens",
}
Beta = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+$")]  # sent in a header
TIERS = {"auto": "auto", "default": "standard_only"}


def build_request(chat: Chat) -> ProviderRequest:
    """Raises: InvalidRequest."""
    request: dict[str, Any] = {}
    omitted = sampling_params_to_omit(chat, chat.model)
    for path, value in chat.pass_through():
        if path not in omitted:
            set_path(request, path, value)
    if chat.max_tokens is not None or "max_tokens" not in chat.extensions:
        request["max_tokens"] = _max_tokens(chat.model) if chat.max_tokens is None else chat.max_tokens
    if system := system_blocks(chat, content_blocks):
        request["system"] = system
    request["messages"] = merge_turns(chat, content_blocks)
    if chat.tools:
        request["tools"] = [_map_tool(chat, f"tools[{i}]", tool) for i, tool in enumerate(chat.tools)]
    if choice := _map_tool_choice(chat):
        request["tool_choice"] = choice
    if chat.stop:
        request["stop_sequences"] = chat.stop
    if user := chat.alias("safety_identifier", "user"):
        request["metadata"] = {"user_id": user}
    if tier := chat.get_typed("service_tier", str):
        request["service_tier"] = chat.map_value("service_tier", tier, TIERS)
    _map_response_format(chat, request)
    thinking, effort = thinking_params(chat, chat.model, request.get("max_tokens", MAX_TOKENS))
    if thinking:
        request["thinking"] = thinking
    if effort:
        set_path(request, "output_config.effort", effort)
    extensions = dict(chat.extensions)
    headers = {"content-type": "application/json"}
    if betas := chat.take_extension(extensions, "betas", list[Beta]):
        headers["anthropic-beta"] = ",".join(betas)
    merged = chat.merge(request, extensions)
    headers["anthropic-version"] = SAMPLING_VERSION if any(name in merged for name in SAMPLING) else VERSION
    return ProviderRequest("POST", PATH, None, msgspec.json.encode(merged), headers, relayed_headers=RELAYED_HEADERS)


def list_models_request(page_token: str | None) -> ProviderRequest:
    path = MODELS_PATH + (f"&after_id={page_token}" if page_token else "")
    return ProviderRequest("GET", path, None, headers={"anthropic-version": VERSION})


def _max_tokens(model: str) -> int:
    return next((max_tokens for name, max_tokens in OLDER_MAX_TOKENS.items() if model.startswith(name)), MAX_TOKENS)


def _map_tool(chat: Chat, path: str, tool: ToolDefinition) -> dict[str, Any]:
    definition: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        definition["description"] = tool.function.description
    definition["input_schema"] = tool_parameters(chat, path, tool) or empty_parameters()
    if tool.function.strict:
        definition["strict"] = True
    return chat.merge(definition | cache_control(tool), tool.for_vendor("anthropic"), path)


def _map_tool_choice(chat: Chat) -> dict[str, Any] | None:
    if not has_tools(chat, chat.extensions):
        check_tool_choice(chat)
        return None
    match chat.tool_choice:
        case ToolChoice():
            choice: dict[str, Any] = {"type": "tool", "name": chat.tool_choice.function.name}
        case None:
            choice = {"type": "auto"} if chat.single_tool_call else {}
        case mode:
            choice = {"type": {"required": "any"}.get(mode, mode)}
    if chat.single_tool_call and choice.get("type") not in (None, "none"):
        choice["disable_parallel_tool_use"] = True
    return choice or None


def _map_response_format(chat: Chat, request: dict[str, Any]) -> None:
    if isinstance(chat.response_format, JsonFormat):
        raise chat.invalid("response_format.type", "must be 'json_schema' or 'text'", "JSON output requires a schema")
    if isinstance(chat.response_format, SchemaFormat):
        set_path(
            request,
            "output_config.format",
            {"type": "json_schema", "schema": schema_with_description(chat, chat.response_format)},
        )
