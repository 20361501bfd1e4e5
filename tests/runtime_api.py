"""A scripted Runtime API on loopback, and a runtime client process that polls it. Requests and logs are recorded."""

import contextlib
import json
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local.template import REPOSITORY

LAYER = REPOSITORY / "layers" / "aiserver"
AISERVER_RUNTIME = [sys.executable, "-u", "-m", "aiserver.lambda_runtime"]
AWSLAMBDARIC = [sys.executable, "-m", "awslambdaric", "handler.handler"]
ARN = "arn:aws:lambda:us-east-1:000000000000:function:toy"
PATIENCE_S = 10
STOP_POLL_S = 0.01


@dataclass
class ReceivedRequest:
    """One request; a streaming request is recorded before its chunks arrive."""

    method: str
    path: str
    headers: Message
    connection: socket.socket
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict[str, str])
    chunks: "queue.SimpleQueue[bytes | None]" = field(default_factory=queue.SimpleQueue)

    def chunk(self) -> bytes | None:
        """Return the next chunk, or None at the regular end. Raises: queue.Empty, when none arrives in time."""
        return self.chunks.get(timeout=PATIENCE_S)

    def hang_up(self) -> None:
        """Close with a TCP reset: a sender that waits for buffer space does not notice a plain close."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR)

    def __str__(self) -> str:
        return f"{self.method} {self.path.removeprefix('/2018-06-01/runtime')}"


class RuntimeApi:
    """Responds to `next` with the queued events; to other paths with 202, or with `statuses` by last path segment."""

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self._responses: queue.SimpleQueue[tuple[bytes, bool]] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[ReceivedRequest] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_S,), daemon=True).start()

    def offer_event(self, event: Any = None, request_id: str | None = "r-1", **headers: str | None) -> None:
        """Queue an invocation for the next poll; a header of None is omitted."""
        fields = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 60) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": "Root=1-a-b;Sampled=0",
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        body = json.dumps(event).encode()
        response = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._responses.put((response, False))

    def offer_raw_response(self, response: bytes) -> None:
        """Queue raw response bytes for the next poll; the connection is closed after them."""
        self._responses.put((response, True))

    def next_request(self) -> ReceivedRequest:
        """Return the next request, in order of arrival. Raises: queue.Empty, when none arrives in time."""
        return self._requests.get(timeout=PATIENCE_S)

    def has_no_request(self) -> bool:
        """Return whether no request is pending."""
        return self._requests.empty()

    def close(self) -> None:
        self.offer_raw_response(b"")
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                api._requests.put(ReceivedRequest("GET", self.path, self.headers, self.connection))
                response, self.close_connection = api._responses.get()
                self.wfile.write(response)

            def do_POST(self) -> None:
                request = ReceivedRequest("POST", self.path, self.headers, self.connection)
                if self.headers["transfer-encoding"] == "chunked":
                    self.close_connection = True
                    api._requests.put(request)
                    self._read_chunks(request)
                else:
                    request.body = self.rfile.read(int(self.headers["content-length"]))
                    api._requests.put(request)
                status = api.statuses.get(self.path.rpartition("/")[2], 202)
                self.wfile.write(b"HTTP/1.1 %d -\r\nContent-Length: 2\r\n\r\n{}" % status)

            def _read_chunks(self, request: ReceivedRequest) -> None:
                """Read a chunked body by RFC 9112, 7.1: each line ends with CRLF, and nothing follows the last."""
                while size := int(self._line(), 16):
                    chunk = self.rfile.read(size)
                    if len(chunk) < size or self._line():
                        raise ConnectionError("chunk without its end")
                    request.chunks.put(chunk)
                while line := self._line():
                    name, _, value = line.partition(": ")
                    request.trailers[name] = value
                request.chunks.put(None)

            def _line(self) -> str:
                line = self.rfile.readline()
                if not line.endswith(b"\r\n"):
                    raise ConnectionError("line without CRLF")
                return line[:-2].decode("ascii")

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@dataclass(frozen=True)
class Client:
    """A running runtime client process."""

    api: RuntimeApi
    process: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_bytes().decode()

    def wait_for_exit(self) -> int:
        """Return the exit status. Raises: subprocess.TimeoutExpired, when the process does not exit in time."""
        return self.process.wait(PATIENCE_S)

    def call(self, event: Any = None, **headers: Any) -> ReceivedRequest:
        """Send one invocation, and return the client's request with its response."""
        assert str(self.api.next_request()) == "GET /invocation/next"
        self.api.offer_event(event, **headers)
        return self.api.next_request()


@contextmanager
def running(
    folder: Path, source: str, *, command: list[str] = AISERVER_RUNTIME, **environment: str
) -> Iterator[Client]:
    """Run a client with the handler module `source`, in `folder`."""
    api = RuntimeApi()
    module = folder / f"{api.address}.py"
    module.write_text(source, encoding="utf-8")
    module.replace(folder / "handler.py")  # atomic: another client may be reading it
    variables = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join([str(folder), str(LAYER), os.environ["PYTHONPATH"]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAMBDA_TASK_ROOT": str(folder),
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_FUNCTION_NAME": "toy",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/toy",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "_HANDLER": "handler.handler",
        **environment,
    }
    log_file = folder / f"{api.address}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield Client(api, process, log_file)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        api.close()
