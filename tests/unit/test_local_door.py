"""The door answers as a REST API does: routes, events, limits, its own answers."""

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
    return Route(method=method, path=path, function=f"behind {path}", timeout_s=timeout_s, streamed=False)


class Calls:
    """A function that keeps its events and answers what it is told to."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.answer: bytes | Exception = b'{"statusCode": 200, "body": "hello"}'

    def __call__(self, function: str, event: bytes, request_id: str, sink: Any) -> bytes:
        self.events.append(json.loads(event))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Open a door over routes and a function; its port."""
    with ExitStack() as running:

        def started(routes: list[Route], invoke: Invoke) -> int:
            door = Gateway(0)
            door.open(routes, RESPONSES, invoke)
            running.callback(door.close)
            return door.port

        yield started


@pytest.fixture
def door(calls: Calls, start: Callable[..., int]) -> int:
    return start([route("/{proxy+}", "POST"), route("/{proxy+}"), route("/v1/models")], calls)


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def raw(port: int, *pieces: bytes) -> bytes:
    """Send bytes as they stand; all that comes back until the door hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    ("path", "taken_by"),
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
def test_the_most_specific_route_takes_a_path_whatever_the_order(path: str, taken_by: str | None, order: int) -> None:
    found = Routes([route(known) for known in PATHS[::order]]).find("GET", path)
    assert (found[0].path if found else None) == taken_by


def test_a_method_the_chosen_path_lacks_is_not_taken_by_a_greedy_path() -> None:
    assert Routes([route("/v1/models"), route("/{proxy+}", "POST")]).find("POST", "/v1/models") is None


def test_an_unknown_method_is_the_templates_404_with_the_callers_origin(door: int) -> None:
    status, headers, body = ask(door, "POST", "/v1/models", origin="https://app.example")
    assert (status, headers["access-control-allow-origin"]) == (404, "https://app.example")
    assert json.loads(body)["responseStatus"]["errorCode"] == "NotFound"
    assert json.loads(body)["error"]["code"] == "not_found"


def test_without_an_origin_its_header_is_left_out(door: int) -> None:
    assert "access-control-allow-origin" not in ask(door, "POST", "/v1/models")[1]


def test_a_method_nobody_knows_is_the_same_404(door: int) -> None:
    status, _, body = ask(door, "PROPFIND", "/v1/models")
    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")


def test_a_path_arrives_as_sent_and_a_query_decoded(door: int, calls: Calls) -> None:
    ask(door, "GET", "/api/Queue%5B%5D/?refId=a%2Fb&x=1&x=2&empty=")
    event = calls.events[0]
    assert event["path"] == event["requestContext"]["path"] == "/api/Queue%5B%5D/"
    assert event["pathParameters"] == {"proxy": "api/Queue%5B%5D"}
    assert event["resource"] == event["requestContext"]["resourcePath"] == "/{proxy+}"
    assert event["queryStringParameters"] == {"refId": "a/b", "x": "2", "empty": ""}
    assert event["multiValueQueryStringParameters"]["x"] == ["1", "2"]


def test_the_product_can_build_its_own_address(door: int, calls: Calls) -> None:
    ask(door, "GET", "/x", x_forwarded_proto="https")
    event = calls.events[0]
    headers = {name.lower(): value for name, value in event["headers"].items()}
    assert headers["x-forwarded-proto"] == "http"
    assert event["requestContext"]["domainName"] == f"127.0.0.1:{door}"
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


def test_an_absent_query_parameter_and_body_are_null(door: int, calls: Calls) -> None:
    ask(door, "GET", "/x")
    event = calls.events[0]
    assert (event["queryStringParameters"], event["body"], event["isBase64Encoded"]) == (None, None, False)


def test_a_chunked_body_arrives_whole(door: int, calls: Calls) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(door, head + b'5\r\n{"a":\r\n', b"3;note=1\r\n 1}\r\n0\r\nTrailer: t\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert calls.events[0]["body"] == '{"a": 1}'


def test_a_connection_serves_request_after_request(door: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door, timeout=20)
    try:
        for _ in range(3):
            connection.request("POST", "/x", b"{}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello")
    finally:
        connection.close()


def test_an_answer_to_head_has_no_body(door: int) -> None:
    status, headers, body = ask(door, "HEAD", "/x")
    assert (status, body) == (404, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_a_body_over_ten_megabytes_is_refused_and_the_caller_hears_it(door: int, calls: Calls, chunked: bool) -> None:
    size = MAX_BODY_BYTES + 1
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
        framing = b"Transfer-Encoding: chunked"
    else:
        body, framing = b"x" * size, b"Content-Length: %d" % size
    answer = raw(door, b"POST /x HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing, body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
    assert calls.events == []


def test_a_caller_who_asks_first_is_refused_before_sending_a_body_too_large(door: int) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert raw(door, head % (MAX_BODY_BYTES + 1)).startswith(b"HTTP/1.1 413 ")


def test_a_caller_who_asks_first_is_told_to_go_on(door: int) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    answer = raw(door, head, b"{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


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
def test_what_is_not_http_is_a_400_in_the_templates_shape(door: int, calls: Calls, request_bytes: bytes) -> None:
    answer = raw(door, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["responseStatus"]["errorCode"] == "ValidationException"
    assert calls.events == []


@pytest.mark.parametrize(
    "returned",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"body": "no status"}',
        b'{"statusCode": 200, "body": {"not": "a string"}}',
        b'{"statusCode": 200, "headers": {"x": "a\\r\\nset-cookie: b"}}',
    ],
)
def test_a_malformed_answer_is_a_502_that_quotes_the_request_id(door: int, calls: Calls, returned: bytes) -> None:
    calls.answer = returned
    status, headers, body = ask(door, "GET", "/x")
    assert status == 502
    assert json.loads(body)["error"]["code"] == "internal_error"
    request_id = calls.events[0]["requestContext"]["requestId"]
    assert headers["x-amzn-requestid"] == request_id
    assert request_id in json.loads(body)["responseStatus"]["message"]


def test_many_values_of_a_header_go_back_as_many_headers(door: int, calls: Calls) -> None:
    answer = {"statusCode": 200, "headers": {"X-A": "0"}, "multiValueHeaders": {"x-a": ["1", "2"]}, "body": ""}
    calls.answer = json.dumps(answer).encode()
    assert ask(door, "GET", "/x")[1].get_all("x-a") == ["1", "2"]


def test_an_event_over_lambdas_limit_is_a_413(door: int, calls: Calls) -> None:
    calls.answer = FunctionFailed("RequestTooLargeException", "the event is too large")
    assert ask(door, "POST", "/x", b"{}")[0] == 413


def test_a_function_that_timed_out_before_the_gateway_gives_up_is_a_502(door: int, calls: Calls) -> None:
    calls.answer = FunctionFailed("Sandbox.Timedout", "Task timed out after 1.00 seconds")
    assert ask(door, "GET", "/x")[0] == 502


def test_a_call_that_outlasts_the_integration_timeout_is_a_504_not_to_be_repeated(
    calls: Calls, start: Callable[..., int]
) -> None:
    calls.answer = FunctionFailed("Sandbox.Timedout", "Task timed out after 29.00 seconds")
    status, headers, body = ask(start([route("/x", timeout_s=0.0)], calls), "GET", "/x")
    assert (status, headers["x-should-retry"]) == (504, "false")
    assert json.loads(body)["responseStatus"]["errorCode"] == "ProviderTimeout"


def test_a_taken_port_is_one_clear_line_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
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
    assert dev.stderr.startswith(f"dev: port {port} is taken")
    assert dev.stderr.count("\n") == 1
