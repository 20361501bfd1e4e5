"""Header names on the wire: canonical spelling over HTTP/1.1 in every kind of response."""

import gzip
import json
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from aiserver import http_api
from aiserver.errors import NotFound, ProviderRateLimited
from aiserver.http_api import HttpContext, Request, Response, canonical_name
from aiserver.providers.response import ProviderResponse
from local.gateway import Gateway
from local.template import Route, gateway_responses, read_template
from tests.fakes import FakeClock
from tests.moto_stack import Context

ORIGIN = "https://app.example"
PATH = "/v1/chat/completions"
RATE_LIMITS = {"x-ratelimit-limit-requests": "9", "retry-after": "1"}
CHAT = b'{"model":"m"}'


def json_response(_: Request) -> Response:
    return Response(b"{}", 200, {"x-provider": "p", "x-request-id": "up", **RATE_LIMITS})


def redirect(_: Request) -> Response:
    return Response(b"", 302, {"location": "https://bucket.example"})


def events(_: Request) -> Response:
    def body() -> Generator[bytes]:
        yield b"data: 1\n\n"

    return Response(body(), 200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})


def rate_limited(_: Request) -> Response:
    raise ProviderRateLimited("slow", upstream=ProviderResponse(429, RATE_LIMITS, b"{}"))


def not_found(_: Request) -> Response:
    raise NotFound("no")


HANDLERS = {
    "json": json_response,
    "redirect": redirect,
    "events": events,
    "rate-limited": rate_limited,
    "not-found": not_found,
}


@dataclass
class RouteGateway:
    """The local gateway in front of one route, buffered or streamed."""

    port: int

    def head(self, method: str = "POST", path: str = PATH, body: bytes = CHAT, **headers: str) -> tuple[str, list[str]]:
        """The status line and the header lines of a response, byte for byte."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            received = b"".join(iter(lambda: connection.recv(65_536), b""))
        status, *header_lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        return status, header_lines


@pytest.fixture(params=[False, True], ids=["buffered", "streamed"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Request], Response]], RouteGateway]]:
    gateways: list[Gateway] = []
    streams: bool = request.param

    def serve(handler: Callable[[Request], Response]) -> RouteGateway:
        context = HttpContext(FakeClock(), [ORIGIN], streams=streams)

        def invoke(_function: str, event: bytes, _request_id: str, sink: Any) -> bytes:
            response = http_api.respond_streaming(json.loads(event), Context(), {("POST", PATH): handler}, context)
            if isinstance(response, dict):
                return json.dumps(response).encode()
            head, *chunks = response
            sink.write(json.dumps(head).encode() + bytes(8))
            for chunk in chunks:
                assert isinstance(chunk, bytes)
                sink.write(chunk)
            return b""

        gateway = Gateway(0)
        gateways.append(gateway)
        routes = [Route("POST", PATH, "f", 29.0, streams), Route("OPTIONS", PATH, "f", 29.0, streams)]
        gateway.open(routes, gateway_responses(read_template()), invoke)
        return RouteGateway(gateway.port)

    yield serve
    for started_gateway in gateways:
        started_gateway.close()


Serve = Callable[[Callable[[Request], Response]], RouteGateway]


def names(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


@pytest.mark.parametrize("kind", HANDLERS)
def test_response_header_names_are_canonical(kind: str, gateway: Serve) -> None:
    _, lines = gateway(HANDLERS[kind]).head(Origin=ORIGIN)
    assert names(lines) == [canonical_name(name) for name in names(lines)]
    assert len(set(names(lines))) == len(lines)
    assert {"Content-Type", "X-Request-Id", "X-Aiserver-Request-Id", "Vary", "Access-Control-Allow-Origin"} <= set(
        names(lines)
    )
    assert "X-Content-Type-Options: nosniff" in lines


def test_preflight_header_names_are_canonical(gateway: Serve) -> None:
    status, lines = gateway(json_response).head(
        "OPTIONS", body=b"", Origin=ORIGIN, Access_Control_Request_Headers="x-stainless-os"
    )
    assert status.startswith("HTTP/1.1 204")
    assert {"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Vary"} <= set(names(lines))
    assert names(lines) == [canonical_name(name) for name in names(lines)]
    assert any(line.endswith(", x-stainless-os") for line in lines)


def test_gateway_errors_have_content_type_and_nosniff(gateway: Serve) -> None:
    status, lines = gateway(json_response).head("PATCH", Origin=ORIGIN)
    assert status.startswith("HTTP/1.1 404")
    assert "Content-Type: application/json" in lines
    assert "X-Content-Type-Options: nosniff" in lines


def test_forwarded_rate_limit_headers_keep_values_and_spelling(gateway: Serve) -> None:
    for handler in (json_response, rate_limited):
        _, lines = gateway(handler).head(Origin=ORIGIN)
        assert {"X-RateLimit-Limit-Requests: 9", "Retry-After: 1"} <= set(lines)


def test_compressed_request_returns_415(gateway: Serve) -> None:
    status, lines = gateway(json_response).head(body=gzip.compress(CHAT), Content_Encoding="gzip")
    assert status.startswith("HTTP/1.1 415")
    assert "Accept-Encoding: identity" in lines


def test_latin_1_request_returns_400(gateway: Serve) -> None:
    body = '{"content":"café"}'.encode("latin-1")
    assert gateway(json_response).head(body=body)[0].startswith("HTTP/1.1 400")
    assert gateway(json_response).head(body=body.decode("latin-1").encode())[0].startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    ("name", "canonical"),
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
def test_header_name_is_capitalized_part_by_part(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
