"""Dates and durations in HTTP headers and in parameters."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_DIGITS = 9  # thirty years of seconds


def retry_after_s(value: str | None, now_ms: int) -> int | None:
    """Seconds, from both forms of Retry-After; None for other values. Source: RFC 9110, 10.2.3."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return int(text) if len(text) <= MAX_DIGITS else None
    try:
        return max(0, round(parsedate_to_datetime(text).timestamp() - now_ms / 1000))
    except (ValueError, TypeError, OverflowError):
        return None


def parse_iso_ms(text: str) -> int:
    """Unix time in ms of an ISO date or date-time, in UTC unless it has an offset. Raises: ValueError."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
