"""The gateway is transparent: provider and caller get the same bytes as without it.

Each case runs twice over HTTP: directly to the server, and through the chat function to the same server.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.scripted import ScriptedProvider
from tests import json_reference
from tests.aws_call_recorder import RecordingStack, chat_event, recording_stack
from tests.examples import examples

PROPERTY_SETTINGS = settings(max_examples=examples(60, at_least=20))  # "no byte is changed" is a promise to users
MODEL = "llama3:8b"
REQUEST_BODY = '{"model":"%s","messages":[{"role":"user","content":"hi"}]}' % MODEL
RELAYED_HEADERS = ("x-request-id", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens")

SPACE = st.sampled_from(["", " ", "\n", "\t\r\n "])
NUMBERS = ["2.50", "1E400", "-0", "-0.0", "1e-7", "0.10", "12345678901234567890123", "1.0E+2"]
STRINGS = ['"\\u00e9"', '"\\/"', '"\\ud83d\\ude00"', '"\\u0000"', '"{]"', '"語😀"', '"a\\\\\\"b"', '"\u2028"']
SCALARS = (
    st.sampled_from([*NUMBERS, *STRINGS, "null", "true", "false"])
    | st.integers().map(str)
    | st.text(max_size=8).flatmap(lambda text: st.booleans().map(lambda raw: json.dumps(text, ensure_ascii=raw)))
)
NAMES = st.text(max_size=6).map("x ".__add__)  # names of unknown members


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str], *required: str) -> str:
    """The text of an object with the required members among others."""
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    members = [
        f"{json.dumps(name, ensure_ascii=draw(st.booleans()))}{draw(SPACE)}:{draw(SPACE)}{draw(inner)}"
        for name in names
    ]
    shuffled = draw(st.permutations([*members, *required]))
    return "{%s}" % ",".join(f"{draw(SPACE)}{member}{draw(SPACE)}" for member in shuffled)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return "[%s]" % ",".join(f"{draw(SPACE)}{element}{draw(SPACE)}" for element in draw(st.lists(inner, max_size=3)))


def with_space(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(SPACE, values, SPACE).map("".join)


VALUES = st.recursive(SCALARS, lambda inner: objects(inner) | arrays(inner), max_leaves=8)
REQUESTS = with_space(
    objects(VALUES, f'"model" : "{MODEL}"', '"messages":[ {"role":"user", "content":"\\u00fc", "x y":2.50} ]')
)
RESPONSES = with_space(objects(VALUES, '"choices": [ {"index":0, "x":1E400} ]', '"usage":{"total_tokens":1.0}'))
ERRORS = with_space(
    objects(VALUES, '"error" : { "message":"\\u00fc", "code":null, "x":-0.0 }') | objects(VALUES, '"detail":"no"')
)
HEADERS = st.fixed_dictionaries(
    {"content-type": st.sampled_from(["application/json", "application/json; charset=utf-8"])},
    optional={
        "x-request-id": st.from_regex(r"req_[0-9a-f]{8}", fullmatch=True),
        "x-ratelimit-remaining-requests": st.integers(0, 9999).map(str),
        "x-ratelimit-reset-tokens": st.sampled_from(["6m0s", "17ms"]),
        "retry-after": st.sampled_from(["0", "30", "Fri, 15 Jan 2027 08:00:30 GMT"]),
    },
)


@pytest.fixture(scope="module")
def product(scripted_provider: ScriptedProvider) -> Iterator[RecordingStack]:
    with recording_stack(scripted_provider) as recorded:
        recorded.stack.invoke("chat", chat_event(REQUEST_BODY.encode()))
        yield recorded


@pytest.fixture(scope="module")
def direct() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as http:
        yield http


class Comparison:
    """One request sent directly and through the gateway to a server with the same response: requests and responses."""

    def __init__(
        self,
        product: RecordingStack,
        direct: httpx.Client,
        request_body: str,
        status: int,
        body: str,
        headers: dict[str, str],
    ) -> None:
        server = product.upstream
        server.requests.clear()
        for _ in range(2):
            server.respond_with(status, body.encode(), headers)
        self.direct = direct.post(f"{server.base_url}/chat/completions", content=request_body.encode())
        self.gateway: dict[str, Any] = product.stack.invoke_again("chat", chat_event(request_body.encode()))
        self.direct_request, self.gateway_request = (request.body for request in server.requests)

    def relayed_headers(self) -> tuple[dict[str, str], dict[str, str]]:
        """The headers that clients read, of both. The gateway adds an id of its own when the server sent none."""
        direct_headers = {name: self.direct.headers[name] for name in RELAYED_HEADERS if name in self.direct.headers}
        return direct_headers, {name: self.gateway["headers"].get(name) for name in direct_headers}


@PROPERTY_SETTINGS
@given(request_body=REQUESTS)
def test_request_reaches_the_provider_byte_for_byte(
    product: RecordingStack, direct: httpx.Client, request_body: str
) -> None:
    comparison = Comparison(
        product, direct, request_body, 200, '{"choices":[{}]}', {"content-type": "application/json"}
    )
    assert comparison.gateway_request == comparison.direct_request == request_body.encode()


@PROPERTY_SETTINGS
@given(body=RESPONSES, headers=HEADERS)
def test_response_reaches_the_caller_byte_for_byte(
    product: RecordingStack, direct: httpx.Client, body: str, headers: dict[str, str]
) -> None:
    """Headers that clients read are the same as well."""
    comparison = Comparison(product, direct, REQUEST_BODY, 200, body, headers)
    assert comparison.gateway["statusCode"] == comparison.direct.status_code == 200
    assert comparison.gateway["body"].encode() == comparison.direct.content == body.encode()
    assert comparison.gateway["headers"]["content-type"] == comparison.direct.headers["content-type"]
    direct_headers, gateway_headers = comparison.relayed_headers()
    assert gateway_headers == direct_headers


# Not 401 to 404: these are errors of the gateway's account and hidden from callers.
@PROPERTY_SETTINGS
@given(status=st.sampled_from([400, 409, 413, 422, 429, 500, 502, 503]), body=ERRORS, headers=HEADERS)
def test_error_keeps_its_status_headers_and_members(
    product: RecordingStack, direct: httpx.Client, status: int, body: str, headers: dict[str, str]
) -> None:
    # A success first, so that the circuit is closed.
    Comparison(product, direct, REQUEST_BODY, 200, '{"choices":[{}]}', {"content-type": "application/json"})
    comparison = Comparison(product, direct, REQUEST_BODY, status, body, headers)
    assert comparison.gateway["statusCode"] == comparison.direct.status_code == status
    direct_headers, gateway_headers = comparison.relayed_headers()
    assert gateway_headers == direct_headers
    gateway_members, upstream_members = members(comparison.gateway["body"]), members(comparison.direct.text)
    added_members = {"responseStatus"} if "error" in upstream_members else {"responseStatus", "error"}
    assert {name: value for name, value in gateway_members.items() if name not in added_members} == upstream_members
    assert gateway_members.keys() - upstream_members.keys() == added_members


def members(text: str) -> dict[str, str]:
    """The raw text of each member of an object."""
    raw_members = json_reference.members(text.encode())
    assert raw_members is not None
    return {name: value.decode() for name, value in raw_members.items()}
