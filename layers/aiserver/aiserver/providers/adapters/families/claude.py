"""Differences between Claude models, at Anthropic and Bedrock: reasoning and sampling parameters.

Source: https://platform.claude.com/docs/en/build-with-claude/effort
https://platform.claude.com/docs/en/about-claude/models/migration-guide
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.messages import ToolChoice

MAX_TOKENS = 32_000  # supported by every model since Claude 4
# The maximum of older models, by name prefix.
# https://platform.claude.com/docs/en/about-claude/models/overview
OLDER_MAX_TOKENS = {"claude-3-5": 8_192, "claude-3-7": 32_000, "claude-3": 4_096, "claude-2": 4_096}

# Models that take a number of reasoning tokens; newer ones take an effort.
# https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
BUDGET_MODELS = (
    *("claude-3", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-2", "claude-opus-4-5"),
    *("claude-sonnet-4-0", "claude-sonnet-4-2", "claude-sonnet-4-5", "claude-haiku-4-5"),
)
EFFORTS = {"minimal": "low", **{effort: effort for effort in ("low", "medium", "high", "xhigh", "max")}}
# The budgets of Gemini's OpenAI-compatible endpoint; Anthropic publishes none. At least 1,024, below `max_tokens`.
BUDGETS = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 31_999, "max": 31_999}
MIN_BUDGET = 1_024


class SamplingSupport(Enum):
    """Which of `temperature` and `top_p` a model takes, if they differ from its default."""

    BOTH = auto()
    ONE = auto()
    NONE = auto()


# By name prefix, the first match decides; other vendors' models have no `claude-` in their name.
# https://docs.memberjunction.org/v6.2/api/functions/_memberjunction_ai-anthropic.RejectsSamplingParams.html
# https://github.com/open-webui/functions/pull/9
SAMPLING_SUPPORT = {
    **dict.fromkeys(("claude-opus-4-7", "claude-opus-4-8"), SamplingSupport.NONE),
    **dict.fromkeys(("claude-opus-4-1", "claude-opus-4-5", "claude-opus-4-6"), SamplingSupport.ONE),
    **dict.fromkeys(("claude-sonnet-4-5", "claude-sonnet-4-6", "claude-haiku-4-5"), SamplingSupport.ONE),
    **dict.fromkeys(
        ("claude-2", "claude-3", "claude-opus-4", "claude-sonnet-4", "claude-haiku-4"), SamplingSupport.BOTH
    ),
    "claude-": SamplingSupport.NONE,
    "": SamplingSupport.BOTH,
}
DEFAULT_SAMPLING_VALUE = 1  # of temperature and top_p: the model's default
MIN_TOP_P = 0.95  # with reasoning: https://platform.claude.com/docs/en/build-with-claude/extended-thinking


def thinking_params(chat: Chat, model: str, max_tokens: int) -> tuple[dict[str, Any] | None, str | None]:
    """The `thinking` object and the effort, for a response of at most `max_tokens` tokens; None is not sent.

    Raises: InvalidRequest.
    """
    effort = chat.get_typed("reasoning_effort", str)
    if effort is None:
        return None, None
    if effort == "none":
        return {"type": "disabled"}, None
    if not model.startswith(BUDGET_MODELS):
        return {"type": "adaptive", "display": "summarized"}, chat.map_value("reasoning_effort", effort, EFFORTS)
    if chat.lacks_reasoning:
        return None, None  # the model would require its earlier reasoning, which the request lacks
    if isinstance(chat.tool_choice, ToolChoice) or chat.tool_choice == "required":
        raise chat.invalid(
            "tool_choice", "must be 'auto' or 'none'", "this model does not support forced tool calls with reasoning"
        )
    budget = min(chat.map_value("reasoning_effort", effort, BUDGETS), max_tokens - 1)
    if budget < MIN_BUDGET:
        raise chat.unsupported("reasoning_effort", f"this model requires max_tokens above {MIN_BUDGET} for reasoning")
    return {"type": "enabled", "budget_tokens": budget}, None


def sampling_params_to_omit(chat: Chat, model: str) -> list[str]:
    """Which of `temperature` and `top_p` are not sent: those that equal the model's default, if it may reject them.

    Raises: InvalidRequest, when the model does not support a value.
    """
    params = {name: value for name in ("temperature", "top_p") if (value := chat.get_typed(name, float)) is not None}
    changed = {name: value for name, value in params.items() if value != DEFAULT_SAMPLING_VALUE}
    support = next(support for prefix, support in SAMPLING_SUPPORT.items() if model.startswith(prefix))
    _check_sampling(chat, changed, support)
    return [] if support is SamplingSupport.BOTH else [name for name in params if name not in changed]


def _check_sampling(chat: Chat, changed: Mapping[str, float], support: SamplingSupport) -> None:
    """Raises: InvalidRequest, when the model does not support the values that differ from its default."""
    if changed.get("temperature", 0) > 1:
        raise chat.invalid("temperature", "must be at most 1")
    if changed and support is SamplingSupport.NONE:
        raise chat.unsupported(next(iter(changed)), "this model has no sampling parameters")
    if chat.get_typed("reasoning_effort", str) not in (None, "none"):
        if "temperature" in changed:
            raise chat.invalid("temperature", "must be 1", "reasoning is enabled")
        if changed.get("top_p", 1) < MIN_TOP_P:
            raise chat.invalid("top_p", f"must be at least {MIN_TOP_P}", "reasoning is enabled")
    if len(changed) > 1 and support is SamplingSupport.ONE:
        raise chat.unsupported("top_p", "this model accepts 'temperature' or 'top_p', not both")
