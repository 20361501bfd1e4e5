"""CORS: the headers of preflight responses, and the response headers that scripts may read."""

import re
from collections.abc import Iterable, Mapping

from aiserver.limits import MAX_CORS_NAMES_CHARS

ALLOWED_HEADERS = (
    *("authorization", "content-type", "last-event-id", "x-api-key"),
    *("idempotency-key", "x-ref-id", "x-tag", "x-reply-to", "x-provider", "x-deadline"),
)
EXPOSED_HEADERS = (
    *("location", "retry-after", "x-aiserver-request-id", "x-attempts"),
    *("x-ignored", "x-provider", "x-replayed", "x-request-id", "x-should-retry"),
)
RATE_LIMIT_PREFIX = "x-ratelimit-"
MAX_AGE_S = 600
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def response_headers(origin: str | None, allowed: list[str], names: Iterable[str]) -> dict[str, str]:
    """CORS headers for a response with the header `names`.

    Empty without allowed origins; only `vary` for an origin that is not allowed.
    """
    if not allowed:
        return {}
    if origin not in allowed:
        return {"vary": "Origin"}
    return _allow_origin(origin) | {"vary": "Origin", "access-control-expose-headers": _expose_header_names(names)}


def preflight_headers(request: Mapping[str, str], allowed: list[str], methods: Iterable[str]) -> dict[str, str]:
    """CORS headers for an OPTIONS request; an allowed origin may send every header that it requests."""
    if not allowed:
        return {}
    vary = {"vary": "Origin, Access-Control-Request-Headers"}
    origin = request.get("origin")
    if origin not in allowed:
        return vary
    names = dict.fromkeys([*ALLOWED_HEADERS, *_request_header_names(request.get("access-control-request-headers", ""))])
    return (
        vary
        | _allow_origin(origin)
        | {
            "access-control-allow-methods": ", ".join(methods),
            "access-control-allow-headers": ", ".join(names),
            "access-control-max-age": str(MAX_AGE_S),
        }
    )


def _allow_origin(origin: str) -> dict[str, str]:
    return {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"}


def _request_header_names(text: str) -> list[str]:
    """The header names of a comma-separated list; empty when it is too long or contains an invalid name."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    valid = len(text) <= MAX_CORS_NAMES_CHARS and all(_TOKEN.fullmatch(name) for name in names)
    return names if valid else []


def _expose_header_names(names: Iterable[str]) -> str:
    """EXPOSED_HEADERS and the response's rate limit headers; the latter only up to MAX_CORS_NAMES_CHARS."""
    rate_limit_names = sorted(name for name in names if name.startswith(RATE_LIMIT_PREFIX))
    if len(", ".join(rate_limit_names)) > MAX_CORS_NAMES_CHARS:
        rate_limit_names = []
    return ", ".join([*EXPOSED_HEADERS, *rate_limit_names])
