"""A chat as Gemini is asked for it: all but its turns."""

from typing import Any

import msgspec

from aiserver.providers.google.capabilities import ALWAYS_REASONS, BUDGETS, LEVELS, TIERS
from aiserver.providers.google.contents import contents, instruction
from aiserver.providers.google.models import is_before_3, path
from aiserver.providers.http import Asked
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.json_schemas import described, parameters
from aiserver.providers.translation.messages import Chosen, JsonFormat, SchemaFormat, ToolDefinition
from aiserver.providers.translation.turns import check_choice, has_tools, put

WHOLE = ":generateContent"
STREAMED = ":streamGenerateContent?alt=sse"
CONFIG = "generationConfig"
THINKING = f"{CONFIG}.thinkingConfig"


def request(chat: Chat) -> Asked:
    """Raises: InvalidRequest."""
    asked: dict[str, Any] = {}
    if parts := instruction(chat):
        asked["systemInstruction"] = {"parts": parts}
    asked["contents"] = contents(chat)
    if chat.tools:
        tools = [_tool(chat, f"tools[{i}]", tool) for i, tool in enumerate(chat.tools)]
        asked["tools"] = [{"functionDeclarations": tools}]
    if calling := _calling(chat):
        asked["toolConfig"] = {"functionCallingConfig": calling}
    for place, value in chat.passed():
        put(asked, place, value)
    if chat.max_tokens is not None:
        put(asked, f"{CONFIG}.maxOutputTokens", chat.max_tokens)
    if chat.stop:
        put(asked, f"{CONFIG}.stopSequences", chat.stop)
    if (said := chat.read("service_tier", str)) and (tier := chat.one_of("service_tier", said, TIERS)):
        asked["serviceTier"] = tier
    _format(chat, asked)
    _reason(chat, asked)
    body = msgspec.json.encode(chat.merged(asked, chat.own))
    method = STREAMED if chat.streams else WHOLE
    return Asked("POST", path(chat.model) + method, None, body, {"content-type": "application/json"})


def _tool(chat: Chat, place: str, tool: ToolDefinition) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        told["description"] = tool.function.description
    if declared := parameters(chat, place, tool):
        told["parametersJsonSchema"] = declared
    return chat.merged(told, tool.of("google"), place)


def _calling(chat: Chat) -> dict[str, Any]:
    """Whether, and what, it calls.

    `VALIDATED` and `ANY` hold to the tools' schemas, `AUTO` need not:
    https://ai.google.dev/gemini-api/docs/function-calling#function_calling_modes
    """
    if not has_tools(chat, chat.own):
        check_choice(chat)
        return {}
    match chat.choice:
        case Chosen():
            return {"mode": "ANY", "allowedFunctionNames": [chat.choice.function.name]}
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


def _format(chat: Chat, asked: dict[str, Any]) -> None:
    if isinstance(chat.format, JsonFormat | SchemaFormat):
        put(asked, f"{CONFIG}.responseMimeType", "application/json")
    if isinstance(chat.format, SchemaFormat):
        put(asked, f"{CONFIG}.responseJsonSchema", described(chat, chat.format))


def _reason(chat: Chat, asked: dict[str, Any]) -> None:
    effort = chat.read("reasoning_effort", str)
    if effort is None:
        return
    by_budget = is_before_3(chat.model)
    if effort == "none" and (not by_budget or ALWAYS_REASONS in chat.model):
        raise chat.refusal("reasoning_effort", "this model cannot be asked not to reason")
    if by_budget:
        put(asked, f"{THINKING}.thinkingBudget", chat.one_of("reasoning_effort", effort, BUDGETS))
    else:
        put(asked, f"{THINKING}.thinkingLevel", chat.one_of("reasoning_effort", effort, LEVELS))
    if effort != "none":
        put(asked, f"{THINKING}.includeThoughts", True)
