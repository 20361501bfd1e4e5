"""The local gateway behaves as API Gateway's REST API: routes, events, limits, error responses."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from local.gateway import MAX_BODY_BYTES, Gateway, Routes
from local.runtime_api import FunctionFailed
from local.template import REPOSITORY, Route, gateway_responses, read_template

TEMPLATE = read_template()
RESPONSES = gateway_responses(TEMPLATE)
PATHS = [
    "/v1/models",
    "/v1/models/{proxy+}",
    "/v1/jobs/{id}/result",
    "/api/OpenAiChatCompletion",
    "/api/{proxy+}",
    "/health",
    "/{proxy+}",
]
Invoke = Callable[[str, bytes, str, Any], bytes]


def route(path: str, method: str = "GET", timeout_s: float = 29.0) -> Route:
    return Route(method=method, path=path, function=f"behind {path}", timeout_s=timeout_s, is_streamed=False)


class Calls:
    """A function that records its events and returns or raises `response`."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.response: bytes | Exception = b'{"statusCode": 200, "body": "hello"}'

    def __call__(self, function: str, event: bytes, request_id: str, sink: Any) -> bytes:
        self.events.append(json.loads(event))
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Start a gateway with routes and a function; returns its port."""
    with ExitStack() as stack:

        def start_gateway(routes: list[Route], invoke: Invoke) -> int:
            gateway = Gateway(0)
            gateway.open(routes, RESPONSES, invoke)
            stack.callback(gateway.close)
            return gateway.port

        yield start_gateway


@pytest.fixture
def gateway(calls: Calls, start: Callable[..., int]) -> int:
    return start([route("/{proxy+}", "POST"), route("/{proxy+}"), route("/v1/models")], calls)


def send(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def send_raw(port: int, *chunks: bytes) -> bytes:
    """Send raw bytes; everything received until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    ("path", "expected_path"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/models/llama3:8b", "/v1/models/{proxy+}"),
        ("/v1/models/meta/llama", "/v1/models/{proxy+}"),
        ("/v1/jobs/7/result", "/v1/jobs/{id}/result"),
        ("/v1/jobs/7/8/result", "/{proxy+}"),
        ("/api/OpenAiChatCompletion", "/api/OpenAiChatCompletion"),
        ("/api/openaichatcompletion", "/api/{proxy+}"),
        ("/api/QueueOpenAiChatCompletion%5B%5D", "/api/{proxy+}"),
        ("/HEALTH", "/{proxy+}"),
        ("/", None),
    ],
)
@pytest.mark.parametrize("order", [1, -1], ids=["as listed", "reversed"])
def test_most_specific_route_matches_in_any_order(path: str, expected_path: str | None, order: int) -> None:
    match = Routes([route(pattern) for pattern in PATHS[::order]]).find("GET", path)
    assert (match[0].path if match else None) == expected_path


def test_greedy_path_does_not_match_a_method_missing_on_a_literal_path() -> None:
    assert Routes([route("/v1/models"), route("/{proxy+}", "POST")]).find("POST", "/v1/models") is None


def test_unsupported_method_returns_the_template_404_with_cors_origin(gateway: int) -> None:
    status, headers, body = send(gateway, "POST", "/v1/models", origin="https://app.example")
    assert (status, headers["access-control-allow-origin"]) == (404, "https://app.example")
    assert json.loads(body)["responseStatus"]["errorCode"] == "NotFound"
    assert json.loads(body)["error"]["code"] == "not_found"


def test_cors_header_is_omitted_without_an_origin(gateway: int) -> None:
    assert "access-control-allow-origin" not in send(gateway, "POST", "/v1/models")[1]


def test_unknown_http_method_returns_404(gateway: int) -> None:
    status, _, body = send(gateway, "PROPFIND", "/v1/models")
    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")


def test_event_has_the_raw_path_and_the_decoded_query(gateway: int, calls: Calls) -> None:
    send(gateway, "GET", "/api/Queue%5B%5D/?refId=a%2Fb&x=1&x=2&empty=")
    event = calls.events[0]
    assert event["path"] == event["requestContext"]["path"] == "/api/Queue%5B%5D/"
    assert event["pathParameters"] == {"proxy": "api/Queue%5B%5D"}
    assert event["resource"] == event["requestContext"]["resourcePath"] == "/{proxy+}"
    assert event["queryStringParameters"] == {"refId": "a/b", "x": "2", "empty": ""}
    assert event["multiValueQueryStringParameters"]["x"] == ["1", "2"]


