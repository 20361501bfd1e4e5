"""A streamed answer from a handler, through the main loop, the local Runtime API and the door, to a caller."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from local.door import Door
from local.reply import HEAD_ENDS, MAX_HEAD_BYTES, Reply
from local.runtime_api import MAX_STREAM_BYTES, Deployed, FunctionFailed, Pool
from local.template import REPOSITORY, Route, gateway_responses, read_template

LAYER = REPOSITORY / "layers" / "aiserver"
RESPONSES = gateway_responses(read_template())
PATIENCE_S = 20
CLOSED_S = 2  # within which a handler is told that its caller has gone
# A handler that streams: it waits where it calls `wait()`, and says when it is closed.
TOLD = """
import json, os, socket
def handler(event, context):
    with socket.create_connection(("127.0.0.1", int(event["queryStringParameters"]["gate"]))) as gate:
        def wait():
            assert gate.recv(1)
        try:
            %s
        except GeneratorExit:
            gate.sendall(b"closed")
            raise
"""
HEAD = "yield {'statusCode': 201, 'headers': {'X-Pid': str(os.getpid()), 'Content-Length': '3'}}"


class Served:
    """A door before one streaming function, and the gate at which its handler waits."""

    def __init__(self, pool: Pool, door: Door, gate: socket.socket) -> None:
        self.pool = pool
        self.port = door.port
        self._gate = gate
        self.target = f"/x?gate={gate.getsockname()[1]}"

    def at_gate(self) -> socket.socket:
        connection = self._gate.accept()[0]
        connection.settimeout(PATIENCE_S)
        return connection

    @contextmanager
    def asked(self, connection: http.client.HTTPConnection | None = None) -> Iterator[http.client.HTTPResponse]:
        asking = connection or self.connected()
        try:
            asking.request("GET", self.target)
            yield asking.getresponse()
        finally:
            if connection is None:
                asking.close()

    def connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def raw(self, request: str) -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        caller.sendall(request.encode())
        return caller


Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Serve a handler whose body is given line by line, or whose module is given as a whole."""
    with ExitStack() as running:

        def started(*lines: str, module: str = "", limit_s: int = PATIENCE_S, route_s: float = PATIENCE_S) -> Served:
            (tmp_path / "handler.py").write_text(module or TOLD % "\n            ".join(lines), encoding="utf-8")
            wrapped = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/bin/aiserver-runtime", "PYTHONPYCACHEPREFIX": ""}
            toy = Deployed("toy", "arn:toy", tmp_path, "handler.handler", limit_s, 256, wrapped)
            pool = Pool(toy, "http://127.0.0.1:1", tmp_path, [LAYER])
            running.callback(pool.close)
            gate = running.enter_context(socket.create_server(("127.0.0.1", 0)))
            gate.settimeout(PATIENCE_S)
            door = Door(0)
            running.callback(door.close)
            route = Route(method="GET", path="/x", function="toy", timeout_s=route_s, streamed=True)

            def invoke(function: str, event: bytes, request_id: str, sink: Any) -> bytes:
                return pool.invoke(event, request_id=request_id, sink=sink)

            door.open([route], RESPONSES, invoke)
            return Served(pool, door, gate)

        yield started


def error_code(answer: http.client.HTTPResponse) -> str:
    return json.loads(answer.read())["responseStatus"]["errorCode"]


def read(answer: http.client.HTTPResponse) -> tuple[int, bool]:
    """How many bytes come, and whether they lack their end."""
    size = 0
    try:
        while piece := answer.read(65_536):
            size += len(piece)
    except (http.client.IncompleteRead, ConnectionResetError):
        return size, True
    return size, False


def test_a_caller_has_the_head_and_each_piece_while_the_handler_still_waits(start: Start) -> None:
    served = start(HEAD, "wait()", "yield b'one'", "wait()", "yield b'\\0\\r\\ntwo'", "wait()")
    with served.asked() as answer, served.at_gate() as handler:
        assert answer.status == 201
        assert int(answer.headers["x-pid"]) > 0
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["content-length"] is None
        for piece in (b"one", b"\0\r\ntwo"):
            handler.sendall(b"1")
            assert answer.read1() == piece
        handler.sendall(b"1")
        assert answer.read1() == b""


def test_every_byte_arrives_as_it_was_sent(start: Start) -> None:
    served = start(HEAD, "yield bytes(range(256)) * 1000", "yield b''", "yield bytes(8)", "yield b'0\\r\\n\\r\\n'")
    with served.asked() as answer:
        assert answer.read() == bytes(range(256)) * 1000 + bytes(8) + b"0\r\n\r\n"


def test_a_connection_serves_another_request_after_a_stream(start: Start) -> None:
    served = start(HEAD, "yield b'one'", "yield b'two'")
    with closing(served.connected()) as connection:
        pids: set[str] = set()
        for _ in range(3):
            with served.asked(connection) as answer:
                assert answer.read() == b"onetwo"
                pids.add(answer.headers["x-pid"])
    assert len(pids) == 1


