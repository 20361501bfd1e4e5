"""CORS: the request headers that a preflight allows, and the response headers that a page may read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import cors
from aiserver.limits import MAX_CORS_NAMES_CHARS

ORIGIN = "https://app.example"
OPENAI_JS = (  # sent by the openai package of npm in a browser
    "authorization,content-type,openai-organization,openai-project,user-agent,x-stainless-arch,x-stainless-lang,"
    "x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout"
)
METHODS = ["GET", "OPTIONS", "POST"]
VARY = {"vary": "Origin, Access-Control-Request-Headers"}


def preflight(requested: str | None = None, origin: str | None = ORIGIN) -> dict[str, str]:
    request = {"origin": origin, "access-control-request-headers": requested}
    return cors.preflight_headers(
        {name: value for name, value in request.items() if value is not None}, [ORIGIN], METHODS
    )


def allow_headers(requested: str | None = None) -> list[str]:
    return preflight(requested)["access-control-allow-headers"].split(", ")


def test_preflight_allows_all_headers_of_the_openai_js_sdk() -> None:
    assert set(OPENAI_JS.split(",")) <= set(allow_headers(OPENAI_JS))
    assert preflight(OPENAI_JS)["vary"] == VARY["vary"]


def test_preflight_lists_each_header_once_ignoring_case() -> None:
    names = allow_headers("X-Api-Key, x-new,X-New , ,x-new")
    assert names == [*cors.ALLOWED_HEADERS, "x-new"]


@pytest.mark.parametrize("requested", [None, "", "x-a b", "x-a:b", "x-é", "x-a\r\nset-cookie", "*/*", '"x"'])
def test_preflight_with_invalid_request_headers_allows_the_fixed_list(requested: str | None) -> None:
    assert allow_headers(requested) == list(cors.ALLOWED_HEADERS)


@pytest.mark.parametrize(("excess_chars", "echoed"), [(0, 1), (1, 0)])
def test_preflight_echoes_names_up_to_the_limit(excess_chars: int, echoed: int) -> None:
    names = allow_headers("x" * (MAX_CORS_NAMES_CHARS + excess_chars))
    assert len(names) == len(cors.ALLOWED_HEADERS) + echoed


@given(st.text(max_size=200))
def test_preflight_always_returns_a_valid_header_value(requested: str) -> None:
    value = preflight(requested)["access-control-allow-headers"]
    assert value.isascii()
    assert value.isprintable()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", None])
def test_foreign_origin_gets_no_cors_headers(origin: str | None) -> None:
    assert preflight(OPENAI_JS, origin) == VARY
    assert cors.response_headers(origin, [ORIGIN], ["x-ratelimit-limit"]) == {"vary": "Origin"}


def test_no_cors_headers_without_allowed_origins() -> None:
    assert cors.preflight_headers({"origin": ORIGIN}, [], METHODS) == {}
    assert cors.response_headers(ORIGIN, [], []) == {}


def test_forwarded_rate_limit_headers_are_exposed() -> None:
    forwarded = ["x-ratelimit-remaining-tokens", "content-type", "x-ratelimit-limit-requests"]
    exposed = cors.response_headers(ORIGIN, [ORIGIN], forwarded)["access-control-expose-headers"].split(", ")
    assert exposed == [*cors.EXPOSED_HEADERS, "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens"]


def test_number_of_exposed_headers_is_limited() -> None:
    forwarded = [f"x-ratelimit-{number:0100}" for number in range(60)]
    exposed = cors.response_headers(ORIGIN, [ORIGIN], forwarded)["access-control-expose-headers"]
    assert exposed == ", ".join(cors.EXPOSED_HEADERS)
