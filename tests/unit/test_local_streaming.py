"""A streamed response from a handler to a caller, through runtime client, local Runtime API and gateway."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local.streamed_response import HEAD_TERMINATOR
from tests.served_function import HEAD, FunctionServer, serving

CALLS = 4
CLOSED_S = 2  # within which a handler is closed after its caller disconnected

Start = Callable[..., FunctionServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *lines, **options: stack.enter_context(serving(tmp_path, *lines, **options))


def test_head_and_chunks_arrive_while_the_handler_is_running(start: Start) -> None:
    server = start(HEAD, "wait()", "yield b'one'", "wait()", "yield b'\\0\\r\\ntwo'", "wait()")
    with server.get() as response, server.accept_gate() as handler:
        assert response.status == 201
        assert int(response.headers["x-pid"]) > 0
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["content-length"] is None
        for chunk in (b"one", b"\0\r\ntwo"):
            handler.sendall(b"1")
            assert response.read1() == chunk
        handler.sendall(b"1")
        assert response.read1() == b""


def test_body_bytes_are_unchanged(start: Start) -> None:
    server = start(HEAD, "yield bytes(range(256)) * 1000", "yield b''", "yield bytes(8)", "yield b'0\\r\\n\\r\\n'")
    with server.get() as response:
        assert response.read() == bytes(range(256)) * 1000 + bytes(8) + b"0\r\n\r\n"


def test_connection_is_reused_after_a_stream(start: Start) -> None:
    server = start(HEAD, "yield b'one'", "yield b'two'")
    with closing(server.connect()) as connection:
        pids: set[str] = set()
        for _ in range(3):
            with server.get(connection) as response:
                assert response.read() == b"onetwo"
                pids.add(response.headers["x-pid"])
    assert len(pids) == 1


@pytest.mark.parametrize("chunk", ["b''", "b'x' * 100_000"], ids=["empty chunks", "chunks"])
def test_disconnect_closes_the_handler_and_its_process_is_reused(start: Start, chunk: str) -> None:
    """Not always the next call: while the process is closing, another one may be started."""
    server = start(HEAD, "yield b'first'", "wait()", "while True:", f"    yield {chunk}")
    pids: set[str] = set()
    for _ in range(CALLS):
        connection = server.connect()
        with server.get(connection) as response, server.accept_gate() as handler:
            pids.add(response.headers["x-pid"])
            assert response.read(5) == b"first"
            handler.sendall(b"1")
            connection.close()
            response.close()
            handler.settimeout(CLOSED_S)
            assert handler.recv(6) == b"closed"
    assert len(pids) < CALLS


def test_http_1_0_stream_ends_with_the_connection(start: Start) -> None:
    server = start(HEAD, "yield b'one'", "yield b'two'")
    with server.raw(f"GET {server.target} HTTP/1.0\r\n\r\n") as client:
        head, _, body = b"".join(iter(lambda: client.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()


def test_buffered_invoke_of_a_streaming_function_returns_head_and_body(start: Start) -> None:
    server = start(
        module="def handler(event, context):\n    yield {'statusCode': 200}\n    yield b'one'\n    yield b'two'\n"
    )
    assert server.pool.invoke(b"{}") == b'{"statusCode": 200}' + HEAD_TERMINATOR + b"onetwo"
