"""The Lambda runtime streams what a handler yields to a scripted Runtime API."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.runtime_api import PATIENCE_S, Client, running

HEAD = json.dumps({"statusCode": 201, "headers": {"X-A": "é"}})
HEAD_CHUNK = HEAD.encode() + bytes(8)
ERROR_TYPE, ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
# A streaming handler: `wait()` blocks until the gate sends a byte; it sends b"closed" when it is closed.
HANDLER = """
import json, socket
def handler(event, context):
    with socket.create_connection(("127.0.0.1", event)) as gate:
        def wait():
            assert gate.recv(1)
        try:
            yield json.loads(%r)
            %s
        except GeneratorExit:
            gate.sendall(b"closed")
            raise
"""

Start = Callable[..., Client]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as clients:
        yield lambda source, **options: clients.enter_context(running(tmp_path, source, **options))


@pytest.fixture
def gate() -> Iterator[socket.socket]:
    """The socket that a handler connects to, to wait and to report that it was closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def handler_source(*lines: str) -> str:
    return HANDLER % (HEAD, "\n            ".join(lines))


def accept_handler(gate: socket.socket) -> socket.socket:
    connection = gate.accept()[0]
    connection.settimeout(PATIENCE_S)
    return connection


def port(gate: socket.socket) -> int:
    return gate.getsockname()[1]


def test_stream_has_lambda_headers_and_begins_with_head_and_eight_nuls(start: Start, gate: socket.socket) -> None:
    client = start(handler_source("yield b'body'"))
    stream = client.call(port(gate))
    assert str(stream) == "POST /invocation/r-1/response"
    headers = {name.lower(): value for name, value in stream.headers.items()}
    assert {name: headers.pop(name) for name in sorted(headers) if name not in ("host", "accept-encoding")} == {
        "content-type": "application/vnd.awslambda.http-integration-response",
        "lambda-runtime-function-response-mode": "streaming",
        "trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
        "transfer-encoding": "chunked",
    }
    assert [stream.chunk(), stream.chunk(), stream.chunk()] == [HEAD_CHUNK, b"body", None]
    assert stream.trailers == {}
    assert str(client.api.next_request()) == "GET /invocation/next"
    assert client.log == ""


def test_each_chunk_is_sent_before_the_next_is_produced(start: Start, gate: socket.socket) -> None:
    client = start(handler_source("wait()", "yield b'one'", "wait()", "yield b'\\0\\r\\n'", "wait()"))
    stream = client.call(port(gate))
    with accept_handler(gate) as handler:
        for chunk in (HEAD_CHUNK, b"one", b"\0\r\n"):
            assert stream.chunk() == chunk
            assert stream.chunks.empty()
            handler.sendall(b"1")
    assert stream.chunk() is None


@pytest.mark.parametrize("empty", ["b''", "None"])
def test_empty_chunk_sends_nothing(start: Start, gate: socket.socket, empty: str) -> None:
    pause = f"yield {empty}"
    source = handler_source(pause, "yield b'one'", pause, pause, "yield b'two'", pause)
    stream = start(source).call(port(gate))
    assert [stream.chunk() for _ in range(4)] == [HEAD_CHUNK, b"one", b"two", None]


@pytest.mark.parametrize("chunk", ["b''", "None", "b'x' * 1000"], ids=["empty chunks", "None", "chunks"])
def test_handler_is_closed_when_the_reader_hangs_up_then_next_is_polled(
    start: Start, gate: socket.socket, chunk: str
) -> None:
    client = start(handler_source("while True:", f"    yield {chunk}"))
    stream = client.call(port(gate))
    with accept_handler(gate) as handler:
        assert stream.chunk() == HEAD_CHUNK
        stream.hang_up()
        assert handler.recv(6) == b"closed"
    next_stream = client.call(port(gate), request_id="r-2")
    assert (str(next_stream), next_stream.chunk()) == ("POST /invocation/r-2/response", HEAD_CHUNK)
    assert client.log == ""


