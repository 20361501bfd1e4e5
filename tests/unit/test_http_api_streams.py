"""Streaming HTTP responses: head and chunks; errors before the head have a status, later ones are an event."""

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest

from aiserver import http_api
from aiserver.errors import AiServerError, NotFound, ProviderTimeout
from aiserver.http_api import HttpContext, Request, Response
from tests.fakes import FakeClock
from tests.moto_stack import Context, event

ORIGIN = "https://app.example"
INTERNAL_ERROR = "Internal error; quote request ID {id} when you report it"
NO_DETAIL: dict[str, Any] = {"errors": [], "meta": {}}
EVENT_STREAM = {"content-type": "text/event-stream"}
EVENTS = [b"data: 1\n\n", b"", b"data: 2\n\n"]


class Body:
    """A streamed body that records whether it was closed."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks
        self.is_closed = False

    def start(self) -> Generator[bytes]:
        body = self._body()
        next(body)
        return body

    def _body(self) -> Generator[bytes]:
        try:
            yield b""
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.is_closed = True


def serve(route: Callable[[Request], Response], *, streams: bool = True, **headers: str) -> Any:
    request_event = event("chat")
    request_event["headers"] |= headers
    routes = {("POST", "/v1/chat/completions"): route}
    return http_api.respond_streaming(
        request_event, Context(), routes, HttpContext(FakeClock(), [ORIGIN], streams=streams)
    )


def failing_route(error: Exception) -> Callable[[Request], Response]:
    def route(_: Request) -> Response:
        raise error

    return route


def test_head_precedes_the_streamed_body() -> None:
    body = Body(*EVENTS)
    head, *chunks = serve(lambda _: Response(body.start(), 200, EVENT_STREAM), Origin=ORIGIN)
    assert (head["statusCode"], head["headers"]["Content-Type"]) == (200, "text/event-stream")
    assert head["headers"]["Access-Control-Allow-Origin"] == ORIGIN
    assert head["headers"]["X-Aiserver-Request-Id"]
    assert chunks == EVENTS
    assert body.is_closed


def test_buffered_body_follows_its_head() -> None:
    head, *chunks = serve(lambda _: Response(b"{}", 201))
    assert (head["statusCode"], chunks) == (201, [b"{}"])


def test_error_before_the_head_has_status_and_error_body() -> None:
    head, body = serve(failing_route(NotFound("Model x not found", code="model_not_found")))
    assert (head["statusCode"], head["headers"]["Content-Type"]) == (404, "application/json; charset=utf-8")
    assert json.loads(body)["error"]["code"] == "model_not_found"


def test_internal_error_before_the_head_is_a_500_without_detail() -> None:
    head, body = serve(failing_route(RuntimeError("secret")))
    assert head["statusCode"] == 500
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("failure", "error", "status"),
    [
        (
            ProviderTimeout("Provider p: the stream ended before the response was complete", may_be_billed=True),
            {
                "message": "Provider p: the stream ended before the response was complete",
                "type": "server_error",
                "code": "provider_timeout",
            },
            {
                "errorCode": "ProviderTimeout",
                "message": "Provider p: the stream ended before the response was complete",
                **NO_DETAIL,
            },
        ),
        (
            RuntimeError("secret"),
            {
                "message": INTERNAL_ERROR,
                "type": "server_error",
                "code": "internal_error",
            },
            {"errorCode": "InternalError", "message": INTERNAL_ERROR, **NO_DETAIL},
        ),
    ],
)
def test_error_after_the_head_is_the_last_event_and_raises_in_sdks(
    failure: Exception, error: dict[str, str], status: dict[str, Any]
) -> None:
    body = Body(EVENTS[0], failure)
    head, *chunks = serve(lambda _: Response(body.start(), 200, EVENT_STREAM))
    assert chunks[:-1] == [EVENTS[0]]
    document = {"error": error, "responseStatus": status}
    expected = json.dumps(document, separators=(",", ":")).replace("{id}", head["headers"]["X-Aiserver-Request-Id"])
    assert chunks[-1].decode() == f"data: {expected}\n\n"
    assert body.is_closed


@pytest.mark.parametrize("failure", [ProviderTimeout("cut", may_be_billed=True), RuntimeError("secret")])
def test_error_in_a_file_aborts_the_response_without_detail(failure: Exception) -> None:
    body = Body(b"RIFF", failure)
    response = serve(lambda _: Response(body.start(), 200, {"content-type": "audio/wav"}))
    assert [next(response)["statusCode"], next(response)] == [200, b"RIFF"]
    with pytest.raises(AiServerError) as abort:
        next(response)
    assert "secret" not in str(abort.value)
    assert body.is_closed


@pytest.mark.parametrize("chunks_read", [1, 2])
def test_client_disconnect_closes_the_body(chunks_read: int) -> None:
    body = Body(*EVENTS)
    response = serve(lambda _: Response(body.start()))
    for _ in range(chunks_read):
        next(response)
    response.close()
    assert body.is_closed


def test_stream_is_buffered_where_streaming_is_unsupported() -> None:
    response = serve(lambda _: Response(Body(*EVENTS).start()), streams=False)
    assert (response["statusCode"], response["body"]) == (200, "data: 1\n\ndata: 2\n\n")


def test_buffered_stream_contains_its_error_event() -> None:
    body = Body(EVENTS[0], ProviderTimeout("cut"))
    response = serve(lambda _: Response(body.start(), 200, EVENT_STREAM), streams=False)
    assert response["statusCode"] == 200
    assert response["body"].startswith('data: 1\n\ndata: {"error":{"message":"cut"')


def test_buffered_file_that_breaks_off_is_an_error_response() -> None:
    body = Body(b"RIFF", ProviderTimeout("cut"))
    response = serve(lambda _: Response(body.start(), 200, {"content-type": "audio/wav"}), streams=False)
    assert response["statusCode"] == 504
    assert json.loads(response["body"])["error"]["message"] == "cut"


def test_buffered_stream_replaces_invalid_utf8() -> None:
    response = serve(lambda _: Response(Body(b"data: \xff\n\n").start()), streams=False)
    assert response["body"] == "data: \ufffd\n\n"
