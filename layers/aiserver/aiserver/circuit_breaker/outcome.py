"""Classifies the result of a call for the circuit breaker."""

from enum import StrEnum

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)

MIN_CALL_MS = 10_000  # a call that timed out with less time than this does not count as a failure
# Nor does one that the gateway cut off after this long: at API Gateway's 300 s or Lambda's 15 min.
OWN_TIMEOUT_MS = 270_000
NOT_IMPLEMENTED = 501  # for example a model without embeddings: counting it would open the circuit for chats, too


class CallOutcome(StrEnum):
    """How the result of a call counts for its provider."""

    SUCCESS = "good"
    HARD = "hard"  # no connection: no request can cause it
    SOFT = "soft"  # any other failure: the request or its caller may be the cause
    NEUTRAL = "neutral"


def classify(error: ProviderError, *, allowed_ms: int, is_late: bool) -> CallOutcome:
    """Classify an error.

    A rejection or a rate limit is neutral, because the provider responded. Also neutral are a call that was cut off
    after a short time or by the gateway's own time limit, and a response whose content failed (`is_neutral`).
    """
    status = error.upstream_status or 0
    is_no_connection = isinstance(error, ProviderUnavailable) and not status
    is_cut_off = (isinstance(error, ProviderTimeout) and not status) or (is_no_connection and is_late)
    is_rejection = isinstance(error, ProviderRejected | ProviderAuth | ProviderRateLimited) or 400 <= status < 500
    is_gateway_timeout = is_cut_off and (allowed_ms < MIN_CALL_MS or (is_late and allowed_ms >= OWN_TIMEOUT_MS))
    if is_gateway_timeout or is_rejection or error.is_neutral or status == NOT_IMPLEMENTED:
        return CallOutcome.NEUTRAL
    return CallOutcome.HARD if is_no_connection else CallOutcome.SOFT
