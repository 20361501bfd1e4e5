"""Builds the request for Gemini's generateContent, except its contents."""

from typing import Any

import msgspec

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.json_schemas import schema_with_description, tool_parameters
from aiserver.providers.adapters.base.messages import JsonFormat, SchemaFormat, ToolChoice, ToolDefinition
from aiserver.providers.adapters.base.turns import check_tool_choice, has_tools, set_path
from aiserver.providers.adapters.google.capabilities import ALWAYS_REASONS, BUDGETS, THINKING_LEVELS, TIERS
from aiserver.providers.adapters.google.content import map_contents, system_parts
from aiserver.providers.adapters.google.models import is_before_3, model_path
from aiserver.providers.request import ProviderRequest

GENERATE = ":generateContent"
STREAM_GENERATE = ":streamGenerateContent?alt=sse"
CONFIG = "generationConfig"
THINKING = f"{CONFIG}.thinkingConfig"


def build_request(chat: Chat) -> ProviderRequest:
    """Raises: InvalidRequest."""
    request: dict[str, Any] = {}
    if parts := system_parts(chat):
        request["systemInstruction"] = {"parts": parts}
    request["contents"] = map_contents(chat)
    if chat.tools:
        tools = [_map_tool(chat, f"tools[{i}]", tool) for i, tool in enumerate(chat.tools)]
        request["tools"] = [{"functionDeclarations": tools}]
    if calling_config := _function_calling_config(chat):
        request["toolConfig"] = {"functionCallingConfig": calling_config}
    for path, value in chat.pass_through():
        set_path(request, path, value)
    if chat.max_tokens is not None:
        set_path(request, f"{CONFIG}.maxOutputTokens", chat.max_tokens)
    if chat.stop:
        set_path(request, f"{CONFIG}.stopSequences", chat.stop)
    if (service_tier := chat.get_typed("service_tier", str)) and (
        tier := chat.map_value("service_tier", service_tier, TIERS)
    ):
        request["serviceTier"] = tier
    _map_response_format(chat, request)
    _set_reasoning(chat, request)
    body = msgspec.json.encode(chat.merge(request, chat.extensions))
    method = STREAM_GENERATE if chat.stream else GENERATE
    return ProviderRequest("POST", model_path(chat.model) + method, None, body, {"content-type": "application/json"})


def _map_tool(chat: Chat, path: str, tool: ToolDefinition) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        declaration["description"] = tool.function.description
    if parameters := tool_parameters(chat, path, tool):
        declaration["parametersJsonSchema"] = parameters
    return chat.merge(declaration, tool.for_vendor("google"), path)


def _function_calling_config(chat: Chat) -> dict[str, Any]:
    """The function calling mode and the allowed functions.

    `VALIDATED` and `ANY` enforce the tools' schemas, `AUTO` does not:
    https://ai.google.dev/gemini-api/docs/function-calling#function_calling_modes
    """
    if not has_tools(chat, chat.extensions):
        check_tool_choice(chat)
        return {}
    match chat.tool_choice:
        case ToolChoice():
            return {"mode": "ANY", "allowedFunctionNames": [chat.tool_choice.function.name]}
        case "required":
            return {"mode": "ANY"}
        case "none":
            return {"mode": "NONE"}
        case _ if any(tool.function.strict for tool in chat.tools):
            return {"mode": "VALIDATED"}
        case "auto":
            return {"mode": "AUTO"}
        case _:
            return {}


def _map_response_format(chat: Chat, request: dict[str, Any]) -> None:
    if isinstance(chat.response_format, JsonFormat | SchemaFormat):
        set_path(request, f"{CONFIG}.responseMimeType", "application/json")
    if isinstance(chat.response_format, SchemaFormat):
        set_path(request, f"{CONFIG}.responseJsonSchema", schema_with_description(chat, chat.response_format))


def _set_reasoning(chat: Chat, request: dict[str, Any]) -> None:
    effort = chat.get_typed("reasoning_effort", str)
    if effort is None:
        return
    uses_budget = is_before_3(chat.model)
    if effort == "none" and (not uses_budget or ALWAYS_REASONS in chat.model):
        raise chat.invalid("reasoning_effort", "must not be 'none'", "this model always reasons")
    if uses_budget:
        set_path(request, f"{THINKING}.thinkingBudget", chat.map_value("reasoning_effort", effort, BUDGETS))
    else:
        set_path(request, f"{THINKING}.thinkingLevel", chat.map_value("reasoning_effort", effort, THINKING_LEVELS))
    if effort != "none":
        set_path(request, f"{THINKING}.includeThoughts", True)
