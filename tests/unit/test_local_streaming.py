"""A streamed answer from a handler, through the main loop, the local Runtime API and the door, to a caller."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local.streamed_response import HEAD_ENDS
from tests.served_function import HEAD, Served, serving

CALLS = 4
CLOSED_S = 2  # within which a handler is told that its caller has gone

Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as running:
        yield lambda *lines, **more: running.enter_context(serving(tmp_path, *lines, **more))


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
def test_a_handler_whose_caller_hangs_up_is_closed_and_its_process_serves_a_later_call(
    start: Start, piece: str
) -> None:
    """Not always the next: between closing and being free it may be passed over, and another one started."""
    served = start(HEAD, "yield b'first'", "wait()", "while True:", f"    yield {piece}")
    pids: set[str] = set()
    for _ in range(CALLS):
        connection = served.connected()
        with served.asked(connection) as answer, served.at_gate() as handler:
            pids.add(answer.headers["x-pid"])
            assert answer.read(5) == b"first"
            handler.sendall(b"1")
            connection.close()
            answer.close()
            handler.settimeout(CLOSED_S)
            assert handler.recv(6) == b"closed"
    assert len(pids) < CALLS


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
