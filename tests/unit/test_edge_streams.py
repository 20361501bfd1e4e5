"""HTTP out, piece by piece: a head and what follows it, errors before it with their status, after it as an event."""

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest

from aiserver import http_api
from aiserver.errors import NotFound, ProviderTimeout
from aiserver.http_api import HttpContext, Request, Response
from tests.fakes import FakeClock
from tests.moto_stack import Context, event

ORIGIN = "https://app.example"
OURS = "Something failed on our side; quote request id {id}"
NO_DETAIL: dict[str, Any] = {"errors": [], "meta": {}}
EVENTS = [b"data: 1\n\n", b"", b"data: 2\n\n"]


class Body:
    """What a route streams; whether it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.is_closed = False

    def begun(self) -> Generator[bytes]:
        body = self._body()
        next(body)
        return body

    def _body(self) -> Generator[bytes]:
        try:
            yield b""
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.is_closed = True


def serve(route: Callable[[Request], Response], *, streams: bool = True, **headers: str) -> Any:
    asked = event("chat")
    asked["headers"] |= headers
    routes = {("POST", "/v1/chat/completions"): route}
    return http_api.respond_streaming(asked, Context(), routes, HttpContext(FakeClock(), [ORIGIN], streams=streams))


def raises(error: Exception) -> Callable[[Request], Response]:
    def route(_: Request) -> Response:
        raise error

    return route


def test_the_head_comes_first_and_the_body_as_it_comes() -> None:
    body = Body(*EVENTS)
    head, *pieces = serve(lambda _: Response(body.begun(), 200, {"content-type": "text/event-stream"}), Origin=ORIGIN)
    assert (head["statusCode"], head["headers"]["Content-Type"]) == (200, "text/event-stream")
    assert head["headers"]["Access-Control-Allow-Origin"] == ORIGIN
    assert head["headers"]["X-Aiserver-Request-Id"]
    assert pieces == EVENTS
    assert body.is_closed


def test_a_whole_body_follows_its_head_at_once() -> None:
    head, *pieces = serve(lambda _: Response(b"{}", 201))
    assert (head["statusCode"], pieces) == (201, [b"{}"])


def test_an_error_before_the_head_has_its_status_and_the_one_error_body() -> None:
    head, body = serve(raises(NotFound("Model x not found", code="model_not_found")))
    assert (head["statusCode"], head["headers"]["Content-Type"]) == (404, "application/json; charset=utf-8")
    assert json.loads(body)["error"]["code"] == "model_not_found"


def test_a_fault_of_our_own_before_the_head_is_a_500_without_detail() -> None:
    head, body = serve(raises(RuntimeError("secret")))
    assert head["statusCode"] == 500
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("failure", "error", "status"),
    [
        (
            ProviderTimeout("Provider p broke off its answer", may_be_billed=True),
            {"message": "Provider p broke off its answer", "type": "server_error", "code": "provider_timeout"},
            {"errorCode": "ProviderTimeout", "message": "Provider p broke off its answer", **NO_DETAIL},
        ),
        (
            RuntimeError("secret"),
            {
                "message": OURS,
                "type": "server_error",
                "code": "internal_error",
            },
            {"errorCode": "InternalError", "message": OURS, **NO_DETAIL},
        ),
    ],
)
def test_what_fails_after_the_head_is_the_last_event_in_the_words_that_official_clients_raise_on(
    failure: Exception, error: dict[str, str], status: dict[str, Any]
) -> None:
    body = Body(EVENTS[0], failure)
    head, *pieces = serve(lambda _: Response(body.begun()))
    assert pieces[:-1] == [EVENTS[0]]
    told = {"error": error, "responseStatus": status}
    expected = json.dumps(told, separators=(",", ":")).replace("{id}", head["headers"]["X-Aiserver-Request-Id"])
    assert pieces[-1].decode() == f"data: {expected}\n\n"
    assert body.is_closed


@pytest.mark.parametrize("taken", [1, 2])
def test_whoever_stops_listening_closes_the_body_read_or_not(taken: int) -> None:
    body = Body(*EVENTS)
    served = serve(lambda _: Response(body.begun()))
    for _ in range(taken):
        next(served)
    served.close()
    assert body.is_closed


def test_where_routes_do_not_stream_all_of_it_comes_at_once() -> None:
    answer = serve(lambda _: Response(Body(*EVENTS).begun()), streams=False)
    assert (answer["statusCode"], answer["body"]) == (200, "data: 1\n\ndata: 2\n\n")


def test_where_routes_do_not_stream_an_error_within_is_told_all_the_same() -> None:
    answer = serve(lambda _: Response(Body(EVENTS[0], ProviderTimeout("cut")).begun()), streams=False)
    assert answer["statusCode"] == 200
    assert answer["body"].startswith('data: 1\n\ndata: {"error":{"message":"cut"')


def test_where_routes_do_not_stream_bytes_that_are_no_text_do_not_fail_the_answer() -> None:
    answer = serve(lambda _: Response(Body(b"data: \xff\n\n").begun()), streams=False)
    assert answer["body"] == "data: \ufffd\n\n"
