"""Retry delays for provider calls, job messages and callbacks."""

BASE_S = 1.0
CAP_S = 60.0  # jobs run within a minute of their provider's recovery; a pass without a response costs little
MIN_DELAY_CAP_S = 60  # the minimum delay after "Retry-After: 0" grows with each attempt, up to this
MAX_DELAY_S = 900  # the longest DelaySeconds that SQS accepts

RESEND_BASE_MS = 60_000
RESEND_CAP_MS = 900_000

CALLBACK_SCHEDULE_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)  # ten attempts, about 3 days
CALLBACK_JITTER = 0.1

BUSY_BASE_MS, BUSY_FACTOR, BUSY_CAP_MS = 1_000, 1.5, 600_000  # with jitter, less than MAX_DELAY_S


def full_jitter_s(attempt: int, fraction: float) -> float:
    """Seconds before attempt + 1: random, up to a ceiling that doubles, so that simultaneous failures spread out."""
    return min(CAP_S, BASE_S * 2 ** min(attempt, 30)) * fraction


def retry_delay_s(requested_s: int | None, attempt: int, fraction: float) -> float:
    """Seconds before attempt + 1: the requested delay, with a minimum that prevents a hot loop; without one, jitter."""
    if requested_s is None:
        return full_jitter_s(attempt, fraction)
    return max(requested_s, min(attempt, MIN_DELAY_CAP_S))


def resend_delay_ms(resends: int) -> int:
    """Milliseconds until a queued job's message is sent again; it grows so that a backlog does not flood the queue."""
    return min(RESEND_BASE_MS * 2 ** min(resends, 10), RESEND_CAP_MS)


def callback_retry_delay_s(attempts: int, fraction: float) -> float | None:
    """Seconds before the next attempt after `attempts` failures; None when no attempt is left."""
    if attempts >= len(CALLBACK_SCHEDULE_S):
        return None
    return CALLBACK_SCHEDULE_S[attempts] * (1 + CALLBACK_JITTER * (2 * fraction - 1))


def busy_delay_ms(waits: int, fraction: float) -> int:
    """Milliseconds until the next try for a receiver at its concurrency limit; it grows, so a backlog stays quiet."""
    return round(min(BUSY_BASE_MS * BUSY_FACTOR ** min(waits, 30), BUSY_CAP_MS) * (0.5 + fraction))


def sqs_delay_s(delay_ms: int) -> int:
    """The DelaySeconds that makes a message visible just after `delay_ms`; SQS accepts at most MAX_DELAY_S."""
    return max(0, min(MAX_DELAY_S, -(-delay_ms // 1000) + 1)) if delay_ms > 0 else 0
