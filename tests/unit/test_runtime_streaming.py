"""What a handler yields, on its way through the main loop to a scripted Runtime API."""

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
# A handler that streams: it waits where it calls `wait()`, and says when it is closed.
TOLD = """
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
        yield lambda source, **more: clients.enter_context(running(tmp_path, source, **more))


@pytest.fixture
def gate() -> Iterator[socket.socket]:
    """Where a handler connects to, to wait and to say that it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def told(*lines: str) -> str:
    return TOLD % (HEAD, "\n            ".join(lines))


def connected(gate: socket.socket) -> socket.socket:
    connection = gate.accept()[0]
    connection.settimeout(PATIENCE_S)
    return connection


def port(gate: socket.socket) -> int:
    return gate.getsockname()[1]


def test_a_stream_is_announced_as_lambda_wants_it_and_begins_with_the_head_and_eight_nuls(
    start: Start, gate: socket.socket
) -> None:
    client = start(told("yield b'body'"))
    stream = client.call(port(gate))
    assert str(stream) == "POST /invocation/r-1/response"
    sent = {name.lower(): value for name, value in stream.headers.items()}
    assert {name: sent.pop(name) for name in sorted(sent) if name not in ("host", "accept-encoding")} == {
        "content-type": "application/vnd.awslambda.http-integration-response",
        "lambda-runtime-function-response-mode": "streaming",
        "trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
        "transfer-encoding": "chunked",
    }
    assert [stream.chunk(), stream.chunk(), stream.chunk()] == [HEAD_CHUNK, b"body", None]
    assert stream.trailers == {}
    assert str(client.api.hear()) == "GET /invocation/next"
    assert client.log == ""


def test_each_piece_is_out_before_the_next_is_made(start: Start, gate: socket.socket) -> None:
    client = start(told("wait()", "yield b'one'", "wait()", "yield b'\\0\\r\\n'", "wait()"))
    stream = client.call(port(gate))
    with connected(gate) as handler:
        for piece in (HEAD_CHUNK, b"one", b"\0\r\n"):
            assert stream.chunk() == piece
            assert stream.chunks.empty()
            handler.sendall(b"1")
    assert stream.chunk() is None


def test_an_empty_piece_sends_nothing(start: Start, gate: socket.socket) -> None:
    stream = start(told("yield b''", "yield b'one'", "yield b''", "yield b''", "yield b'two'", "yield b''")).call(
        port(gate)
    )
    assert [stream.chunk() for _ in range(4)] == [HEAD_CHUNK, b"one", b"two", None]


@pytest.mark.parametrize("piece", ["b''", "b'x' * 1000"], ids=["empty pieces", "pieces"])
def test_a_handler_whose_reader_is_gone_is_closed_and_the_next_call_is_asked_for(
    start: Start, gate: socket.socket, piece: str
) -> None:
    client = start(told("while True:", f"    yield {piece}"))
    stream = client.call(port(gate))
    with connected(gate) as handler:
        assert stream.chunk() == HEAD_CHUNK
        stream.hang_up()
        assert handler.recv(6) == b"closed"
    again = client.call(port(gate), request_id="r-2")
    assert (str(again), again.chunk()) == ("POST /invocation/r-2/response", HEAD_CHUNK)
    assert client.log == ""


def test_a_refusal_in_the_middle_of_a_stream_closes_its_handler_and_ends_the_process(
    start: Start, gate: socket.socket
) -> None:
    client = start(told("wait()", "while True:", "    yield b''"))
    stream = client.call(port(gate))
    with connected(gate) as handler:
        stream.connection.sendall(b"HTTP/1.1 413 -\r\nContent-Length: 3\r\n\r\nwhy")
        handler.sendall(b"1")
        assert handler.recv(6) == b"closed"
    assert client.ends() != 0
    assert client.api.is_silent()
    assert sum("the Runtime API answered 413" in line for line in client.log.splitlines()) == 1


def test_an_error_in_the_middle_goes_into_the_trailers_of_a_stream_that_ends_properly(
    start: Start, gate: socket.socket
) -> None:
    client = start(told("yield b'one'", "raise LookupError('no\\nsuch thíng')"))
    stream = client.call(port(gate))
    assert [stream.chunk() for _ in range(3)] == [HEAD_CHUNK, b"one", None]
    assert stream.trailers.keys() == {ERROR_TYPE, ERROR_BODY}
    assert stream.trailers[ERROR_TYPE] == "LookupError"
    error = json.loads(base64.b64decode(stream.trailers[ERROR_BODY], validate=True))
    assert (error["errorType"], error["errorMessage"]) == ("LookupError", "no\nsuch thíng")
    assert [frame for frame in error["stackTrace"] if "in handler" in frame] == error["stackTrace"]
    assert str(client.api.hear()) == "GET /invocation/next"
    assert client.log.startswith("[ERROR] LookupError: no\rsuch thíng\rTraceback (most recent call last):\r")


def test_a_name_of_an_error_that_no_header_can_hold_is_told_in_escapes(start: Start) -> None:
    client = start("class Ошибка(Exception): pass\ndef handler(event, context):\n    raise Ошибка('x')\n")
    answer = client.call()
    assert answer.headers[ERROR_TYPE] == ascii("Ошибка")[1:-1]
    assert json.loads(answer.body)["errorType"] == "Ошибка"
    assert str(client.api.hear()) == "GET /invocation/next"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("    raise LookupError('no such thing')\n    yield {}\n", "LookupError"),
        ("    return\n    yield\n", "StopIteration"),
        ("    yield {'statusCode': object()}\n", "TypeError"),
    ],
    ids=["raises", "yields nothing", "no JSON"],
)
def test_what_fails_before_its_head_is_out_is_an_ordinary_error(start: Start, source: str, kind: str) -> None:
    client = start(f"def handler(event, context):\n{source}")
    answer = client.call()
    assert (str(answer), answer.headers[ERROR_TYPE]) == ("POST /invocation/r-1/error", kind)
    assert json.loads(answer.body)["errorType"] == kind
    assert "transfer-encoding" not in answer.headers
    assert str(client.api.hear()) == "GET /invocation/next"


def test_one_process_answers_some_calls_whole_and_streams_others(start: Start) -> None:
    source = """
def pieces(event):
    yield {}
    yield event.encode()
def handler(event, context):
    return pieces(event) if event else {"statusCode": 200}
"""
    client = start(source)
    for event in ("one", "", "two", ""):
        answer = client.call(event)
        if event:
            assert [answer.chunk() for _ in range(3)] == [b"{}" + bytes(8), event.encode(), None]
        else:
            assert answer.body == b'{"statusCode": 200}'


def test_a_log_line_while_a_stream_is_sent_names_its_call_and_the_time_in_utc(
    start: Start, gate: socket.socket
) -> None:
    client = start("import logging\n" + told("logging.warning('%s', 'half')", "yield b'one'"), TZ="XXX-9")
    stream = client.call(port(gate), request_id="r-9")
    assert [stream.chunk() for _ in range(3)] == [HEAD_CHUNK, b"one", None]
    level, stamp, request_id, message = client.log.split("\t")
    assert (level, request_id, message) == ("[WARNING]", "r-9", "half\n")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(stamp)) < timedelta(minutes=5)
