"""What stands on the wire: header names as clients of HTTP/1.1 look them up, of every kind of response."""

import gzip
import json
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from aiserver import http_api
from aiserver.errors import NotFound, ProviderRateLimited, ProviderResponse
from aiserver.http_api import HttpContext, Request, Response, canonical_name
from local.gateway import Gateway
from local.template import Route, gateway_responses, read_template
from tests.fakes import FakeClock
from tests.moto_stack import Context

ORIGIN = "https://app.example"
PATH = "/v1/chat/completions"
RATE_LIMITS = {"x-ratelimit-limit-requests": "9", "retry-after": "1"}
CHAT = b'{"model":"m"}'


def whole(_: Request) -> Response:
    return Response(b"{}", 200, {"x-provider": "p", "x-request-id": "up", **RATE_LIMITS})


def redirect(_: Request) -> Response:
    return Response(b"", 302, {"location": "https://bucket.example"})


def events(_: Request) -> Response:
    def body() -> Generator[bytes]:
        yield b"data: 1\n\n"

    return Response(body(), 200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})


def refused(_: Request) -> Response:
    raise ProviderRateLimited("slow", upstream=ProviderResponse(429, RATE_LIMITS, b"{}"))


def not_found(_: Request) -> Response:
    raise NotFound("no")


ANSWERS = {"whole": whole, "redirect": redirect, "events": events, "refused": refused, "not-found": not_found}


@dataclass
class RouteGateway:
    """The local gateway before one route, whole or streamed."""

    port: int

    def head(self, method: str = "POST", path: str = PATH, body: bytes = CHAT, **headers: str) -> tuple[str, list[str]]:
        """The status line and the header lines, byte for byte."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            received = b"".join(iter(lambda: connection.recv(65_536), b""))
        status, *sent = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        return status, sent


@pytest.fixture(params=[False, True], ids=["buffered", "streamed"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Request], Response]], RouteGateway]]:
    doors: list[Gateway] = []
    streams: bool = request.param

    def serve(answer: Callable[[Request], Response]) -> RouteGateway:
        at = HttpContext(FakeClock(), [ORIGIN], streams=streams)

        def invoke(_function: str, event: bytes, _request_id: str, sink: Any) -> bytes:
            answered = http_api.respond_streaming(json.loads(event), Context(), {("POST", PATH): answer}, at)
            if isinstance(answered, dict):
                return json.dumps(answered).encode()
            head, *pieces = answered
            sink.write(json.dumps(head).encode() + bytes(8))
            for piece in pieces:
                assert isinstance(piece, bytes)
                sink.write(piece)
            return b""

        door = Gateway(0)
        doors.append(door)
        routes = [Route("POST", PATH, "f", 29.0, streams), Route("OPTIONS", PATH, "f", 29.0, streams)]
        door.open(routes, gateway_responses(read_template()), invoke)
        return RouteGateway(door.port)

    yield serve
    for door in doors:
        door.close()


Serve = Callable[[Callable[[Request], Response]], RouteGateway]


def names(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_header_name_on_the_wire_is_spelled_canonically(kind: str, gateway: Serve) -> None:
    _, lines = gateway(ANSWERS[kind]).head(Origin=ORIGIN)
    assert names(lines) == [canonical_name(name) for name in names(lines)]
    assert len(set(names(lines))) == len(lines)
    assert {"Content-Type", "X-Request-Id", "X-Aiserver-Request-Id", "Vary", "Access-Control-Allow-Origin"} <= set(
        names(lines)
    )
    assert "X-Content-Type-Options: nosniff" in lines


def test_a_preflight_over_the_wire_is_spelled_canonically(gateway: Serve) -> None:
    status, lines = gateway(whole).head(
        "OPTIONS", body=b"", Origin=ORIGIN, Access_Control_Request_Headers="x-stainless-os"
    )
    assert status.startswith("HTTP/1.1 204")
    assert {"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Vary"} <= set(names(lines))
    assert names(lines) == [canonical_name(name) for name in names(lines)]
    assert any(line.endswith(", x-stainless-os") for line in lines)


def test_the_gateway_s_own_answers_say_content_type_and_nosniff(gateway: Serve) -> None:
    status, lines = gateway(whole).head("PATCH", Origin=ORIGIN)
    assert status.startswith("HTTP/1.1 404")
    assert "Content-Type: application/json" in lines
    assert "X-Content-Type-Options: nosniff" in lines


def test_a_relayed_rate_limit_keeps_its_value_under_its_usual_spelling(gateway: Serve) -> None:
    for answer in (whole, refused):
        _, lines = gateway(answer).head(Origin=ORIGIN)
        assert {"X-RateLimit-Limit-Requests: 9", "Retry-After: 1"} <= set(lines)


def test_a_compressed_request_is_a_415_over_the_wire(gateway: Serve) -> None:
    status, lines = gateway(whole).head(body=gzip.compress(CHAT), Content_Encoding="gzip")
    assert status.startswith("HTTP/1.1 415")
    assert "Accept-Encoding: identity" in lines


def test_a_latin_1_request_is_a_400_over_the_wire(gateway: Serve) -> None:
    body = '{"content":"café"}'.encode("latin-1")
    assert gateway(whole).head(body=body)[0].startswith("HTTP/1.1 400")
    assert gateway(whole).head(body=body.decode("latin-1").encode())[0].startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("content-type", "Content-Type"),
        ("CONTENT-TYPE", "Content-Type"),
        ("x-ratelimit-reset-tokens", "X-RateLimit-Reset-Tokens"),
        ("www-authenticate", "WWW-Authenticate"),
        ("etag", "ETag"),
        ("x-", "X-"),
        ("", ""),
    ],
)
def test_a_header_name_is_capitalized_part_by_part(name: str, spelled: str) -> None:
    assert canonical_name(name) == spelled
