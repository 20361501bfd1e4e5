"""Dates and waits as HTTP headers write them."""

from email.utils import parsedate_to_datetime

MAX_DIGITS = 9  # thirty years of seconds


def retry_after_s(value: str | None, now_ms: int) -> int | None:
    """Seconds, from either form of Retry-After; None for what is neither. Source: RFC 9110, 10.2.3."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return int(text) if len(text) <= MAX_DIGITS else None
    try:
        return max(0, round(parsedate_to_datetime(text).timestamp() - now_ms / 1000))
    except (ValueError, TypeError, OverflowError):
        return None
