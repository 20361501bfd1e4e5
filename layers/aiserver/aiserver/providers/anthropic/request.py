"""A chat as Anthropic is asked for it: all but its turns."""

from typing import Annotated, Any

import msgspec

from aiserver.providers.anthropic.capabilities import MAX_TOKENS, OLDER_MAX_TOKENS
from aiserver.providers.anthropic.claude import thinking, unsaid
from aiserver.providers.anthropic.turns import blocks, cached
from aiserver.providers.http import Asked
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.json_schemas import described, no_parameters, parameters
from aiserver.providers.translation.messages import Chosen, JsonFormat, SchemaFormat, ToolDefinition
from aiserver.providers.translation.turns import check_choice, has_tools, put, systems, turns

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
Beta = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+$")]  # it stands in a header
TIERS = {"auto": "auto", "default": "standard_only"}


def request(chat: Chat) -> Asked:
    """Raises: InvalidRequest."""
    asked: dict[str, Any] = {}
    neutral = unsaid(chat, chat.model)
    for path, value in chat.passed():
        if path not in neutral:
            put(asked, path, value)
    if chat.max_tokens is not None or "max_tokens" not in chat.own:
        asked["max_tokens"] = _max_tokens(chat.model) if chat.max_tokens is None else chat.max_tokens
    if said := systems(chat, blocks):
        asked["system"] = said
    asked["messages"] = turns(chat, blocks)
    if chat.tools:
        asked["tools"] = [_tool(chat, f"tools[{i}]", tool) for i, tool in enumerate(chat.tools)]
    if choice := _choice(chat):
        asked["tool_choice"] = choice
    if chat.stop:
        asked["stop_sequences"] = chat.stop
    if user := chat.either("safety_identifier", "user"):
        asked["metadata"] = {"user_id": user}
    if tier := chat.read("service_tier", str):
        asked["service_tier"] = chat.one_of("service_tier", tier, TIERS)
    _format(chat, asked)
    thought, effort = thinking(chat, chat.model, asked.get("max_tokens", MAX_TOKENS))
    if thought:
        asked["thinking"] = thought
    if effort:
        put(asked, "output_config.effort", effort)
    own = dict(chat.own)
    headers = {"content-type": "application/json"}
    if betas := chat.read_own(own, "betas", list[Beta]):
        headers["anthropic-beta"] = ",".join(betas)
    whole = chat.merged(asked, own)
    headers["anthropic-version"] = SAMPLING_VERSION if any(name in whole for name in SAMPLING) else VERSION
    return Asked("POST", PATH, None, msgspec.json.encode(whole), headers, relayed_as=RELAYED_AS)


def models(after: str | None) -> Asked:
    path = MODELS_PATH + (f"&after_id={after}" if after else "")
    return Asked("GET", path, None, headers={"anthropic-version": VERSION})


def _max_tokens(model: str) -> int:
    return next((most for name, most in OLDER_MAX_TOKENS.items() if model.startswith(name)), MAX_TOKENS)


def _tool(chat: Chat, path: str, tool: ToolDefinition) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        told["description"] = tool.function.description
    told["input_schema"] = parameters(chat, path, tool) or no_parameters()
    if tool.function.strict:
        told["strict"] = True
    return chat.merged(told | cached(tool), tool.of("anthropic"), path)


def _choice(chat: Chat) -> dict[str, Any] | None:
    if not has_tools(chat, chat.own):
        check_choice(chat)
        return None
    match chat.choice:
        case Chosen():
            choice: dict[str, Any] = {"type": "tool", "name": chat.choice.function.name}
        case None:
            choice = {"type": "auto"} if chat.one_call else {}
        case word:
            choice = {"type": {"required": "any"}.get(word, word)}
    if chat.one_call and choice.get("type") not in (None, "none"):
        choice["disable_parallel_tool_use"] = True
    return choice or None


def _format(chat: Chat, asked: dict[str, Any]) -> None:
    if isinstance(chat.format, JsonFormat):
        raise chat.refusal("response_format.type", "it writes JSON by a schema only: use json_schema")
    if isinstance(chat.format, SchemaFormat):
        put(asked, "output_config.format", {"type": "json_schema", "schema": described(chat, chat.format)})
