"""Runs a Lambda function in its real runtime client, over a small Runtime API server: one sandbox, one call at a time.

The client is awslambdaric, or what a layer offers where the function's environment says so (AWS_LAMBDA_EXEC_WRAPPER).

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import base64
import contextlib
import io
import json
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from local import subprocesses
from local.http_body import BodyBroken, pieces_of
from local.http_head import StrictHandler

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: invocation payload, request and response
MAX_PAYLOAD_BYTES = 6_291_456
MAX_STREAM_BYTES = 200 * 1024 * 1024
INIT_S = 30.0  # Lambda gives 10; a busy laptop compiling bytecode needs more
STOP_POLL_S = 0.1  # how soon a listener sees that it is to stop
GONE_POLL_S = 0.2  # how soon it is seen that a stream's reader has gone
# awslambdaric is not built for macOS; ours does for any handler.
RUNTIME_CLIENT = "awslambdaric" if find_spec("awslambdaric") else "aiserver.lambda_runtime"


@dataclass(frozen=True)
class DeployedFunction:
    """A function as its stack resolved it."""

    name: str
    arn: str
    folder: Path
    handler: str
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str]


class FunctionFailed(Exception):
    """The function answered with an error, crashed, took too long, or said too much. `type` is Lambda's word for it."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type


class Sink(Protocol):
    """Where a streamed answer goes, piece by piece as it comes, in whatever thread it comes."""

    def write(self, piece: bytes) -> None:
        """Raises: OSError, where nobody takes it any more."""
        ...

    def is_gone(self) -> bool:
        """Whether nobody waits any more; asked now and then."""
        ...


class BufferedResponse:
    """The sink of a caller that waits for the whole: what a streaming function answers to an ordinary Invoke."""

    def __init__(self) -> None:
        self._content = io.BytesIO()

    def write(self, piece: bytes) -> None:
        self._content.write(piece)

    def is_gone(self) -> bool:
        return False

    def whole(self) -> bytes:
        return self._content.getvalue()


@dataclass(frozen=True)
class _Call:
    request_id: str
    event: bytes
    deadline_ms: int
    sink: Sink
    ends: "queue.SimpleQueue[bytes | FunctionFailed | None]"  # None where all of it went to the sink


