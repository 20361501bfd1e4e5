"""Both ends of a stream, on raw sockets to keep their overhead low: an OpenAI-compatible upstream, and a caller.

The model's name, which gateways pass through, contains the parameters of the stream. Each end is a separate process.
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
RECV_BYTES = 256 * 1024
BODY_END = b"\r\n0\r\n\r\n"  # of a chunked body
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n'
)
_STREAM_PARAMETERS = re.compile(rb"chunks-(\d+)-bytes-(\d+)-apart-(\d+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
CONTENT_START = b'"at '  # start of each content: a gateway may send an additional event before the first
LETTERS = (b"x", b"y")  # alternating: a gateway may treat repeated content as a model error
_SENT_AT = re.compile(CONTENT_START + rb'(\d+)"')  # time.monotonic_ns, which is the same in all processes


def model_name(chunks: int, *, size: int = 5, interval_ms: int = 0) -> str:
    """The model name for `chunks` events of `size` letters; with an interval, events contain their send time."""
    return f"chunks-{chunks}-bytes-{size}-apart-{interval_ms}"


class InvalidStream(Exception):
    """The response is not the requested stream."""


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint on 127.0.0.1, with additional header lines."""

    port: int
    path: str
    headers: str = ""


@dataclass(frozen=True)
class StreamTiming:
    """Times of one stream in ms: `first` and `total` from the request to the first event and to the end.

    For events with a send time: `delays` from sending to arrival, `spread` from the first to the last arrival, and
    `sent_spread` from the first to the last sending. `size` is in bytes.
    """

    first: float
    total: float
    size: int
    delays: list[float]
    spread: float
    sent_spread: float


def pin_to_core(core: int | None) -> None:
    """Pin this thread, and the threads and processes it starts, to a core, if the system supports that."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


@contextmanager
def run_upstream(core: int | None) -> Generator[Endpoint]:
    """The upstream, which runs until the block ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(listener, core), daemon=True)
        server.start()
        try:
            yield Endpoint(listener.getsockname()[1], "/v1/chat/completions")
        finally:
            server.kill()
            server.join()


def request_streams(endpoint: Endpoint, model: str, count: int) -> list[StreamTiming]:
    """Request `count` sequential streams over one connection.

    Raises: InvalidStream, when a response is not the requested stream; OSError.
    """
    body = f'{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"How do LLMs work?"}}]}}'
    head = f"POST {endpoint.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{endpoint.headers}"
    request = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
    expected = int(_search(_STREAM_PARAMETERS, request)[1])
    with socket.create_connection(("127.0.0.1", endpoint.port), WAIT_S) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return [_request_stream(caller, request, expected) for _ in range(count)]


def _request_stream(caller: socket.socket, request: bytes, expected: int) -> StreamTiming:
    chunks: list[tuple[int, bytes]] = []
    tail, first = b"", 0
    started = time.monotonic_ns()
    caller.sendall(request)
    while not tail.endswith(BODY_END):
        chunk = caller.recv(RECV_BYTES)
        chunks.append((time.monotonic_ns(), chunk))
        if not chunk:
            break
        if len(chunks) == 1 and not chunk.startswith(b"HTTP/1.1 200 "):  # an error may not be chunked
            raise InvalidStream(f"it returned status {chunk[9:12].decode()}")
        if not first and CONTENT_START in chunk:
            first = chunks[-1][0]
        tail = (tail + chunk)[-len(BODY_END) :]
    response = b"".join(chunk for _, chunk in chunks)
    if response.count(b"data: ") < expected or not tail.endswith(BODY_END):
        raise InvalidStream(f"its response lacks some of {expected} events or its end: …{response[-200:]!r}")
    ends = list(itertools.accumulate(len(chunk) for _, chunk in chunks))
    times = [(int(match[1]), chunks[bisect_left(ends, match.end())][0]) for match in _SENT_AT.finditer(response)]
    return StreamTiming(
        first=_ms(first - started),
        total=_ms(chunks[-1][0] - started),
        size=len(response),
        delays=[_ms(arrival - sent) for sent, arrival in times],
        spread=_ms(times[-1][1] - times[0][1]) if times else 0,
        sent_spread=_ms(times[-1][0] - times[0][0]) if times else 0,
    )


def _serve(listener: socket.socket, core: int | None) -> None:
    pin_to_core(core)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        threading.Thread(target=_serve_connection, args=(listener.accept()[0],), daemon=True).start()


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _serve_connection(caller: socket.socket) -> None:
    """Send one stream per request, with one write per event."""
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(ConnectionError, ValueError), caller:
        while True:
            chunks, size, interval_ms = map(int, _search(_STREAM_PARAMETERS, _read_request(caller)).groups())
            caller.sendall(HEAD + _chunk(b'"role":"assistant","content":""'))
            events = itertools.cycle(_chunk(b'"content":"at %b"' % (letter * size)) for letter in LETTERS)
            started = time.monotonic()
            for i, event in zip(range(chunks), events, strict=False):
                if interval_ms:
                    time.sleep(max(0.0, started + i * interval_ms / 1000 - time.monotonic()))
                    event = _chunk(b'"content":"at %d"' % time.monotonic_ns())
                caller.sendall(event)
            caller.sendall(_chunk(b"", b'"stop"') + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def _read_request(caller: socket.socket) -> bytes:
    """The next complete request. Raises: ConnectionError, when the caller closes the connection."""
    request = b""
    while b"\r\n\r\n" not in request or len(request.partition(b"\r\n\r\n")[2]) < int(_search(_LENGTH, request)[1]):
        chunk = caller.recv(RECV_BYTES)
        if not chunk:
            raise ConnectionError
        request += chunk
    return request


def _chunk(delta: bytes, reason: bytes = b"null") -> bytes:
    event = EVENT % (delta, reason)
    return b"%x\r\n%b\r\n" % (len(event), event)


def _search(pattern: re.Pattern[bytes], text: bytes) -> re.Match[bytes]:
    """Raises: ValueError, when the pattern does not occur in the text."""
    match = pattern.search(text)
    if match is None:
        raise ValueError(f"{pattern.pattern!r} is not in {text[:500]!r}")
    return match


def _ms(ns: int) -> float:
    return ns / 1_000_000
