"""Runs a Lambda function in its real runtime client, over a small Runtime API server: one sandbox, one call at a time.

The client is awslambdaric, or a layer's if the function's environment sets AWS_LAMBDA_EXEC_WRAPPER.

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
from local.http_body import MalformedBody, stream_body
from local.http_head import StrictHandler

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: invocation payload, request and response
MAX_PAYLOAD_BYTES = 6_291_456
MAX_STREAM_BYTES = 200 * 1024 * 1024
INIT_S = 30.0  # Lambda allows 10; a busy laptop compiling bytecode needs more
STOP_POLL_S = 0.1  # how often a listener checks whether to stop
DISCONNECT_POLL_S = 0.2  # how often a sandbox checks whether a stream's reader has disconnected
# awslambdaric is not built for macOS; aiserver's own client runs any handler.
RUNTIME_CLIENT = "awslambdaric" if find_spec("awslambdaric") else "aiserver.lambda_runtime"


@dataclass(frozen=True)
class DeployedFunction:
    """A function with the configuration that its stack resolved."""

    name: str
    arn: str
    folder: Path
    handler: str
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str]


class FunctionFailed(Exception):
    """The function returned an error, crashed, timed out or sent too much. `type` is Lambda's error type."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type


class Sink(Protocol):
    """Receives a streamed response chunk by chunk, in any thread."""

    def write(self, chunk: bytes) -> None:
        """Raises: OSError, when the reader has disconnected."""
        ...

    def is_disconnected(self) -> bool:
        """Whether the reader has disconnected or timed out; called every DISCONNECT_POLL_S."""
        ...


