"""Listeners of the local cloud reject ambiguous HTTP framing (RFC 9112, sections 6 and 11.2)."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from local.gateway import Gateway
from local.receiver import receiver
from local.scripted import ScriptedProvider
from local.template import Route, gateway_responses, read_template

SMUGGLED = b"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST /x HTTP/1.1", b"Host: x", *fields, b"", b""]) + body


MALFORMED = {
    "length of 5000 digits": post(b"Content-Length: " + b"9" * 5000),
    "length with a sign": post(b"Content-Length: +5", body=b"12345"),
    "negative length": post(b"Content-Length: -5"),
    "list of lengths": post(b"Content-Length: 5,5", body=b"12345"),
    "length in hex": post(b"Content-Length: 0x5", body=b"12345"),
    "empty length": post(b"Content-Length: "),
    "length with an underscore": post(b"Content-Length: 1_0"),
    "length in other digits": post("Content-Length: \u0665".encode()),
    "huge length": post(b"Content-Length: 99999999999999999999"),
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"12345"),
    "the same length twice": post(b"Content-Length: 5", b"Content-Length: 5", body=b"12345"),
    "length and chunks": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "empty coding": post(b"Transfer-Encoding: "),
    "two codings": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked over HTTP/1.0": b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": post(b"X-A: 1\r\n 2"),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "header without a colon": post(b"X-A"),
    "header without a name": post(b": a"),
    "name that is no token": post(b"X(A): 1"),
    "NUL in a value": post(b"X-A: a\x00b"),
    "NUL in a name": post(b"X-\x00A: a"),
    "control character in a value": post(b"X-A: a\x0bb"),
    "CR in a value": post(b"X-A: a\rTransfer-Encoding: chunked"),
    "LF ends a header": post(b"X-A: a\nX-B: b"),
    "LF ends the head": b"POST /x HTTP/1.1\nHost: x\n\n",
    "LF ends the request line": b"POST /x HTTP/1.1\nHost: x\r\n\r\n",
    "101 headers": post(*[b"X-%d: a" % n for n in range(100)]),
    "headers of 300 KB": post(*[b"X-%d: %b" % (n, b"a" * 6000) for n in range(50)]),
    "request line of 70 KB": b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": post(b"Host: y"),
    "host with a user": b"POST /x HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/1.10": b"POST /x HTTP/1.10\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"POST /x HTTP/2.0\r\nHost: x\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two spaces": b"POST  /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "space before the method": b" POST /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "space in the target": b"POST /x y HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the target": b"POST /x\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
}
CHUNKS = {
    "size with a sign": b"+1\r\na\r\n0\r\n\r\n",
    "negative size": b"-1\r\na\r\n0\r\n\r\n",
    "size of 5000 digits": b"0" * 5000 + b"1\r\na\r\n0\r\n\r\n",
    "size beyond 64 bits": b"10000000000000001\r\na\r\n0\r\n\r\n",
    "size in 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\na\r\n0\r\n\r\n",
    "space before the size": b" 1\r\na\r\n0\r\n\r\n",
    "no size": b"\r\na\r\n0\r\n\r\n",
    "only an extension": b";a=b\r\na\r\n0\r\n\r\n",
    "extension of 5 KB": b"1;" + b"a" * 5000 + b"\r\na\r\n0\r\n\r\n",
    "NUL in an extension": b"1;a\x00\r\na\r\n0\r\n\r\n",
    "LF ends a size": b"1\na\r\n0\r\n\r\n",
    "LF ends an extension": b"1;a\na\r\n0\r\n\r\n",
    "LF ends a chunk": b"1\r\na\n0\r\n\r\n",
    "longer than its size": b"1\r\nab\r\n0\r\n\r\n",
    "malformed trailer": b"0\r\nX A: 1\r\n\r\n",
    "folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "101 trailers": b"0\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(101)) + b"\r\n",
    "trailer of 300 KB": b"0\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
}
ALL = MALFORMED | {name: post(b"Transfer-Encoding: chunked", body=body) for name, body in CHUNKS.items()}


def exchange(port: int, request: bytes) -> bytes:
    """Send raw bytes; everything received until the listener closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.fixture(scope="module")
def request_paths() -> list[str]:
    return []


@pytest.fixture(scope="module")
def ports(request_paths: list[str]) -> Iterator[dict[str, int]]:
    def invoke(function: str, event: bytes, request_id: str, sink: Any) -> bytes:
        request_paths.append(json.loads(event)["path"])
        return b'{"statusCode": 200, "body": "hello"}'

    with ExitStack() as stack:
        gateway = Gateway(0)
        route = Route(method="POST", path="/{proxy+}", function="f", timeout_s=20, is_streamed=False)
        gateway.open([route], gateway_responses(read_template()), invoke)
        stack.callback(gateway.close)
        provider = stack.enter_context(ScriptedProvider())
        hook = stack.enter_context(receiver())
        yield {
            "gateway": gateway.port,
            "provider": int(provider.base_url.split(":")[2].split("/")[0]),
            "receiver": int(hook.url.split(":")[2].split("/")[0]),
        }


@pytest.mark.parametrize("malformed", ALL.values(), ids=ALL)
def test_malformed_framing_returns_one_400_and_closes_the_connection(
    ports: dict[str, int], request_paths: list[str], malformed: bytes
) -> None:
    request_paths.clear()
    response = exchange(ports["gateway"], malformed + SMUGGLED * 3)
    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.count(b"HTTP/1.1 ") == 1
    assert json.loads(response.partition(b"\r\n\r\n")[2])["responseStatus"]["errorCode"] == "ValidationException"
    assert request_paths == []


@pytest.mark.parametrize("listener", ["provider", "receiver"])
@pytest.mark.parametrize(
    "name",
    ["length of 5000 digits", "length and chunks", "two lengths", "size with a sign", "no host", "LF ends the head"],
)
def test_other_listeners_reject_malformed_framing(ports: dict[str, int], listener: str, name: str) -> None:
    response = exchange(ports[listener], ALL[name] + SMUGGLED)
    assert response.split(b" ", 2)[1] in (b"400", b"414")
    assert response.count(b"HTTP/1.") == 1


@pytest.mark.parametrize(
    "body",
    [b"5\r\nhello\r\n0\r\n\r\n", b"05;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n", b'5 ; a="b"\r\nhello\r\n000\r\n\r\n'],
    ids=["plain", "extension and trailer", "white space and zeros"],
)
def test_pipelined_requests_after_a_chunked_body_are_served(
    ports: dict[str, int], request_paths: list[str], body: bytes
) -> None:
    request_paths.clear()
    last = b"POST /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    response = exchange(ports["gateway"], b"\r\n" + post(b"transfer-encoding: Chunked", body=body) + SMUGGLED + last)
    assert response.count(b"HTTP/1.1 200 ") == 3
    assert request_paths == ["/x", "/smuggled", "/last"]


def test_rejection_is_readable_while_the_caller_still_sends(ports: dict[str, int]) -> None:
    assert exchange(ports["gateway"], post(b"Content-Length: 5,5") + b"x" * 5_000_000).startswith(b"HTTP/1.1 400 ")
