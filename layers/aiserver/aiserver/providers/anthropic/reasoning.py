"""How Claude is told to reason, wherever it is asked: by an effort, or by how many tokens it may think.

Source: https://platform.claude.com/docs/en/build-with-claude/effort
"""

from typing import Any

from aiserver.providers.translation.chat import Chat

# Models that are told how many tokens to reason with; younger ones are told with what effort.
# https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
BY_BUDGET = (
    *("claude-3", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-2", "claude-opus-4-5"),
    *("claude-sonnet-4-0", "claude-sonnet-4-2", "claude-sonnet-4-5", "claude-haiku-4-5"),
)
EFFORTS = {"minimal": "low", **{effort: effort for effort in ("low", "medium", "high", "xhigh", "max")}}
# As Gemini's OpenAI-compatible endpoint has them; Anthropic publishes none. At least 1,024, and under `max_tokens`.
BUDGETS = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 31_999, "max": 31_999}
MIN_BUDGET = 1_024


def thinking(chat: Chat, model: str, most: int) -> tuple[dict[str, Any] | None, str | None]:
    """What `thinking` is, and what the effort, of a model that may write `most` tokens; None for what is not said.

    Raises: InvalidRequest.
    """
    asked = chat.read("reasoning_effort", str)
    if asked is None:
        return None, None
    if asked == "none":
        return {"type": "disabled"}, None
    if not model.startswith(BY_BUDGET):
        return {"type": "adaptive", "display": "summarized"}, chat.one_of("reasoning_effort", asked, EFFORTS)
    budget = min(chat.one_of("reasoning_effort", asked, BUDGETS), most - 1)
    if budget < MIN_BUDGET:
        raise chat.refusal("reasoning_effort", f"this model reasons where it may write more than {MIN_BUDGET} tokens")
    return {"type": "enabled", "budget_tokens": budget}, None