def test_stream_rejected_midway_closes_the_handler_and_ends_the_process(start: Start, gate: socket.socket) -> None:
    client = start(handler_source("wait()", "while True:", "    yield b''"))
    stream = client.call(port(gate))
    with accept_handler(gate) as handler:
        stream.connection.sendall(b"HTTP/1.1 413 -\r\nContent-Length: 3\r\n\r\nwhy")
        handler.sendall(b"1")
        assert handler.recv(6) == b"closed"
    assert client.wait_for_exit() != 0
    assert client.api.has_no_request()
    assert sum("the Runtime API returned 413" in line for line in client.log.splitlines()) == 1


def test_error_midway_is_sent_in_the_trailers_of_the_stream(start: Start, gate: socket.socket) -> None:
    client = start(handler_source("yield b'one'", "raise LookupError('no\\nsuch thíng')"))
    stream = client.call(port(gate))
    assert [stream.chunk() for _ in range(3)] == [HEAD_CHUNK, b"one", None]
    assert stream.trailers.keys() == {ERROR_TYPE, ERROR_BODY}
    assert stream.trailers[ERROR_TYPE] == "LookupError"
    error = json.loads(base64.b64decode(stream.trailers[ERROR_BODY], validate=True))
    assert (error["errorType"], error["errorMessage"]) == ("LookupError", "no\nsuch thíng")
    assert [frame for frame in error["stackTrace"] if "in handler" in frame] == error["stackTrace"]
    assert str(client.api.next_request()) == "GET /invocation/next"
    assert client.log.startswith("[ERROR] LookupError: no\rsuch thíng\rTraceback (most recent call last):\r")


def test_non_ascii_error_type_is_escaped_in_the_header(start: Start) -> None:
    client = start("class Ошибка(Exception): pass\ndef handler(event, context):\n    raise Ошибка('x')\n")
    response = client.call()
    assert response.headers[ERROR_TYPE] == ascii("Ошибка")[1:-1]
    assert json.loads(response.body)["errorType"] == "Ошибка"
    assert str(client.api.next_request()) == "GET /invocation/next"


@pytest.mark.parametrize(
    ("source", "error_type"),
    [
        ("    raise LookupError('no such thing')\n    yield {}\n", "LookupError"),
        ("    return\n    yield\n", "StopIteration"),
        ("    yield {'statusCode': object()}\n", "TypeError"),
    ],
    ids=["raises", "yields nothing", "no JSON"],
)
def test_error_before_the_head_is_an_invocation_error(start: Start, source: str, error_type: str) -> None:
    client = start(f"def handler(event, context):\n{source}")
    response = client.call()
    assert (str(response), response.headers[ERROR_TYPE]) == ("POST /invocation/r-1/error", error_type)
    assert json.loads(response.body)["errorType"] == error_type
    assert "transfer-encoding" not in response.headers
    assert str(client.api.next_request()) == "GET /invocation/next"


def test_one_process_serves_buffered_and_streamed_responses(start: Start) -> None:
    source = """
def chunks(event):
    yield {}
    yield event.encode()
def handler(event, context):
    return chunks(event) if event else {"statusCode": 200}
"""
    client = start(source)
    for event in ("one", "", "two", ""):
        response = client.call(event)
        if event:
            assert [response.chunk() for _ in range(3)] == [b"{}" + bytes(8), event.encode(), None]
        else:
            assert response.body == b'{"statusCode": 200}'


def test_log_line_during_a_stream_has_request_id_and_utc_time(start: Start, gate: socket.socket) -> None:
    client = start("import logging\n" + handler_source("logging.warning('%s', 'half')", "yield b'one'"), TZ="XXX-9")
    stream = client.call(port(gate), request_id="r-9")
    assert [stream.chunk() for _ in range(3)] == [HEAD_CHUNK, b"one", None]
    level, stamp, request_id, message = client.log.split("\t")
    assert (level, request_id, message) == ("[WARNING]", "r-9", "half\n")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(stamp)) < timedelta(minutes=5)