class BufferedResponse:
    """The sink of a caller that needs the complete response: a streaming function under an ordinary Invoke."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()

    def write(self, chunk: bytes) -> None:
        self._buffer.write(chunk)

    def is_disconnected(self) -> bool:
        return False

    def content(self) -> bytes:
        return self._buffer.getvalue()


@dataclass(frozen=True)
class _Call:
    request_id: str
    event: bytes
    deadline_ms: int
    sink: Sink
    outcomes: "queue.SimpleQueue[bytes | FunctionFailed | None]"  # None: the response was written to the sink


class Sandbox:
    """One runtime process, and the Runtime API it polls."""

    def __init__(
        self, function: DeployedFunction, environment: Mapping[str, str], log: Path, layers: list[Path]
    ) -> None:
        self._function = function
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._call: _Call | None = None
        self._stream_connection: socket.socket | None = None  # on which the function posts a stream
        self._ready = threading.Event()
        self._failure: FunctionFailed | None = None  # set once the process has ended
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
        return self._failure is None

    @property
    def pid(self) -> int:
        return self._child.pid

    def memory_kb(self, field: str) -> int:
        """The value of a field of /proc/PID/status, such as VmRSS, in KB."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0])

    def wait_until_ready(self) -> None:
        """Raises: FunctionFailed, when the function did not initialise within INIT_S."""
        if not self._ready.wait(INIT_S):
            self._kill(FunctionFailed("Sandbox.Timedout", f"not initialised after {INIT_S:.0f} s"))
        if self._failure:
            raise self._failure

    def invoke(self, request_id: str, event: bytes, sink: Sink) -> bytes | None:
        """Run the function once; its response, or None when it was written to the sink. Raises: FunctionFailed."""
        self.wait_until_ready()
        limit_s = self._function.timeout_s
        call = _Call(request_id, event, int((time.time() + limit_s) * 1000), sink, queue.SimpleQueue())
        self._call = call
        if self._failure:  # the process ended before `_call` was set, so that `_watch` could not end this call
            raise self._failure
        self._calls.put(call)
        deadline = time.monotonic() + limit_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            try:
                outcome = call.outcomes.get(timeout=min(remaining_s, DISCONNECT_POLL_S))
            except queue.Empty:
                if sink.is_disconnected():
                    self._disconnect()
                continue
            if isinstance(outcome, FunctionFailed):
                raise outcome
            return outcome
        failure = FunctionFailed("Sandbox.Timedout", f"{request_id} Task timed out after {limit_s}.00 seconds")
        self._kill(failure)
        raise failure

    def _disconnect(self) -> None:
        """Close the connection of a streaming function, because its reader has disconnected."""
        connection, self._stream_connection = self._stream_connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                _reset_on_close(connection)
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._kill(FunctionFailed("Runtime.ExitError", "closed"))
        subprocesses.stop(self._child, grace_s=0)
        self._server.shutdown()
        self._server.server_close()

    def _kill(self, reason: FunctionFailed) -> None:
        self._failure = self._failure or reason
        subprocesses.kill(self._child)
        self._calls.put(None)

    def _watch(self) -> None:
        """Wait for the end of the process and fail its current call."""
        status = self._child.wait()
        crash = FunctionFailed("Runtime.ExitError", f"Runtime exited with error: exit status {status}")
        self._failure = self._failure or crash
        self._ready.set()
        self._calls.put(None)
        self._finish(crash)

    def _finish(self, outcome: "bytes | FunctionFailed | None") -> None:
        if self._call:
            self._call.outcomes.put(outcome)

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
                    self._receive_stream()
                    return
                if (body := self.read_limited_body(MAX_STREAM_BYTES)) is None:
                    return
                verb = self.path.rsplit("/", 1)[-1]
                if verb == "response" and len(body) > MAX_PAYLOAD_BYTES:
                    self._send(413, b'{"errorType":"RequestEntityTooLarge"}', {})
                    message = (
                        f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes)."
                    )
                    failure = FunctionFailed("Function.ResponseSizeTooLarge", message)
                    sandbox._kill(failure)  # its client exits after the 413; the next call needs another process
                    sandbox._finish(failure)
                elif verb == "response":
                    self._send(202, b'{"status":"OK"}', {})
                    sandbox._finish(body)
                else:
                    self._send(202, b'{"status":"OK"}', {})
                    sandbox._report_error(body, at_init=self.path.endswith("/init/error"))

            def _receive_stream(self) -> None:
                """Forward the stream to the sink until it ends, exceeds MAX_STREAM_BYTES or its reader disconnects."""
                self.close_connection = True
                call, sandbox._stream_connection = sandbox._call, self.connection
                if call is None:
                    return
                trailers: dict[str, str] = {}
                size = 0
                failure: FunctionFailed | None = None
                try:
                    for chunk in stream_body(cast(BinaryIO, self.rfile), self.headers, trailers):
                        size += len(chunk)
                        if size > MAX_STREAM_BYTES:
                            failure = FunctionFailed("Function.ResponseSizeTooLarge", f"over {MAX_STREAM_BYTES} bytes")
                        elif not _write(call.sink, chunk):
                            failure = FunctionFailed("Sandbox.Gone", "the caller disconnected during the response")
                        if failure:
                            _reset_on_close(self.connection)
                            break
                    else:
                        self._send(202, b'{"status":"OK"}', {})
                except (MalformedBody, OSError) as error:
                    failure = FunctionFailed("Runtime.TruncatedResponse", f"the stream was truncated: {error}")
                    if sandbox._stream_connection is not None:  # not closed by `_disconnect`: the process is ending,
                        sandbox._kill(failure)  # and the next call needs another one
                if kind := trailers.get("lambda-runtime-function-error-type"):
                    message = _error_message(trailers.get("lambda-runtime-function-error-body", ""))
                    failure = FunctionFailed(kind, message)
                sandbox._stream_connection = None
                call.outcomes.put(failure)

            def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                self.wfile.write(f"HTTP/1.1 {status} -\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the process was killed
                    super().handle()

        return Handler

    def _report_error(self, body: bytes, *, at_init: bool) -> None:
        """Fail the current call, or the sandbox if the error occurred during initialisation."""
        error: dict[str, Any] = json.loads(body)
        failure = FunctionFailed(error.get("errorType", "Unknown"), error.get("errorMessage", ""))
        if at_init:
            self._failure = failure
            self._ready.set()
        else:
            self._finish(failure)


def _write(sink: Sink, chunk: bytes) -> bool:
    """Write to the sink; false when its reader has disconnected."""
    try:
        sink.write(chunk)
    except OSError:
        return False
    return True


def _reset_on_close(connection: socket.socket) -> None:
    """Send RST on close: a function that is blocked in a send would otherwise notice only after a minute (Linux)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _error_message(trailer: str) -> str:
    """The message of a stream's error trailer; empty if the trailer is invalid or was cut at the line limit."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return json.loads(base64.b64decode(trailer))["errorMessage"]
    return ""


def _command(function: DeployedFunction, layers: list[Path]) -> list[str]:
    """The command that starts the runtime client; as in Lambda, a wrapper receives it as its arguments."""
    client_command = [sys.executable, "-m", RUNTIME_CLIENT, function.handler]
    wrapper = function.environment.get("AWS_LAMBDA_EXEC_WRAPPER")
    if wrapper is None:
        return client_command
    (wrapper_file,) = [path for layer in layers if (path := layer / Path(wrapper).relative_to("/opt")).is_file()]
    return [str(wrapper_file), *client_command]


def _trace_id(call: _Call) -> str:
    return f"Root=1-{call.deadline_ms // 1000:08x}-{call.request_id[-12:]:0>24};Sampled=0"
