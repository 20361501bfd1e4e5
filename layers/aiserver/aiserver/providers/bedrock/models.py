"""What differs from model to model behind Converse: how a family is told to reason, and to call one tool at a time.

A model is known by its id, which a profile's id or ARN ends in; an application's inference profile tells none.
https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
"""

import re
from collections.abc import Mapping
from typing import Any

from aiserver.providers.anthropic.capabilities import MAX_TOKENS
from aiserver.providers.anthropic.claude import EFFORTS, sampling_params_to_omit, thinking_params
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.turns import set_path

FIELDS = "additionalModelRequestFields"
CLAUDE = "anthropic.claude-"
PATHS = {"temperature": "temperature", "top_p": "topP"}

# How others are told, by how their ids begin, the longer first: the field, and what each effort is there.
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
    "openai.gpt-": ("reasoning", {effort: {"effort": said} for effort, said in {"none": "none", **EFFORTS}.items()}),
}
_ID = re.compile(r"(?:^|/)(?:[a-z-]+\.)?((?:anthropic|amazon|openai)\.[^/]+)$")


def family_id(model: str) -> str:
    """The id of the foundation model, without the region of a profile; empty where it is not told."""
    found = _ID.search(model)
    return found[1] if found else ""


def params_to_omit(chat: Chat) -> list[str]:
    """The paths of what is not sent, since it asks for what the model does anyhow. Raises: InvalidRequest."""
    names = (
        sampling_params_to_omit(chat, family_id(chat.model).removeprefix("anthropic.")) if is_claude(chat.model) else []
    )
    return [f"inferenceConfig.{PATHS[name]}" for name in names]


def is_claude(model: str) -> bool:
    return family_id(model).startswith(CLAUDE)


def set_reasoning(chat: Chat, asked: dict[str, Any]) -> None:
    """Ask for as much reasoning as the caller does. Raises: InvalidRequest."""
    effort = chat.get_typed("reasoning_effort", str)
    if effort is None:
        return
    id = family_id(chat.model)
    if id.startswith(CLAUDE):
        _set_claude_reasoning(chat, asked, id.removeprefix("anthropic."))
        return
    for prefix, (name, efforts) in REASONING_FIELDS.items():
        if id.startswith(prefix):
            set_path(asked, f"{FIELDS}.{name}", chat.map_value("reasoning_effort", effort, efforts))
            return
    raise chat.unsupported("reasoning_effort", f"what '{chat.model}' has for that stands in 'bedrock.{FIELDS}'")


def _set_claude_reasoning(chat: Chat, asked: dict[str, Any], model: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html"""
    most = MAX_TOKENS if chat.max_tokens is None else chat.max_tokens
    thought, effort = thinking_params(chat, model, most)
    set_path(asked, f"{FIELDS}.thinking", thought)
    if effort:
        # https://docs.aws.amazon.com/sdk-for-python/v1/reference/clients/bedrock-runtime/structures/OutputConfig/
        set_path(asked, "outputConfig.effort", effort)
    elif thought and "budget_tokens" in thought:
        set_path(asked, "inferenceConfig.maxTokens", most)
