"""What `make verify-deploy` says of a deployment that does not stream, or is cut short: nobody has one at hand."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager

import httpx
import pytest

from local.deployment import OUR_HEADER, Deployment, ProbeResult
from local.scripted import ScriptedProvider
from local.verify_stream import WATCHED, Heard, asked_nothing, long_answer, refused, streamed

SSE = {"content-type": "text/event-stream; charset=utf-8", OUR_HEADER: "r-1"}
API_GATEWAY = {"content-type": "application/json", "x-amzn-requestid": "g-1"}
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
REFUSED = {
    "responseStatus": {"errorCode": "ValidationException", "message": "no"},
    "error": {"message": "no", "type": "invalid_request_error", "code": "invalid_request"},
}


def sees(probe: Callable[[Deployment], ProbeResult], answer: Callable[[httpx.Request], httpx.Response]) -> ProbeResult:
    """What a probe says of a deployment that answers so."""
    with httpx.Client(base_url="https://api.example", transport=httpx.MockTransport(answer)) as http:
        return probe(Deployment(http, "m", slow_model="m", buffered_s=0.2))


@contextmanager
def streaming(*, takes_s: float = 0, piece_s: float = 0) -> Generator[httpx.Client]:
    """A server that streams for real, at a pace, where the deployment would be."""
    with ScriptedProvider(takes_s=takes_s, piece_s=piece_s) as upstream:
        origin = upstream.base_url.removesuffix("/v1")
        with httpx.Client(base_url=origin, trust_env=False) as http:
            yield http


def test_an_answer_that_comes_word_by_word_is_told_with_its_times() -> None:
    with streaming(piece_s=0.01) as http:
        it = streamed(Deployment(http, "m"))
    assert it.ok, it.words
    assert it.words.startswith("20 events, ")


def test_a_stream_that_comes_all_at_once_is_none() -> None:
    it = sees(streamed, lambda _: httpx.Response(200, headers=SSE, content=iter([CHUNK * 30 + DONE])))
    assert (it.ok, it.words.partition(":")[0]) == (False, "all at once")
    assert "31 events, 1 reads" in it.words


@pytest.mark.parametrize(
    ("came", "length", "in_pieces"),
    [
        ([0.5, 0.6, 0.7], {}, True),
        ([0.5, 0.6, 0.7], {"content-length": "900"}, False),  # over a slow line, and yet made before it was sent
        ([1.0, 3.0], {}, True),
        ([5.0, 5.1], {}, False),
        ([0.5, 0.5004, 0.5008], {}, False),
        ([], {}, False),
    ],
)
def test_a_stream_is_one_where_its_pieces_come_apart(
    came: list[float], length: dict[str, str], in_pieces: bool
) -> None:
    assert Heard(httpx.Response(200, headers=SSE | length), "", came).came_in_pieces == in_pieces


def test_a_stream_that_breaks_off_shows_its_last_event() -> None:
    ends = [CHUNK, b'data: {"error":{"message":"broke off"}}\n\n']
    it = sees(streamed, lambda _: httpx.Response(200, headers=SSE, content=iter(ends)))
    assert (it.ok, "broke off" in it.words) == (False, True)


def test_an_answer_in_json_is_no_stream() -> None:
    it = sees(streamed, lambda _: httpx.Response(200, json={"choices": []}))
    assert (it.ok, it.words) == (False, '200 application/json {"choices":[]}')


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(500, "lambda:InvokeFunction"), (502, "wrapper"), (403, "WAF"), (404, "no such route"), (504, "timeoutInMillis")],
)
@pytest.mark.parametrize("probe", [streamed, asked_nothing, refused, long_answer, WATCHED.run])
def test_what_api_gateway_says_itself_is_explained(
    probe: Callable[[Deployment], ProbeResult], status: int, meaning: str
) -> None:
    it = sees(probe, lambda _: httpx.Response(status, headers=API_GATEWAY, json={"message": "Internal server error"}))
    assert (it.ok, meaning in it.words) == (False, True), it.words


def test_an_error_of_the_functions_is_not_taken_for_api_gateway_s() -> None:
    ours = {**API_GATEWAY, OUR_HEADER: "r-1"}
    it = sees(streamed, lambda _: httpx.Response(502, headers=ours, json=REFUSED))
    assert (it.ok, "API Gateway" in it.words) == (False, False)


def test_one_route_that_is_not_called_is_named() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/responses":
            return httpx.Response(500, headers=API_GATEWAY, json={"message": None})
        return httpx.Response(400, headers={OUR_HEADER: "r-1"}, json=REFUSED)

    it = sees(asked_nothing, answer)
    assert (it.ok, it.words.partition(":")[0]) == (False, "/v1/responses")


def test_an_error_that_comes_as_a_stream_is_told() -> None:
    said = json.dumps(REFUSED).encode()
    assert sees(refused, lambda _: httpx.Response(400, headers={"content-type": "application/json"}, content=said)).ok
    assert not sees(refused, lambda _: httpx.Response(400, headers=SSE, content=said)).ok
    assert not sees(refused, lambda _: httpx.Response(200, headers=SSE, content=said)).ok


def test_an_answer_is_long_where_it_takes_longer_than_a_buffered_one_may() -> None:
    with streaming(takes_s=0.3) as http:
        assert long_answer(Deployment(http, "m", slow_model="m", buffered_s=0.2)).ok
        too_fast = long_answer(Deployment(http, "m", slow_model="m"))
        not_asked = long_answer(Deployment(http, "m"))
    assert (too_fast.ok, "s only; name a slower one" in too_fast.words) == (None, True)
    assert (not_asked.ok, "set SLOW_MODEL" in not_asked.words) == (None, True)


@pytest.mark.parametrize(
    ("states", "ok"), [(["Queued", "Started", "Completed"], True), (["Queued", "Failed"], False), ([], False)]
)
def test_a_job_is_watched_until_its_last_event_says_completed(states: list[str], ok: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json={"id": 7})
        assert request.url.path == "/v1/jobs/7/events"
        told = [b"data: %b\n\n" % json.dumps({"id": 7, "jobState": state}).encode() for state in states]
        return httpx.Response(200, headers=SSE, content=iter([b": ping\n\n", *told, DONE]))

    it = sees(WATCHED.run, answer)
    assert it.ok == ok
    assert it.words.startswith(", ".join(states) or "no event with a jobState")
