"""What the end of a call says of its provider."""

from enum import StrEnum

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)

MIN_CALL_MS = 10_000  # a call that had less time says nothing of its provider when it is cut off
OWN_TIMEOUT_MS = (
    270_000  # nor does one that we cut off ourselves after so long, at API Gateway's 300 s or Lambda's 15 min
)
NOT_IMPLEMENTED = 501  # a model that makes no embeddings, on a server that does: chats would suffer for it


class Outcome(StrEnum):
    """What the end of a call says of its provider."""

    SUCCESS = "good"
    HARD = "hard"  # it was not reached, which no request can cause
    SOFT = "soft"  # it failed, which may be the request's or its caller's doing
    NEUTRAL = "neutral"


def classify(error: ProviderError, *, allowed_ms: int, is_late: bool) -> Outcome:
    """What an error says of the provider.

    A refusal and a rate limit say nothing against it, since it answered. Neither does a call that was cut off after a
    moment or by our own time limit, or an answer whose content failed.
    """
    status = error.upstream_status or 0
    is_unreached = isinstance(error, ProviderUnavailable) and not status
    is_cut_off = (isinstance(error, ProviderTimeout) and not status) or (is_unreached and is_late)
    is_refusal = isinstance(error, ProviderRejected | ProviderAuth | ProviderRateLimited) or 400 <= status < 500
    is_our_doing = is_cut_off and (allowed_ms < MIN_CALL_MS or (is_late and allowed_ms >= OWN_TIMEOUT_MS))
    if is_our_doing or is_refusal or error.is_neutral or status == NOT_IMPLEMENTED:
        return Outcome.NEUTRAL
    return Outcome.HARD if is_unreached else Outcome.SOFT