def test_event_contains_host_protocol_and_source_ip(gateway: int, calls: Calls) -> None:
    send(gateway, "GET", "/x", x_forwarded_proto="https")
    event = calls.events[0]
    headers = {name.lower(): value for name, value in event["headers"].items()}
    assert headers["x-forwarded-proto"] == "http"
    assert event["requestContext"]["domainName"] == f"127.0.0.1:{gateway}"
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


def test_missing_query_and_body_are_null_in_the_event(gateway: int, calls: Calls) -> None:
    send(gateway, "GET", "/x")
    event = calls.events[0]
    assert (event["queryStringParameters"], event["body"], event["isBase64Encoded"]) == (None, None, False)


def test_chunked_body_is_decoded(gateway: int, calls: Calls) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = send_raw(gateway, head + b'5\r\n{"a":\r\n', b"3;note=1\r\n 1}\r\n0\r\nTrailer: t\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200 ")
    assert calls.events[0]["body"] == '{"a": 1}'


def test_keep_alive_connection_serves_several_requests(gateway: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway, timeout=20)
    try:
        for _ in range(3):
            connection.request("POST", "/x", b"{}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"hello")
    finally:
        connection.close()


def test_head_response_has_no_body(gateway: int) -> None:
    status, headers, body = send(gateway, "HEAD", "/x")
    assert (status, body) == (404, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_body_over_ten_megabytes_returns_413(gateway: int, calls: Calls, chunked: bool) -> None:
    size = MAX_BODY_BYTES + 1
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
        framing = b"Transfer-Encoding: chunked"
    else:
        body, framing = b"x" * size, b"Content-Length: %d" % size
    response = send_raw(gateway, b"POST /x HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing, body)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
    assert calls.events == []


def test_expect_continue_rejects_a_large_body_before_it_is_sent(gateway: int) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert send_raw(gateway, head % (MAX_BODY_BYTES + 1)).startswith(b"HTTP/1.1 413 ")


def test_expect_continue_returns_100(gateway: int) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    response = send_raw(gateway, head, b"{}")
    assert response.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    ],
)
def test_malformed_http_returns_the_template_400(gateway: int, calls: Calls, request_bytes: bytes) -> None:
    response = send_raw(gateway, request_bytes)
    assert response.startswith(b"HTTP/1.1 400 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["responseStatus"]["errorCode"] == "ValidationException"
    assert calls.events == []


@pytest.mark.parametrize(
    "response",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"body": "no status"}',
        b'{"statusCode": 200, "body": {"not": "a string"}}',
        b'{"statusCode": 200, "headers": {"x": "a\\r\\nset-cookie: b"}}',
    ],
)
def test_malformed_function_response_returns_502_with_request_id(gateway: int, calls: Calls, response: bytes) -> None:
    calls.response = response
    status, headers, body = send(gateway, "GET", "/x")
    assert status == 502
    assert json.loads(body)["error"]["code"] == "internal_error"
    request_id = calls.events[0]["requestContext"]["requestId"]
    assert headers["x-amzn-requestid"] == request_id
    assert request_id in json.loads(body)["responseStatus"]["message"]


def test_multi_value_headers_are_sent_as_separate_headers(gateway: int, calls: Calls) -> None:
    response = {"statusCode": 200, "headers": {"X-A": "0"}, "multiValueHeaders": {"x-a": ["1", "2"]}, "body": ""}
    calls.response = json.dumps(response).encode()
    assert send(gateway, "GET", "/x")[1].get_all("x-a") == ["1", "2"]


def test_event_over_the_lambda_limit_returns_413(gateway: int, calls: Calls) -> None:
    calls.response = FunctionFailed("RequestTooLargeException", "the event is too large")
    assert send(gateway, "POST", "/x", b"{}")[0] == 413


def test_function_timeout_before_integration_timeout_returns_502(gateway: int, calls: Calls) -> None:
    calls.response = FunctionFailed("Sandbox.Timedout", "Task timed out after 1.00 seconds")
    assert send(gateway, "GET", "/x")[0] == 502


def test_integration_timeout_returns_504_without_retry(calls: Calls, start: Callable[..., int]) -> None:
    calls.response = FunctionFailed("Sandbox.Timedout", "Task timed out after 29.00 seconds")
    status, headers, body = send(start([route("/x", timeout_s=0.0)], calls), "GET", "/x")
    assert (status, headers["x-should-retry"]) == (504, "false")
    assert json.loads(body)["responseStatus"]["errorCode"] == "ProviderTimeout"


def test_port_in_use_prints_one_line_and_exits_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dev = subprocess.run(
            [sys.executable, "-m", "local.dev"],
            env={**os.environ, "PORT": str(port)},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert dev.returncode == 1
    assert dev.stderr.startswith(f"dev: Port {port} is in use")
    assert dev.stderr.count("\n") == 1
