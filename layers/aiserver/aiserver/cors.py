"""Cross-origin requests: what a preflight allows, and which response headers a page may read."""

import re
from collections.abc import Iterable, Mapping

from aiserver.limits import MAX_CORS_NAMES_CHARS

ALLOWED_HEADERS = (
    *("authorization", "content-type", "last-event-id", "x-api-key"),
    *("idempotency-key", "x-ref-id", "x-tag", "x-reply-to", "x-provider", "x-deadline"),
)
EXPOSED_HEADERS = (
    *("location", "retry-after", "x-aiserver-request-id", "x-attempts"),
    *("x-provider", "x-replayed", "x-request-id", "x-should-retry"),
)
RATE_LIMIT_PREFIX = "x-ratelimit-"
MAX_AGE_S = 600
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def response_headers(origin: str | None, allowed: list[str], names: Iterable[str]) -> dict[str, str]:
    """For a response with headers of these names: nothing where no origin is allowed, only Vary for a foreign one."""
    if not allowed:
        return {}
    if origin not in allowed:
        return {"vary": "Origin"}
    return _allow_origin(origin) | {"vary": "Origin", "access-control-expose-headers": _expose_header_names(names)}


def preflight_headers(request: Mapping[str, str], allowed: list[str], methods: Iterable[str]) -> dict[str, str]:
    """For an OPTIONS request with these headers; an allowed origin may send every header that it asks for."""
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
    """The header names of a list; none of it where it is too long or holds what is not a header name."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    valid = len(text) <= MAX_CORS_NAMES_CHARS and all(_TOKEN.fullmatch(name) for name in names)
    return names if valid else []


def _expose_header_names(names: Iterable[str]) -> str:
    """With a provider's rate limit headers, whatever it calls them, as far as they are a reasonable length."""
    relayed = sorted(name for name in names if name.startswith(RATE_LIMIT_PREFIX))
    more = relayed if len(", ".join(relayed)) <= MAX_CORS_NAMES_CHARS else []
    return ", ".join([*EXPOSED_HEADERS, *more])
