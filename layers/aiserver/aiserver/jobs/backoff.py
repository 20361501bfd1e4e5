"""How long to wait before trying again."""

BASE_S = 1.0
CAP_S = 60.0  # so that jobs run within a minute of their provider's recovery; a pass that nobody answers costs little
MIN_DELAY_CAP_S = 60  # a "Retry-After: 0" is believed less each time, up to this
MAX_DELAY_S = 900  # SQS refuses a longer DelaySeconds

RESEND_BASE_MS = 60_000
RESEND_CAP_MS = 900_000

CALLBACK_SCHEDULE_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)  # ten attempts, about 3 days
CALLBACK_JITTER = 0.1

BUSY_BASE_MS, BUSY_FACTOR, BUSY_CAP_MS = 1_000, 1.5, 600_000  # with its jitter, less than MAX_DELAY_S


def full_jitter_s(attempt: int, fraction: float) -> float:
    """Seconds before attempt + 1, anywhere up to a doubling ceiling: spreads a crowd that failed together."""
    return min(CAP_S, BASE_S * 2 ** min(attempt, 30)) * fraction


def retry_delay_s(requested_s: int | None, attempt: int, fraction: float) -> float:
    """Seconds before attempt + 1: what was asked for, though never so few that asking becomes a hot loop; or jitter."""
    if requested_s is None:
        return full_jitter_s(attempt, fraction)
    return max(requested_s, min(attempt, MIN_DELAY_CAP_S))


def resend_delay_ms(resends: int) -> int:
    """Milliseconds until a queued job is reminded of again: a backlog must not multiply its messages."""
    return min(RESEND_BASE_MS * 2 ** min(resends, 10), RESEND_CAP_MS)


def callback_retry_delay_s(attempts: int, fraction: float) -> float | None:
    """Seconds before the next attempt when `attempts` have failed; None when no attempt is left."""
    if attempts >= len(CALLBACK_SCHEDULE_S):
        return None
    return CALLBACK_SCHEDULE_S[attempts] * (1 + CALLBACK_JITTER * (2 * fraction - 1))


def busy_delay_ms(waits: int, fraction: float) -> int:
    """Milliseconds until a receiver that is busy with others is tried again: a backlog must not keep asking."""
    return round(min(BUSY_BASE_MS * BUSY_FACTOR ** min(waits, 30), BUSY_CAP_MS) * (0.5 + fraction))


def sqs_delay_s(delay_ms: int) -> int:
    """The DelaySeconds that wakes a message just after `wait_ms`; SQS takes at most MAX_DELAY_S."""
    return max(0, min(MAX_DELAY_S, -(-delay_ms // 1000) + 1)) if delay_ms > 0 else 0