class Sandbox:
    """One runtime process, and the Runtime API it polls."""

    def __init__(
        self, function: DeployedFunction, environment: Mapping[str, str], log: Path, layers: list[Path]
    ) -> None:
        self._function = function
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._call: _Call | None = None
        self._posting: socket.socket | None = None  # over which a stream comes
        self._ready = threading.Event()
        self._ended: FunctionFailed | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_S,), daemon=True).start()
        self._child = subprocesses.start(
            _command(function, layers),
            environment={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}"},
            folder=function.folder,
            log=log,
        ).result()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._ended is None

    @property
    def pid(self) -> int:
        return self._child.pid

    def memory_kb(self, line: str) -> int:
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(status.partition(f"{line}:")[2].split()[0])

    def wait_until_ready(self) -> None:
        if not self._ready.wait(INIT_S):
            self._kill(FunctionFailed("Sandbox.Timedout", f"not initialised after {INIT_S:.0f} s"))
        if self._ended:
            raise self._ended

    def invoke(self, request_id: str, event: bytes, sink: Sink) -> bytes | None:
        self.wait_until_ready()
        limit_s = self._function.timeout_s
        call = _Call(request_id, event, int((time.time() + limit_s) * 1000), sink, queue.SimpleQueue())
        self._call = call
        if self._ended:  # since it was taken: whoever watches it had no call to end
            raise self._ended
        self._calls.put(call)
        until = time.monotonic() + limit_s
        while (left_s := until - time.monotonic()) > 0:
            try:
                end = call.ends.get(timeout=min(left_s, GONE_POLL_S))
            except queue.Empty:
                if sink.is_gone():
                    self._hang_up()
                continue
            if isinstance(end, FunctionFailed):
                raise end
            return end
        failure = FunctionFailed("Sandbox.Timedout", f"{request_id} Task timed out after {limit_s}.00 seconds")
        self._kill(failure)
        raise failure

    def _hang_up(self) -> None:
        """Tell a function that streams, by the end of its connection, that nobody listens any more."""
        posting, self._posting = self._posting, None
        if posting is not None:
            with contextlib.suppress(OSError):
                _reset_at_close(posting)
                posting.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._kill(FunctionFailed("Runtime.ExitError", "closed"))
        subprocesses.stop(self._child, grace_s=0)
        self._server.shutdown()
        self._server.server_close()

    def _kill(self, why: FunctionFailed) -> None:
        self._ended = self._ended or why
        subprocesses.kill(self._child)
        self._calls.put(None)

    def _watch(self) -> None:
        """A process that ends by itself takes its call with it."""
        status = self._child.wait()
        crash = FunctionFailed("Runtime.ExitError", f"Runtime exited with error: exit status {status}")
        self._ended = self._ended or crash
        self._ready.set()
        self._calls.put(None)
        self._end(crash)

    def _end(self, how: "bytes | FunctionFailed | None") -> None:
        if self._call:
            self._call.ends.put(how)

    def _handler(self) -> type[StrictHandler]:
        sandbox = self

        class Handler(StrictHandler):
            def do_GET(self) -> None:
                sandbox._ready.set()
                call = sandbox._calls.get()
                if call is None:
                    self.close_connection = True
                    return
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": call.request_id,
                    "Lambda-Runtime-Deadline-Ms": str(call.deadline_ms),
                    "Lambda-Runtime-Invoked-Function-Arn": sandbox._function.arn,
                    "Lambda-Runtime-Trace-Id": _trace_id(call),
                    "Content-Type": "application/json",
                }
                self._send(200, call.event, headers)

            def do_POST(self) -> None:
                if self.headers.get("lambda-runtime-function-response-mode") == "streaming":
                    self._take_stream()
                    return
                if (body := self.body_within(MAX_STREAM_BYTES)) is None:
                    return
                verb = self.path.rsplit("/", 1)[-1]
                if verb == "response" and len(body) > MAX_PAYLOAD_BYTES:
                    self._send(413, b'{"errorType":"RequestEntityTooLarge"}', {})
                    problem = (
                        f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes)."
                    )
                    failure = FunctionFailed("Function.ResponseSizeTooLarge", problem)
                    sandbox._kill(failure)  # its client gives up over the refusal; the next call must not meet that
                    sandbox._end(failure)
                elif verb == "response":
                    self._send(202, b'{"status":"OK"}', {})
                    sandbox._end(body)
                else:
                    self._send(202, b'{"status":"OK"}', {})
                    sandbox._failed(body, at_start=self.path.endswith("/init/error"))

            def _take_stream(self) -> None:
                """Pass on what comes until it ends; a function that is hung up on has done its best."""
                self.close_connection = True
                call, sandbox._posting = sandbox._call, self.connection
                if call is None:
                    return
                trailers: dict[str, str] = {}
                size = 0
                end: FunctionFailed | None = None
                try:
                    for piece in pieces_of(cast(BinaryIO, self.rfile), self.headers, trailers):
                        size += len(piece)
                        if size > MAX_STREAM_BYTES:
                            end = FunctionFailed("Function.ResponseSizeTooLarge", f"over {MAX_STREAM_BYTES} bytes")
                        elif not _is_taken(call.sink, piece):
                            end = FunctionFailed("Sandbox.Gone", "nobody took its answer to the end")
                        if end:
                            _reset_at_close(self.connection)
                            break
                    else:
                        self._send(202, b'{"status":"OK"}', {})
                except (BodyBroken, OSError) as broken:
                    end = FunctionFailed("Runtime.TruncatedResponse", f"the stream broke off: {broken}")
                    if sandbox._posting is not None:  # not by us: it is dying, and the next call must not meet that
                        sandbox._kill(end)
                if kind := trailers.get("lambda-runtime-function-error-type"):
                    end = FunctionFailed(kind, _message(trailers.get("lambda-runtime-function-error-body", "")))
                sandbox._posting = None
                call.ends.put(end)

            def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                self.wfile.write(f"HTTP/1.1 {status} -\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the process was killed
                    super().handle()

        return Handler

    def _failed(self, body: bytes, *, at_start: bool) -> None:
        told: dict[str, Any] = json.loads(body)
        failure = FunctionFailed(told.get("errorType", "Unknown"), told.get("errorMessage", ""))
        if at_start:
            self._ended = failure
            self._ready.set()
        else:
            self._end(failure)


def _is_taken(sink: Sink, piece: bytes) -> bool:
    try:
        sink.write(piece)
    except OSError:
        return False
    return True


def _reset_at_close(connection: socket.socket) -> None:
    """A function that waits for room to send would otherwise not hear of the end for a minute (Linux)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _message(trailer: str) -> str:
    """What a stream's error says; nothing, where the trailer is longer than the line that is read of it."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return json.loads(base64.b64decode(trailer))["errorMessage"]
    return ""


def _command(function: DeployedFunction, layers: list[Path]) -> list[str]:
    """What starts its client, as Lambda does: a wrapper, if it has one, is given what would be started else."""
    ordinary = [sys.executable, "-m", RUNTIME_CLIENT, function.handler]
    wrapper = function.environment.get("AWS_LAMBDA_EXEC_WRAPPER")
    if wrapper is None:
        return ordinary
    (file,) = [path for layer in layers if (path := layer / Path(wrapper).relative_to("/opt")).is_file()]
    return [str(file), *ordinary]


def _trace_id(call: _Call) -> str:
    return f"Root=1-{call.deadline_ms // 1000:08x}-{call.request_id[-12:]:0>24};Sampled=0"
