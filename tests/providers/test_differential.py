"""The product in the middle is not to be noticed: the same bytes at the provider and back at the caller as without it.

Each case is done twice over real HTTP: straight to the server, and through the chat function to the same server.
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
from tests.aws_call_recorder import Observed, asked, observed
from tests.examples import examples

CASES = settings(max_examples=examples(60, at_least=20))  # no byte is changed is what users are promised
MODEL = "llama3:8b"
QUESTION = '{"model":"%s","messages":[{"role":"user","content":"hi"}]}' % MODEL
RELAYED = ("x-request-id", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens")

SPACE = st.sampled_from(["", " ", "\n", "\t\r\n "])
NUMBERS = ["2.50", "1E400", "-0", "-0.0", "1e-7", "0.10", "12345678901234567890123", "1.0E+2"]
STRINGS = ['"\\u00e9"', '"\\/"', '"\\ud83d\\ude00"', '"\\u0000"', '"{]"', '"語😀"', '"a\\\\\\"b"', '"\u2028"']
SCALARS = (
    st.sampled_from([*NUMBERS, *STRINGS, "null", "true", "false"])
    | st.integers().map(str)
    | st.text(max_size=8).flatmap(lambda text: st.booleans().map(lambda raw: json.dumps(text, ensure_ascii=raw)))
)
NAMES = st.text(max_size=6).map("x ".__add__)  # of no member that anybody knows


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str], *first: str) -> str:
    """The text of an object: the members given, and others around them."""
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    members = [
        f"{json.dumps(name, ensure_ascii=draw(st.booleans()))}{draw(SPACE)}:{draw(SPACE)}{draw(inner)}"
        for name in names
    ]
    mixed = draw(st.permutations([*members, *first]))
    return "{%s}" % ",".join(f"{draw(SPACE)}{member}{draw(SPACE)}" for member in mixed)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return "[%s]" % ",".join(f"{draw(SPACE)}{one}{draw(SPACE)}" for one in draw(st.lists(inner, max_size=3)))


def spaced(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(SPACE, texts, SPACE).map("".join)


VALUES = st.recursive(SCALARS, lambda inner: objects(inner) | arrays(inner), max_leaves=8)
REQUESTS = spaced(
    objects(VALUES, f'"model" : "{MODEL}"', '"messages":[ {"role":"user", "content":"\\u00fc", "x y":2.50} ]')
)
ANSWERS = spaced(objects(VALUES, '"choices": [ {"index":0, "x":1E400} ]', '"usage":{"total_tokens":1.0}'))
ERRORS = spaced(
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
def product(scripted: ScriptedProvider) -> Iterator[Observed]:
    with observed(scripted) as seen:
        seen.stack.invoke("chat", asked(QUESTION.encode()))
        yield seen


@pytest.fixture(scope="module")
def direct() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as http:
        yield http


class Both:
    """One question asked both ways of a server that gives the same answer to each: what it saw, and what came back."""

    def __init__(
        self, product: Observed, direct: httpx.Client, question: str, status: int, body: str, headers: dict[str, str]
    ) -> None:
        server = product.upstream
        server.requests.clear()
        for _ in range(2):
            server.answer_with(status, body.encode(), headers)
        self.straight = direct.post(f"{server.base_url}/chat/completions", content=question.encode())
        self.through: dict[str, Any] = product.stack.invoke_again("chat", asked(question.encode()))
        self.seen_straight, self.seen_through = (request.body for request in server.requests)

    def relayed(self) -> tuple[dict[str, str], dict[str, str]]:
        """The headers a client reads, of both; ours has an id of its own where the server sent none."""
        straight = {name: self.straight.headers[name] for name in RELAYED if name in self.straight.headers}
        return straight, {name: self.through["headers"].get(name) for name in straight}


@CASES
@given(question=REQUESTS)
def test_a_question_reaches_the_provider_byte_for_byte(product: Observed, direct: httpx.Client, question: str) -> None:
    both = Both(product, direct, question, 200, '{"choices":[{}]}', {"content-type": "application/json"})
    assert both.seen_through == both.seen_straight == question.encode()


@CASES
@given(body=ANSWERS, headers=HEADERS)
def test_an_answer_reaches_the_caller_byte_for_byte_with_the_headers_that_clients_read(
    product: Observed, direct: httpx.Client, body: str, headers: dict[str, str]
) -> None:
    both = Both(product, direct, QUESTION, 200, body, headers)
    assert both.through["statusCode"] == both.straight.status_code == 200
    assert both.through["body"].encode() == both.straight.content == body.encode()
    assert both.through["headers"]["content-type"] == both.straight.headers["content-type"]
    straight, through = both.relayed()
    assert through == straight


# Not 401 to 404, which are the gateway's own trouble and so not shown.
@CASES
@given(status=st.sampled_from([400, 409, 413, 422, 429, 500, 502, 503]), body=ERRORS, headers=HEADERS)
def test_an_error_keeps_its_status_its_headers_and_every_member_as_it_was_written(
    product: Observed, direct: httpx.Client, status: int, body: str, headers: dict[str, str]
) -> None:
    Both(
        product, direct, QUESTION, 200, '{"choices":[{}]}', {"content-type": "application/json"}
    )  # its circuit is closed
    both = Both(product, direct, QUESTION, status, body, headers)
    assert both.through["statusCode"] == both.straight.status_code == status
    straight, through = both.relayed()
    assert through == straight
    told, own = members(both.through["body"]), members(both.straight.text)
    made = {"responseStatus"} if "error" in own else {"responseStatus", "error"}
    assert {name: value for name, value in told.items() if name not in made} == own
    assert told.keys() - own.keys() == made


def members(text: str) -> dict[str, str]:
    """Each member of an object's text, as it is written."""
    found = json_reference.members(text.encode())
    assert found is not None
    return {name: value.decode() for name, value in found.items()}
