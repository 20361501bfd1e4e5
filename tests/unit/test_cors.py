"""What browsers are told: which headers a preflight allows, and which response headers a page may read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import cors
from aiserver.limits import MAX_CORS_NAMES_CHARS

ORIGIN = "https://app.example"
OPENAI_JS = (  # what the openai package of npm sends from a browser
    "authorization,content-type,openai-organization,openai-project,user-agent,x-stainless-arch,x-stainless-lang,"
    "x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout"
)
METHODS = ["GET", "OPTIONS", "POST"]
VARY = {"vary": "Origin, Access-Control-Request-Headers"}


def preflight(requested: str | None = None, origin: str | None = ORIGIN) -> dict[str, str]:
    request = {"origin": origin, "access-control-request-headers": requested}
    return cors.preflight_headers({k: v for k, v in request.items() if v is not None}, [ORIGIN], METHODS)


def allowed(requested: str | None = None) -> list[str]:
    return preflight(requested)["access-control-allow-headers"].split(", ")


def test_a_preflight_allows_every_header_that_the_openai_js_sdk_sends() -> None:
    assert set(OPENAI_JS.split(",")) <= set(allowed(OPENAI_JS))
    assert preflight(OPENAI_JS)["vary"] == VARY["vary"]


def test_a_preflight_names_each_header_once_whatever_its_case() -> None:
    names = allowed("X-Api-Key, x-new,X-New , ,x-new")
    assert names == [*cors.ALLOWED_HEADERS, "x-new"]


@pytest.mark.parametrize("requested", [None, "", "x-a b", "x-a:b", "x-é", "x-a\r\nset-cookie", "*/*", '"x"'])
def test_a_preflight_without_a_valid_list_allows_the_fixed_list(requested: str | None) -> None:
    assert allowed(requested) == list(cors.ALLOWED_HEADERS)


@pytest.mark.parametrize(("over", "more"), [(0, 1), (1, 0)])
def test_a_preflight_echoes_names_up_to_the_limit(over: int, more: int) -> None:
    names = allowed("x" * (MAX_CORS_NAMES_CHARS + over))
    assert len(names) == len(cors.ALLOWED_HEADERS) + more


@given(st.text(max_size=200))
def test_a_preflight_never_writes_what_is_no_header_value(requested: str) -> None:
    value = preflight(requested)["access-control-allow-headers"]
    assert value.isascii()
    assert value.isprintable()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", None])
def test_a_foreign_origin_is_granted_nothing_whatever_it_asks_for(origin: str | None) -> None:
    assert preflight(OPENAI_JS, origin) == VARY
    assert cors.response_headers(origin, [ORIGIN], ["x-ratelimit-limit"]) == {"vary": "Origin"}


def test_where_no_origin_is_allowed_nothing_is_said() -> None:
    assert cors.preflight_headers({"origin": ORIGIN}, [], METHODS) == {}
    assert cors.response_headers(ORIGIN, [], []) == {}


def test_a_page_may_read_the_rate_limit_headers_that_are_relayed() -> None:
    relayed = ["x-ratelimit-remaining-tokens", "content-type", "x-ratelimit-limit-requests"]
    exposed = cors.response_headers(ORIGIN, [ORIGIN], relayed)["access-control-expose-headers"].split(", ")
    assert exposed == [*cors.EXPOSED_HEADERS, "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens"]


def test_exposed_names_are_bounded() -> None:
    relayed = [f"x-ratelimit-{number:0100}" for number in range(60)]
    exposed = cors.response_headers(ORIGIN, [ORIGIN], relayed)["access-control-expose-headers"]
    assert exposed == ", ".join(cors.EXPOSED_HEADERS)
