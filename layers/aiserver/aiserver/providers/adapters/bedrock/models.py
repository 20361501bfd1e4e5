"""Differences between the models behind Converse: reasoning, sampling, and a single tool call.

A model is recognized by its id, with which a profile's id or ARN ends; an application inference profile has no such id.
https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
"""

import re
from collections.abc import Mapping
from typing import Any

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.turns import set_path
from aiserver.providers.adapters.families.claude import EFFORTS, MAX_TOKENS, sampling_params_to_omit, thinking_params

FIELDS = "additionalModelRequestFields"
CLAUDE = "anthropic.claude-"
PATHS = {"temperature": "temperature", "top_p": "topP"}

# The reasoning field of other models, by id prefix, longer prefixes first, and its value for each effort.
REASONING_FIELDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
    "amazon.nova-2": (
        "reasoningConfig",
        {
            "none": {"type": "disabled"},
            "minimal": {"type": "enabled", "maxReasoningEffort": "low"},
            **{effort: {"type": "enabled", "maxReasoningEffort": effort} for effort in ("low", "medium", "high")},
        },
    ),
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html
    "openai.gpt-oss": ("reasoning_effort", {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}),
    # https://github.com/anomalyco/opencode/pull/48195 https://github.com/stdapi-ai/stdapi.ai/issues/283
    "openai.gpt-": (
        "reasoning",
        {effort: {"effort": mapped} for effort, mapped in {"none": "none", **EFFORTS}.items()},
    ),
}
_ID = re.compile(r"(?:^|/)(?:[a-z-]+\.)?((?:anthropic|amazon|openai)\.[^/]+)$")


def family_id(model: str) -> str:
    """The id of the foundation model, without a profile's region; empty when `model` does not contain it."""
    match = _ID.search(model)
    return match[1] if match else ""


def params_to_omit(chat: Chat) -> list[str]:
    """The paths of the parameters that are not sent, since they equal the default. Raises: InvalidRequest."""
    names = (
        sampling_params_to_omit(chat, family_id(chat.model).removeprefix("anthropic.")) if is_claude(chat.model) else []
    )
    return [f"inferenceConfig.{PATHS[name]}" for name in names]


def is_claude(model: str) -> bool:
    return family_id(model).startswith(CLAUDE)


def set_reasoning(chat: Chat, request: dict[str, Any]) -> None:
    """Map `reasoning_effort` to the fields of the model. Raises: InvalidRequest."""
    effort = chat.get_typed("reasoning_effort", str)
    if effort is None:
        return
    id = family_id(chat.model)
    if id.startswith(CLAUDE):
        _set_claude_reasoning(chat, request, id.removeprefix("anthropic."))
        return
    for prefix, (name, efforts) in REASONING_FIELDS.items():
        if id.startswith(prefix):
            set_path(request, f"{FIELDS}.{name}", chat.map_value("reasoning_effort", effort, efforts))
            return
    raise chat.unsupported("reasoning_effort", f"set the reasoning fields of '{chat.model}' in 'bedrock.{FIELDS}'")


def _set_claude_reasoning(chat: Chat, request: dict[str, Any], model: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html"""
    max_tokens = MAX_TOKENS if chat.max_tokens is None else chat.max_tokens
    thinking, effort = thinking_params(chat, model, max_tokens)
    set_path(request, f"{FIELDS}.thinking", thinking)
    if effort:
        # https://docs.aws.amazon.com/sdk-for-python/v1/reference/clients/bedrock-runtime/structures/OutputConfig/
        set_path(request, "outputConfig.effort", effort)
    elif thinking and "budget_tokens" in thinking:
        set_path(request, "inferenceConfig.maxTokens", max_tokens)
