"""Both ends of a stream, in raw sockets so that they cost little: an upstream that speaks OpenAI's, and a caller.

What is asked of the upstream stands in the model's name, which gateways pass on. Each end is a process of its own.
"""

import itertools
import multiprocessing
import os
import re
import socket
import threading
import time
from bisect import bisect_left
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

WAIT_S = 60
PIECE_BYTES = 256 * 1024
END = b"\r\n0\r\n\r\n"  # of a chunked body
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n'
)
_ASKED = re.compile(rb"chunks-(\d+)-bytes-(\d+)-apart-(\d+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
WORD = b'"at '  # with which each content begins: a gateway may send an event of its own before the first
LETTERS = (b"x", b"y")  # by turns: a gateway may take the same word over and over for a model gone wrong
_SENT_AT = re.compile(WORD + rb'(\d+)"')  # of time.monotonic_ns, which processes share


def model(chunks: int, *, size: int = 5, apart_ms: int = 0) -> str:
    """The name that asks for `chunks` events of `size` letters; those that come apart say when they were sent."""
    return f"chunks-{chunks}-bytes-{size}-apart-{apart_ms}"


class NoStream(Exception):
    """What was answered is not the stream that was asked for."""


@dataclass(frozen=True)
class Way:
    """Where a chat is asked for, and the header lines that takes."""

    port: int
    path: str
    headers: str = ""


@dataclass(frozen=True)
class Heard:
    """One stream, in ms from the request to its first event and to its end.

    `late` is how long each event that says when it was sent was under way, `spread` the time from the first of these to
    the last, `sent_spread` the same as the upstream sent them.
    """

    first: float
    whole: float
    size: int
    late: list[float]
    spread: float
    sent_spread: float


def on_core(core: int | None) -> None:
    """This thread, and what it starts from now on, run there, where the system can do that."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


@contextmanager
def upstream(core: int | None) -> Generator[Way]:
    """Runs until the block ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        serving = multiprocessing.get_context("spawn").Process(target=_serve, args=(listener, core), daemon=True)
        serving.start()
        try:
            yield Way(listener.getsockname()[1], "/v1/chat/completions")
        finally:
            serving.kill()
            serving.join()


def ask(way: Way, name: str, times: int) -> list[Heard]:
    """So many streams, one after the other over one connection. Raises: NoStream, OSError."""
    body = f'{{"model":"{name}","stream":true,"messages":[{{"role":"user","content":"How do LLMs work?"}}]}}'
    head = f"POST {way.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{way.headers}"
    asked = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
    expected = int(_found(_ASKED, asked)[1])
    with socket.create_connection(("127.0.0.1", way.port), WAIT_S) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return [_stream(caller, asked, expected) for _ in range(times)]


def _stream(caller: socket.socket, asked: bytes, expected: int) -> Heard:
    came: list[tuple[int, bytes]] = []
    tail, first = b"", 0
    started = time.monotonic_ns()
    caller.sendall(asked)
    while not tail.endswith(END):
        piece = caller.recv(PIECE_BYTES)
        came.append((time.monotonic_ns(), piece))
        if not piece:
            break
        if len(came) == 1 and not piece.startswith(b"HTTP/1.1 200 "):  # it may be framed in another way
            raise NoStream(f"it answers {piece[9:12].decode()}")
        if not first and WORD in piece:
            first = came[-1][0]
        tail = (tail + piece)[-len(END) :]
    told = b"".join(piece for _, piece in came)
    if told.count(b"data: ") < expected or not tail.endswith(END):
        raise NoStream(f"its answer lacks some of {expected} events, or its end: …{told[-200:]!r}")
    ends = list(itertools.accumulate(len(piece) for _, piece in came))
    at = [(int(sent[1]), came[bisect_left(ends, sent.end())][0]) for sent in _SENT_AT.finditer(told)]
    return Heard(
        first=_ms(first - started),
        whole=_ms(came[-1][0] - started),
        size=len(told),
        late=[_ms(arrived - sent) for sent, arrived in at],
        spread=_ms(at[-1][1] - at[0][1]) if at else 0,
        sent_spread=_ms(at[-1][0] - at[0][0]) if at else 0,
    )


def _serve(listener: socket.socket, core: int | None) -> None:
    on_core(core)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        threading.Thread(target=_answer, args=(listener.accept()[0],), daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _answer(caller: socket.socket) -> None:
    """One stream a request, each event in a write of its own."""
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(ConnectionError, ValueError), caller:
        while True:
            chunks, size, apart_ms = (int(asked) for asked in _found(_ASKED, _request(caller)).groups())
            caller.sendall(HEAD + _chunk(b'"role":"assistant","content":""'))
            words = itertools.cycle(_chunk(b'"content":"at %b"' % (letter * size)) for letter in LETTERS)
            began = time.monotonic()
            for i, word in zip(range(chunks), words, strict=False):
                if apart_ms:
                    time.sleep(max(0.0, began + i * apart_ms / 1000 - time.monotonic()))
                    word = _chunk(b'"content":"at %d"' % time.monotonic_ns())
                caller.sendall(word)
            caller.sendall(_chunk(b"", b'"stop"') + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def _request(caller: socket.socket) -> bytes:
    """The next one, whole. Raises: ConnectionError, where none comes any more."""
    came = b""
    while b"\r\n\r\n" not in came or len(came.partition(b"\r\n\r\n")[2]) < int(_found(_LENGTH, came)[1]):
        piece = caller.recv(PIECE_BYTES)
        if not piece:
            raise ConnectionError
        came += piece
    return came


def _chunk(delta: bytes, reason: bytes = b"null") -> bytes:
    event = EVENT % (delta, reason)
    return b"%x\r\n%b\r\n" % (len(event), event)


def _found(wanted: re.Pattern[bytes], within: bytes) -> re.Match[bytes]:
    found = wanted.search(within)
    if found is None:
        raise ValueError(f"{wanted.pattern!r} is not in {within[:500]!r}")
    return found


def _ms(ns: int) -> float:
    return ns / 1_000_000