@pytest.mark.parametrize("piece", ["b''", "b'x' * 100_000"], ids=["empty pieces", "pieces"])
def test_a_handler_whose_caller_hangs_up_is_closed_and_its_process_serves_the_next_call(
    start: Start, piece: str
) -> None:
    served = start(HEAD, "yield b'first'", "wait()", "while True:", f"    yield {piece}")
    pids: set[str] = set()
    for _ in range(2):
        connection = served.connected()
        with served.asked(connection) as answer, served.at_gate() as handler:
            pids.add(answer.headers["x-pid"])
            assert answer.read(5) == b"first"
            handler.sendall(b"1")
            connection.close()
            answer.close()
            handler.settimeout(CLOSED_S)
            assert handler.recv(6) == b"closed"
    assert len(pids) == 1


@pytest.mark.parametrize("ends", ["os._exit(3)", "wait()", "raise LookupError('x')"])
def test_what_breaks_off_in_the_middle_is_a_body_without_its_end(start: Start, ends: str) -> None:
    served = start(HEAD, "yield b'one'", ends, limit_s=1 if ends == "wait()" else PATIENCE_S)
    with served.asked() as answer:
        assert answer.status == 201
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()
        assert cut.value.partial == b"one"


def test_a_process_that_died_in_the_middle_is_not_given_the_next_call(start: Start) -> None:
    served = start(HEAD, "yield b'one'", "os._exit(3)")
    for _ in range(5):
        with served.asked() as answer:
            assert answer.status == 201
            with pytest.raises(http.client.IncompleteRead):
                answer.read()


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
    ids=["dies", "raises", "too slow", "no object", "no status", "line break", "too long", "nothing"],
)
def test_what_fails_before_its_head_is_out_is_a_502_in_our_shape(start: Start, lines: list[str]) -> None:
    served = start(*lines, limit_s=1 if lines[0] == "wait()" else PATIENCE_S)
    with served.asked() as answer:
        assert (answer.status, error_code(answer)) == (502, "InternalError")


def test_an_answer_that_is_whole_is_a_502_on_a_route_that_streams(start: Start) -> None:
    served = start(module="def handler(event, context):\n    return {'statusCode': 200, 'body': 'whole'}\n")
    with closing(served.connected()) as connection:
        for _ in range(2):
            with served.asked(connection) as answer:
                assert (answer.status, error_code(answer)) == (502, "InternalError")


def test_a_stream_that_does_not_begin_before_its_routes_time_is_up_is_a_504(start: Start) -> None:
    served = start("wait()", "yield", limit_s=1, route_s=0.1)
    with served.asked() as answer:
        assert (answer.status, error_code(answer)) == (504, "ProviderTimeout")


@pytest.mark.parametrize("piece", ["b''", "b'x' * 100_000"], ids=["empty pieces", "pieces"])
def test_a_stream_that_outlasts_its_routes_time_is_cut_and_its_handler_closed(start: Start, piece: str) -> None:
    served = start(HEAD, "while True:", f"    yield {piece}", route_s=0.3)
    pids: set[str] = set()
    for _ in range(2):
        with served.asked() as answer, served.at_gate() as handler:
            _, is_cut = read(answer)
            assert is_cut
            assert handler.recv(6) == b"closed"
            pids.add(answer.headers["x-pid"])
    assert len(pids) == 1


def test_a_stream_over_lambdas_limit_is_cut_there(start: Start) -> None:
    served = start(HEAD, "while True:", "    yield bytes(1_000_000)")
    with served.asked() as answer, served.at_gate() as handler:
        size, is_cut = read(answer)
        assert is_cut
        assert handler.recv(6) == b"closed"
        assert MAX_STREAM_BYTES - 1_000_000 < size <= MAX_STREAM_BYTES


def test_an_error_of_any_length_in_the_middle_cuts_the_body(start: Start) -> None:
    served = start(HEAD, "yield b'one'", "raise LookupError('x' * 200_000)")
    with served.asked() as answer, pytest.raises(http.client.IncompleteRead):
        answer.read()


def test_an_http_1_0_caller_gets_the_bytes_and_then_the_end_of_the_connection(start: Start) -> None:
    served = start(HEAD, "yield b'one'", "yield b'two'")
    with served.raw(f"GET {served.target} HTTP/1.0\r\n\r\n") as caller:
        head, _, body = b"".join(iter(lambda: caller.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()


def test_an_ordinary_invoke_of_a_streaming_function_collects_its_head_and_body(start: Start) -> None:
    served = start(
        module="def handler(event, context):\n    yield {'statusCode': 200}\n    yield b'one'\n    yield b'two'\n"
    )
    assert served.pool.invoke(b"{}") == b'{"statusCode": 200}' + HEAD_ENDS + b"onetwo"


def test_a_stream_that_is_silent_too_long_is_cut_and_its_handler_closed(start: Start) -> None:
    served = start(HEAD, "yield b'one'", "while True:", "    yield b''")
    event = json.dumps({"queryStringParameters": {"gate": served.target.partition("=")[2]}}).encode()
    sent: list[bytes] = []
    ours, callers = socket.socketpair()
    with ours, callers:
        reply = Reply(ours, lambda head: sent.append, timeout_s=PATIENCE_S, idle_s=0.1)
        with pytest.raises(FunctionFailed):
            served.pool.invoke(event, sink=reply)
        assert reply.is_late
        with served.at_gate() as handler:
            assert handler.recv(6) == b"closed"
    assert sent == [b"one"]
