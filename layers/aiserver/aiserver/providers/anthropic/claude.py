"""What differs from one Claude to another, wherever it is asked: how it is told to reason, and whether to sample.

Source: https://platform.claude.com/docs/en/build-with-claude/effort
https://platform.claude.com/docs/en/about-claude/models/migration-guide
"""

from typing import Any

from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.messages import ToolChoice

# Models that are told how many tokens to reason with; younger ones are told with what effort.
# https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
BUDGET_MODELS = (
    *("claude-3", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-2", "claude-opus-4-5"),
    *("claude-sonnet-4-0", "claude-sonnet-4-2", "claude-sonnet-4-5", "claude-haiku-4-5"),
)
EFFORTS = {"minimal": "low", **{effort: effort for effort in ("low", "medium", "high", "xhigh", "max")}}
# As Gemini's OpenAI-compatible endpoint has them; Anthropic publishes none. At least 1,024, and under `max_tokens`.
BUDGETS = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 31_999, "max": 31_999}
MIN_BUDGET = 1_024

# Models before 4.7, which may be told how to sample; of them those that are told by temperature or top_p, never both.
# https://docs.memberjunction.org/v6.2/api/functions/_memberjunction_ai-anthropic.RejectsSamplingParams.html
# https://github.com/open-webui/functions/pull/9
SAMPLING_MODELS = ("claude-2", "claude-3", "claude-opus-4", "claude-sonnet-4", "claude-haiku-4")
NO_SAMPLING_MODELS = ("claude-opus-4-7", "claude-opus-4-8")
SINGLE_SAMPLING_PARAM_MODELS = (
    *("claude-opus-4-1", "claude-opus-4-5", "claude-opus-4-6"),
    *("claude-sonnet-4-5", "claude-sonnet-4-6", "claude-haiku-4-5"),
)
DEFAULT_SAMPLING_VALUE = 1  # of either: to do as the model does anyhow
MIN_TOP_P = 0.95  # while it reasons: https://platform.claude.com/docs/en/build-with-claude/extended-thinking


def thinking_params(chat: Chat, model: str, max_tokens: int) -> tuple[dict[str, Any] | None, str | None]:
    """What `thinking` is, and what the effort, of a model that may write `most` tokens; None for what is not said.

    Raises: InvalidRequest.
    """
    asked = chat.get_typed("reasoning_effort", str)
    if asked is None:
        return None, None
    if asked == "none":
        return {"type": "disabled"}, None
    if not model.startswith(BUDGET_MODELS):
        return {"type": "adaptive", "display": "summarized"}, chat.map_value("reasoning_effort", asked, EFFORTS)
    if chat.lacks_reasoning:
        return None, None  # such a model would have to be shown what it thought before it called
    if isinstance(chat.tool_choice, ToolChoice) or chat.tool_choice == "required":
        raise chat.unsupported("tool_choice", "this model cannot be made to call a tool while it reasons")
    budget = min(chat.map_value("reasoning_effort", asked, BUDGETS), max_tokens - 1)
    if budget < MIN_BUDGET:
        raise chat.unsupported(
            "reasoning_effort", f"this model reasons where it may write more than {MIN_BUDGET} tokens"
        )
    return {"type": "enabled", "budget_tokens": budget}, None


def sampling_params_to_omit(chat: Chat, model: str) -> list[str]:
    """Which of `temperature` and `top_p` are not sent, since they ask for what the model does anyhow.

    Raises: InvalidRequest, for what it cannot be told. Other models than Claude are told both.
    """
    given = {name: value for name in ("temperature", "top_p") if (value := chat.get_typed(name, float)) is not None}
    if given.get("temperature", 0) > 1:
        raise chat.unsupported("temperature", "it is at most 1")
    is_sampled = not model.startswith("claude-") or (
        model.startswith(SAMPLING_MODELS) and not model.startswith(NO_SAMPLING_MODELS)
    )
    told = {name: value for name, value in given.items() if value != DEFAULT_SAMPLING_VALUE}
    reasons = chat.get_typed("reasoning_effort", str) not in (None, "none")
    for name, value in told.items():
        if not is_sampled:
            raise chat.unsupported(name, "this model samples in its own way")
        if reasons and (name == "temperature" or value < MIN_TOP_P):
            raise chat.unsupported(
                name, f"while the model reasons it is 1{', or from 0.95' if name == 'top_p' else ''}"
            )
    if len(told) > 1 and model.startswith(SINGLE_SAMPLING_PARAM_MODELS):
        raise chat.unsupported("top_p", "this model is told it or 'temperature', not both")
    return [
        name
        for name in given
        if name not in told and (not is_sampled or model.startswith(SINGLE_SAMPLING_PARAM_MODELS))
    ]
