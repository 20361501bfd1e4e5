"""A stream that fails: before its head an error in our shape, after it a body without its end."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local.runtime_api import MAX_STREAM_BYTES, FunctionFailed
from local.streamed_response import MAX_HEAD_BYTES, Reply
from tests.served_function import HEAD, PATIENCE_S, Served, serving

Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as running:
        yield lambda *lines, **more: running.enter_context(serving(tmp_path, *lines, **more))


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
