"""A failing stream: an error response in the gateway's format before its head, a truncated body after it."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local.runtime_api import MAX_STREAM_BYTES, FunctionFailed
from local.streamed_response import MAX_HEAD_BYTES, StreamedResponse
from tests.served_function import HEAD, PATIENCE_S, FunctionServer, serving

Start = Callable[..., FunctionServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *lines, **options: stack.enter_context(serving(tmp_path, *lines, **options))


def error_code(response: http.client.HTTPResponse) -> str:
    return json.loads(response.read())["responseStatus"]["errorCode"]


def read_body(response: http.client.HTTPResponse) -> tuple[int, bool]:
    """The number of bytes received, and whether the body is truncated."""
    size = 0
    try:
        while chunk := response.read(65_536):
            size += len(chunk)
    except (http.client.IncompleteRead, ConnectionResetError):
        return size, True
    return size, False


@pytest.mark.parametrize("ending", ["os._exit(3)", "wait()", "raise LookupError('x')"])
def test_failure_during_the_body_truncates_it(start: Start, ending: str) -> None:
    server = start(HEAD, "yield b'one'", ending, limit_s=1 if ending == "wait()" else PATIENCE_S)
    with server.get() as response:
        assert response.status == 201
        with pytest.raises(http.client.IncompleteRead) as error_info:
            response.read()
        assert error_info.value.partial == b"one"


def test_process_that_exited_during_a_stream_is_not_reused(start: Start) -> None:
    server = start(HEAD, "yield b'one'", "os._exit(3)")
    for _ in range(5):
        with server.get() as response:
            assert response.status == 201
            with pytest.raises(http.client.IncompleteRead):
                response.read()


@pytest.mark.parametrize(
    "lines",
    [
        ["os._exit(3)", "yield"],
        ["raise LookupError('x')", "yield"],
        ["wait()", "yield"],
        ["yield 7"],
        ["yield {'headers': {}}"],
        ["yield {'statusCode': 200, 'headers': {'x': 'a\\r\\nb: c'}}", "yield b'one'"],
        [f"yield {{'statusCode': 200, 'headers': {{'x': 'y' * {MAX_HEAD_BYTES}}}}}", "yield b'one'"],
        ["return", "yield"],
    ],
    ids=["exits", "raises", "times out", "not an object", "no status", "line break", "head too long", "no chunk"],
)
def test_failure_before_the_head_returns_502(start: Start, lines: list[str]) -> None:
    server = start(*lines, limit_s=1 if lines[0] == "wait()" else PATIENCE_S)
    with server.get() as response:
        assert (response.status, error_code(response)) == (502, "InternalError")


def test_buffered_response_on_a_streaming_route_returns_502(start: Start) -> None:
    server = start(module="def handler(event, context):\n    return {'statusCode': 200, 'body': 'whole'}\n")
    with closing(server.connect()) as connection:
        for _ in range(2):
            with server.get(connection) as response:
                assert (response.status, error_code(response)) == (502, "InternalError")


def test_stream_without_a_head_before_the_route_timeout_returns_504(start: Start) -> None:
    server = start("wait()", "yield", limit_s=1, route_s=0.1)
    with server.get() as response:
        assert (response.status, error_code(response)) == (504, "ProviderTimeout")


@pytest.mark.parametrize("chunk", ["b''", "b'x' * 100_000"], ids=["empty chunks", "chunks"])
def test_route_timeout_truncates_a_stream_and_closes_its_handler(start: Start, chunk: str) -> None:
    server = start(HEAD, "while True:", f"    yield {chunk}", route_s=0.3)
    pids: set[str] = set()
    for _ in range(2):
        with server.get() as response, server.accept_gate() as handler:
            _, is_cut = read_body(response)
            assert is_cut
            assert handler.recv(6) == b"closed"
            pids.add(response.headers["x-pid"])
    assert len(pids) == 1


def test_stream_is_truncated_at_the_lambda_limit(start: Start) -> None:
    server = start(HEAD, "while True:", "    yield bytes(1_000_000)")
    with server.get() as response, server.accept_gate() as handler:
        size, is_cut = read_body(response)
        assert is_cut
        assert handler.recv(6) == b"closed"
        assert MAX_STREAM_BYTES - 1_000_000 < size <= MAX_STREAM_BYTES


def test_error_of_any_length_truncates_the_body(start: Start) -> None:
    server = start(HEAD, "yield b'one'", "raise LookupError('x' * 200_000)")
    with server.get() as response, pytest.raises(http.client.IncompleteRead):
        response.read()


def test_idle_timeout_truncates_a_stream_and_closes_its_handler(start: Start) -> None:
    server = start(HEAD, "yield b'one'", "while True:", "    yield b''")
    event = json.dumps({"queryStringParameters": {"gate": server.target.partition("=")[2]}}).encode()
    chunks: list[bytes] = []
    server_socket, client_socket = socket.socketpair()
    with server_socket, client_socket:
        streamed = StreamedResponse(server_socket, lambda head: chunks.append, timeout_s=PATIENCE_S, idle_s=0.1)
        with pytest.raises(FunctionFailed):
            server.pool.invoke(event, sink=streamed)
        assert streamed.is_late
        with server.accept_gate() as handler:
            assert handler.recv(6) == b"closed"
    assert chunks == [b"one"]
